/** Invariants 22 and 23: a credential is in the one answer to its owner and nowhere else, and each is shown once. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { type Browserless, loginAs } from '../support/browserless-login.ts';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { type House, startTestHouse, until } from '../support/house.ts';
import { ask, type ClaimedAnswer, claim, claimed, granted, loginAnswer } from '../support/house-verbs.ts';
import { apiTable } from '../support/routes.ts';

let house: House;
let child: ChildServer | undefined;
beforeAll(async () => {
  house = await startTestHouse({ server: 'none', logLevel: 'debug' });
  child = await startChild(house);
});
afterAll(async () => {
  await child?.stop();
  await house?.close();
});

/** The ways in which a secret could have been written down. */
function spellings(secret: string): Record<string, string> {
  const bytes = Buffer.from(secret);
  return {
    plain: secret,
    base64: bytes.toString('base64').replace(/=+$/, ''),
    base64url: bytes.toString('base64url'),
    hex: bytes.toString('hex'),
    url: encodeURIComponent(secret),
    json: JSON.stringify(secret).slice(1, -1),
    html: secret.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;'),
    reversed: [...secret].reverse().join(''),
  };
}

/** Every row of every table of Halligan's database and of the target, as text; bytea comes as hex. */
async function everyRow(): Promise<string> {
  const texts: string[] = [];
  for (const pool of [house.database.superuser, house.target.superuser]) {
    const { rows: tables } = await pool.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('information_schema', 'pg_catalog')
       UNION ALL SELECT unnest(ARRAY['pg_catalog.pg_authid', 'pg_catalog.pg_shdescription', 'pg_catalog.pg_stat_activity', 'pg_catalog.pg_prepared_statements'])`,
    );
    for (const { name } of tables) {
      const { rows } = await pool.query<{ text: string }>(`SELECT t::text AS text FROM ${name} t`);
      texts.push(`${name}\n${rows.map((row) => row.text).join('\n')}`);
    }
  }
  return texts.join('\n');
}

async function everyFile(folder: string): Promise<string> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return (await Promise.all(files.map((file) => readFile(file, 'utf8')))).join('\n');
}

const secretIn = (page: string): string => /data-secret>([^<]+)</.exec(page)?.[1] ?? '';

/** Everything that anybody can read after the claims. */
async function everyAnswer(browsers: readonly Browserless[], ids: Record<string, string>): Promise<string> {
  const texts: string[] = [];
  const pages = [
    '/',
    '/ask',
    '/decide',
    '/active',
    '/reviews',
    '/audit',
    '/entitlements',
    '/logins',
    `/requests/${ids['/requests/:id']}`,
    '/no-such-page',
    '/readyz',
    '/openapi.json',
  ];
  const api = apiTable.filter((route) => route.method === 'get').map((route) => `/api/v1${route.path.replace(/:\w+/, ids[route.path] ?? '0')}`);
  for (const browser of browsers)
    for (const address of [...pages, ...api, '/api/v1/audit/export?format=csv']) texts.push(await (await browser.fetch(address)).text());
  return texts.join('\n');
}

test('invariant 22: a canary claimed by API and by web is found nowhere but in the one answer', async () => {
  const { request, grant } = await granted(house);
  const byApi = await claimed(house, grant);
  const browser = await loginAs(house.url, 'oncall');
  const page = await browser.submit(`/grants/${grant}/claim`, { entitlement: 'orders-readonly', request });
  expect(page.status).toBe(200);
  expect(page.headers.get('cache-control')).toBe('no-store');
  const byWeb = secretIn(await page.text());
  expect(byWeb.length).toBeGreaterThan(20);
  expect(byWeb).not.toBe(byApi.secret.password);

  // A claim that fails after the login was made, in every way that writes words about it.
  await house.target.superuser.query(`ALTER ROLE ${house.target.adminRole} NOCREATEROLE`);
  expect((await claim(house, grant)).body.code).toBe('target_forbids');
  await house.target.superuser.query(`ALTER ROLE ${house.target.adminRole} CREATEROLE`);
  const third = await claimed(house, grant);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await until(
    'the grant has ended',
    async () => (await house.database.superuser.query(`SELECT FROM access_grant WHERE id = $1 AND state = 'ended'`, [grant])).rowCount === 1,
    20_000,
  );
  await until('everything is sealed', async () => (await house.database.superuser.query('SELECT FROM audit_pending')).rowCount === 0);

  const ids = {
    '/requests/:id': request,
    '/requests/:id/deliveries': request,
    '/grants/:id': grant,
    '/grants/:id/evidence': grant,
    '/audit/proof/:index': '0',
  };
  const browsers = [browser, await loginAs(house.url, 'lead'), await loginAs(house.url, 'auditor'), await loginAs(house.url, 'admin')];
  const places: Record<string, string> = {
    'what anybody can read': await everyAnswer(browsers, ids),
    'both databases': await everyRow(),
    'the log and the output of the server': child!.output(),
    'the files of the server': await everyFile(house.folder),
    'the log of PostgreSQL': await readFile(inject('server').logFile, 'utf8'),
  };
  expect(places['both databases']).toContain(byApi.handle);
  expect(places['what anybody can read']).toContain(byApi.handle);
  expect(places['the log of PostgreSQL']).toContain(byApi.handle);
  const secrets = {
    'claimed by API': byApi.secret.password,
    'claimed by web': byWeb,
    'claimed last': third.secret.password,
    token: await house.tokenOf('oncall'),
  };
  const found: string[] = [];
  for (const [what, secret] of Object.entries(secrets))
    for (const [how, spelling] of Object.entries(spellings(secret)))
      for (const [where, text] of Object.entries(places))
        if (text.includes(spelling) || (how === 'hex' && text.toLowerCase().includes(spelling))) found.push(`${what}: ${how} in ${where}`);
  expect(found).toEqual([]);
  // The search itself must be able to find: the client's secret does rest in its file.
  expect(places['the files of the server']).toContain('the test client has this secret');
  expect(places['the log and the output of the server']).not.toContain('the test client has this secret');
}, 60_000);

test('invariant 23: only the holder claims; another, an approver and an admin are told that there is nothing', async () => {
  const { grant } = await granted(house);
  for (const person of ['oncall-2', 'lead', 'auditor', 'admin', 'stranger']) {
    const answer = await claim(house, grant, person);
    expect([person, answer.status, answer.body.code]).toEqual([person, 404, 'not_found']);
  }
});

test('invariant 23: a second claim replaces the first, whose login ends; what was shown is shown by no other answer', async () => {
  const { request, grant } = await granted(house);
  const first = await claimed(house, grant);
  expect(await loginAnswer(first)).toBe('let in');
  const second = await claimed(house, grant);
  expect(second.handle).not.toBe(first.handle);
  expect(await loginAnswer(second)).toBe('let in');
  await until('the first is refused', async () => (await loginAnswer(first)) === '28P01');
  const { rows } = await house.database.superuser.query<{ state: string; end_reason: string | null }>(
    'SELECT state, end_reason FROM lease WHERE grant_id = $1 ORDER BY id',
    [grant],
  );
  expect(rows.map((row) => row.end_reason)).toEqual(['replaced', null]);
  expect(rows.at(-1)?.state).toBe('live');
  const shown = await (await (await loginAs(house.url, 'oncall')).fetch(`/requests/${request}`)).text();
  expect(shown).not.toContain('data-secret');
});

test('invariant 23: an answer that was lost on its way: claiming again gives another login and ends the lost one', async () => {
  const { grant } = await granted(house);
  const gone = new AbortController();
  const lost = fetch(`${house.url}/api/v1/grants/${grant}/leases`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await house.tokenOf('oncall')}`, 'content-type': 'application/json' },
    body: JSON.stringify({ entitlement: 'orders-readonly' }),
    signal: gone.signal,
  }).catch(() => undefined);
  await until('the claim has begun', async () => (await house.database.superuser.query('SELECT FROM lease WHERE grant_id = $1', [grant])).rowCount === 1);
  gone.abort();
  await lost;
  const again = await until('claiming again works', async () => {
    const answer = await claim(house, grant);
    return answer.status === 201 && (answer.body as ClaimedAnswer);
  });
  expect(await loginAnswer(again)).toBe('let in');
  await until(
    'one login is left',
    async () =>
      (await house.database.superuser.query(`SELECT FROM lease WHERE grant_id = $1 AND id <> $2 AND state NOT IN ('revoked', 'void')`, [grant, again.lease]))
        .rowCount === 0,
    15_000,
  );
}, 30_000);

test('invariant 23: two claims at once: each answer that shows a secret is of another login, and at most one lives', async () => {
  const { grant } = await granted(house);
  const answers = await Promise.all(Array.from({ length: 6 }, () => claim(house, grant)));
  const shown = answers.filter((answer) => answer.status === 201).map((answer) => answer.body as ClaimedAnswer);
  expect(shown.length).toBeGreaterThan(0);
  expect(new Set(shown.map((one) => one.handle)).size).toBe(shown.length);
  for (const answer of answers.filter((one) => one.status !== 201)) expect(['lease_conflict', 'conflict']).toContain(answer.body.code);
  await until(
    'at most one lets in',
    async () => {
      const lets = await Promise.all(shown.map((one) => loginAnswer(one)));
      return lets.filter((answer) => answer === 'let in').length <= 1;
    },
    15_000,
  );
  await ask(house);
}, 30_000);
