/** The alert rules and the dashboard use what a real scrape has and nothing else, and each alert has its section in docs/operations.md. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { freePort, type House, startTestHouse, until } from '../support/house.ts';
import { claimed, granted } from '../support/house-verbs.ts';
import { type Scraped, scrape } from './scrape.ts';

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: Record<string, string>;
  readonly annotations: Record<string, string>;
}
interface Panel {
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
}

let house: House;
let seen: Scraped;
/** Every metric with the labels that its series have, `le` among them. */
const labelsOf = new Map<string, Set<string>>();
beforeAll(async () => {
  const listen = `127.0.0.1:${await freePort()}`;
  house = await startTestHouse({ tell: `metrics: { listen: '${listen}' }` });
  // Some series are only there once it has happened: a refusal, a failed try.
  const { grant } = await granted(house);
  await claimed(house, grant);
  await (await house.apiAs('stranger')).get('/system');
  house.faults.revoke = async () => {
    throw new Error('the target is away');
  };
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  seen = await until('a try has failed', async () => {
    const now = await scrape(listen);
    return now.value('halligan_revocation_retries_total') !== undefined && now;
  });
  delete house.faults.revoke;
  for (const { name, labels } of seen.samples) labelsOf.set(name, new Set([...(labelsOf.get(name) ?? []), ...Object.keys(labels)]));
});
afterAll(() => house?.close());

/** What Prometheus itself adds to every series. */
const own = ['instance', 'job'];
labelsOf.set('up', new Set());

/** The metrics of an expression with the labels that each may be asked for; a name that no scrape has is an error. */
function metricsIn(expr: string): { metrics: string[]; used: string[] } {
  const bare = expr.replaceAll(/"[^"]*"/g, '""');
  const metrics = [...bare.matchAll(/\b(?:(?:halligan|process|nodejs)_[a-z0-9_]+|up)\b/g)].map((match) => match[0]);
  const grouped = [...bare.matchAll(/\b(?:by|without|on|ignoring) \(([^)]*)\)/g)].flatMap((match) => (match[1] ?? '').split(',').map((name) => name.trim()));
  const matched = [...bare.matchAll(/\{([^}]*)\}/g)].flatMap((match) =>
    [...(match[1] ?? '').matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map((label) => label[1] ?? ''),
  );
  return { metrics, used: [...grouped, ...matched] };
}

/** What is wrong with an expression, and with the labels that texts beside it show. */
function faultsOf(where: string, expr: string, shown: readonly string[]): string[] {
  const { metrics, used } = metricsIn(expr);
  const has = (label: string): boolean => own.includes(label) || metrics.some((metric) => labelsOf.get(metric)?.has(label));
  const kept = /\b(sum|max|min|count|avg)\b/.test(expr) ? [...expr.matchAll(/by \(([^)]*)\)/g)].flatMap((match) => (match[1] ?? '').split(/,\s*/)) : null;
  return [
    ...(metrics.length === 0 ? [`${where}: no metric`] : []),
    ...metrics.filter((metric) => !labelsOf.has(metric)).map((metric) => `${where}: no scrape has ${metric}`),
    ...used.filter((label) => !has(label)).map((label) => `${where}: ${metrics.join(', ')} have no label ${label}`),
    ...shown.filter((label) => !has(label) || (kept && !kept.includes(label))).map((label) => `${where}: ${label} is shown and not there`),
  ];
}

const rules = async (): Promise<Rule[]> =>
  (parse(await readFile('deploy/prometheus/alerts.yaml', 'utf8')) as { groups: { rules: Rule[] }[] }).groups.flatMap((group) => group.rules);
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^a-z0-9 -]/g, '')
    .replaceAll(' ', '-');
const operations = (): Promise<string> => readFile('docs/operations.md', 'utf8');

