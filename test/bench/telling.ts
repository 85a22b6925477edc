/** Slack, against the relay's own period and against the API: how soon a message is there, whether a burst is told whole, what deciding there costs. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type House, startHouse } from '../../src/demo/house.ts';
import type { SlackDouble } from '../../src/demo/slack-double.ts';
import type { SlackMessage } from '../../src/demo/slack-double-api.ts';
import { call, type Figure, figure, median, ms, quantile, timed, tokensOf } from './support.ts';

const rounds = 5;
const perRound = 60;
const burst = 500;
/** The period of the relay and of the notifier, where no commit wakes them. */
const periodMs = 1_000;
const lead = 'U0LEAD';
/** Slack takes about one message a second in a channel, so each of a dozen entitlements tells its own. */
const lots = Array.from({ length: 12 }, (_, index) => ({ name: `told-${index}`, channel: `C0TOLD${index}` }));
const entitlements = lots
  .map(
    ({ name, channel }) => `
  ${name}:
    opens: read the orders database
    target: orders-db
    grant: { role: orders_ro }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h
    slackDecision: allow
    notify: [ { slack: [${channel}] } ]`,
  )
  .join('');

interface Request {
  readonly id: string;
  readonly seen: string;
  readonly createdAt: string;
}

/** A Halligan with a double of Slack, both in this process, and the people who use them. */
export async function telling(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-bench-'));
  const more = async () => ({ target: '', entitlement: `${entitlements.trimStart().replace(/^/, '  ')}\n` });
  const house = await startHouse({ dataDirectory: folder, log: () => undefined, port: 0, providerPort: 0, slack: true, more });
  try {
    const double = house.slack as SlackDouble;
    for (const { name, channel } of lots) double.channels.set(channel, { id: channel, name });
    house.running.ctx.policy = { ...house.running.ctx.policy, maxPendingPerPerson: 100_000 };
    const oncall = await tokensOf(house.url, 'oncall', 12);
    let next = 0;
    const ask = async (): Promise<{ request: Request; channel: string }> => {
      const lot = lots[next++ % lots.length] as (typeof lots)[number];
      const body = { entitlements: [lot.name], duration: '10m', reason: 'measuring' };
      return { request: await call<Request>(house.url, oncall(), 'POST', '/requests', body), channel: lot.channel };
    };
    return [await soon(double, ask), await deciding(house, double, ask), await wholeBurst(double, ask)];
  } finally {
    await house.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

type Ask = () => Promise<{ request: Request; channel: string }>;

async function cardOf(double: SlackDouble, id: string, channel: string): Promise<SlackMessage> {
  for (const until = Date.now() + 30_000; ; await sleep(1)) {
    const card = double.messagesIn(channel).findLast((message) => message.threadTs === undefined && JSON.stringify(message.blocks).includes(id));
    if (card) return card;
    if (Date.now() > until) throw new Error(`no card of ${id} came`);
  }
}

/** From PostgreSQL's time of the request, which is the begin of its transaction, to the arrival at the double: one machine, one clock. */
async function soon(double: SlackDouble, ask: Ask): Promise<Figure> {
  const p99: number[] = [];
  let p50 = 0;
  for (let round = 0; round <= rounds; round++) {
    const took: number[] = [];
    for (let i = 0; i < perRound; i++) {
      const { request, channel } = await ask();
      const { ts } = await cardOf(double, request.id, channel);
      took.push(Number(ts) * 1_000 - Date.parse(request.createdAt));
      // A dozen channels at one message a second.
      await sleep(95);
    }
    // The first round warms up.
    if (round === 0) continue;
    p50 = median(took);
    p99.push(quantile(took, 0.99) / periodMs);
  }
  return figure(
    "request committed → message at Slack's double, p99 ÷ the relay's period",
    p99,
    { most: 1 },
    `p50 ${ms(p50)}, p99 ${ms(median(p99) * periodMs)} of ${periodMs} ms`,
  );
}

/** Sending the dialog against sending the same decision to the API; opening the dialog is not counted, as reading the request is not. */
async function deciding(house: House, double: SlackDouble, ask: Ask): Promise<Figure> {
  const tokens = await tokensOf(house.url, 'lead', 6);
  const ratios: number[] = [];
  let last = '';
  for (let round = 0; round <= rounds; round++) {
    const [slack, api]: [number[], number[]] = [[], []];
    for (let i = 0; i < perRound / 2; i++) {
      const [one, other] = [await ask(), await ask()];
      const card = await cardOf(double, one.request.id, one.channel);
      const before = double.dialogs.get(lead)?.id;
      await double.press(lead, card, 'deny');
      while (double.dialogs.get(lead) === undefined || double.dialogs.get(lead)?.id === before) await sleep(1);
      slack.push(
        await timed(async () => {
          const { status, text } = await double.submit(lead, { reason: 'measuring' });
          if (status !== 200 || !text.includes('Denied')) throw new Error(`not denied: ${status} ${text}`);
        }),
      );
      const body = { decision: 'deny', reason: 'measuring', seen: other.request.seen };
      api.push(await timed(() => call(house.url, tokens(), 'POST', `/requests/${other.request.id}/decisions`, body)));
      await sleep(150);
    }
    if (round === 0) continue;
    ratios.push(median(slack) / median(api));
    last = `${ms(median(slack))} against ${ms(median(api))}`;
  }
  return figure('deciding through Slack ÷ deciding through the API, p50', ratios, { most: 1.5 }, last);
}

/** Five hundred requests at once: every one is told, and Slack is not asked for more than it takes. */
async function wholeBurst(double: SlackDouble, ask: Ask): Promise<Figure> {
  const [calls, began] = [double.calls.length, performance.now()];
  const asked: { request: Request; channel: string }[] = [];
  for (let i = 0; i < burst / 10; i++) asked.push(...(await Promise.all(Array.from({ length: 10 }, ask))));
  const told = () => {
    const there = new Set(
      asked.flatMap(({ request: { id }, channel }) => (double.messagesIn(channel).some((message) => JSON.stringify(message.blocks).includes(id)) ? id : [])),
    );
    return there.size;
  };
  for (const until = Date.now() + 180_000; told() < burst && Date.now() < until; ) await sleep(1_000);
  const took = (performance.now() - began) / 1_000;
  const slowed = double.calls.slice(calls).filter((one) => one.error === 'ratelimited').length;
  const perChannel = burst / lots.length;
  return figure(
    `told ÷ asked, a burst of ${burst} requests over ${lots.length} channels`,
    [told() / burst],
    { least: 1 },
    `${took.toFixed(0)} s where a message a second and channel takes ${perChannel.toFixed(0)} s; ${slowed} calls were told to slow down`,
  );
}