test('every alert uses metrics and labels that a real scrape has, and says what to do', async () => {
  const all = await rules();
  const faults = all.flatMap(({ alert, expr, annotations }) =>
    faultsOf(
      alert,
      expr,
      [...JSON.stringify(annotations).matchAll(/\$labels\.(\w+)/g)].map((match) => match[1] ?? ''),
    ),
  );
  expect(faults).toEqual([]);
  for (const { alert, labels, annotations } of all) {
    expect(alert).toMatch(/^Halligan[A-Z]/);
    expect(['page', 'ticket'], alert).toContain(labels['severity']);
    expect(annotations['summary']?.length, alert).toBeGreaterThan(20);
    expect(annotations['action']?.length, alert).toBeGreaterThan(20);
  }
  expect(all.length).toBe(new Set(all.map((rule) => rule.alert)).size);
});

test('every alert links to its own section of docs/operations.md, which says how loud it is, and every section has an alert', async () => {
  const text = await operations();
  const sections = new Map(
    (text.split(/^## Alerts$/m)[1]?.split(/^## /m)[0] ?? '')
      .split(/^### /m)
      .slice(1)
      .map((part) => [part.split('\n')[0] ?? '', part]),
  );
  const all = await rules();
  expect([...sections.keys()].toSorted()).toEqual(all.map((rule) => rule.alert).toSorted());
  for (const { alert, labels, annotations } of all) {
    expect(annotations['runbook_url']).toBe(`docs/operations.md#${anchorOf(alert)}`);
    expect(sections.get(alert)).toContain(`*${labels['severity']}.*`);
  }
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map((match) => anchorOf(match[1] ?? ''));
  for (const [, anchor = ''] of text.matchAll(/\]\(#([^)]+)\)/g)) expect(headings).toContain(anchor);
});

test('the dashboard shows what a real scrape has, in panels that do not lie on each other', async () => {
  const board = JSON.parse(await readFile('deploy/grafana/halligan.json', 'utf8')) as { title: string; uid: string; panels: Panel[] };
  expect(board).toMatchObject({ title: 'Halligan', uid: 'halligan' });
  const faults = board.panels.flatMap(({ title, targets }) =>
    targets.flatMap(({ expr, legendFormat }) =>
      faultsOf(
        title,
        expr,
        [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1] ?? ''),
      ),
    ),
  );
  expect(faults).toEqual([]);
  const cells = board.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
  const used = new Set(board.panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => metricsIn(expr).metrics)));
  const ours = [...seen.types.keys()].filter((name) => name.startsWith('halligan_'));
  expect(ours.filter((name) => ![...used].some((one) => one.replace(/_(bucket|sum|count)$/, '') === name))).toEqual([]);
});

test('the table of docs/operations.md has every metric with its labels, and no other', async () => {
  const rows = new Map(
    [...(await operations()).matchAll(/^\| `(halligan_\w+)` \| (.*?) ?\| (.+) \|$/gm)].map((match) => [
      match[1] ?? '',
      [...(match[2] ?? '').matchAll(/`(\w+)`/g)].map((label) => label[1]),
    ]),
  );
  const real = [...seen.types].filter(([name]) => name.startsWith('halligan_'));
  expect([...rows.keys()].toSorted()).toEqual(real.map(([name]) => name).toSorted());
  for (const [name, type] of real) {
    const labels = labelsOf.get(type === 'histogram' ? `${name}_count` : name);
    expect([...(labels ?? [])].toSorted(), name).toEqual(rows.get(name)?.toSorted());
  }
});

test('a wrong name, label or text would be found', () => {
  expect(faultsOf('a', 'max by (target) (halligan_revocations_gone)', [])).toEqual([
    'a: no scrape has halligan_revocations_gone',
    'a: halligan_revocations_gone have no label target',
  ]);
  expect(faultsOf('b', 'max by (channel) (halligan_revocations_due)', [])).toEqual(['b: halligan_revocations_due have no label channel']);
  expect(faultsOf('c', 'halligan_queue_jobs{line="x"} > 1', [])).toEqual(['c: halligan_queue_jobs have no label line']);
  expect(faultsOf('d', 'max by (target) (halligan_revocations_due)', ['person'])).toEqual(['d: person is shown and not there']);
});
