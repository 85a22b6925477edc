/** Lanes: bounded, in time, again later, and never in each other's way. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { DeliveryFault } from '../../src/notify/channel.ts';
import { pruneTold, take } from '../../src/notify/delivery-rows.ts';
import { type Lane, sendingLane } from '../../src/notify/send.ts';
import { spreadNotices } from '../../src/notify/spread.ts';
import { readStory } from '../../src/notify/story.ts';
import { until } from '../support/house.ts';
import { ask } from '../support/house-verbs.ts';
import { type ChannelDouble, channelDouble, startToldHouse, step, type ToldHouse } from './told-house.ts';

let told: ToldHouse;
beforeAll(async () => {
  told = await startToldHouse();
  await told.house.tokenOf('oncall');
});
afterAll(() => told?.close());
beforeEach(async () => {
  told.routes.clear();
  for (const channel of [told.slack, told.email, told.webhook]) channel.fault = undefined;
  // What an earlier test left waiting is not of interest, and every place works before the next one begins.
  await told.query(`UPDATE delivery SET state = 'dropped', next_try_at = NULL WHERE state = 'waiting'`);
  routes({ slack: ['C0ORDERS'], email: ['team@example.com'], webhooks: ['pager', 'a', 'b'] });
  await ask(told.house);
  await told.tell();
  told.routes.clear();
  told.house.logged.length = 0;
});

const routes = (...steps: Parameters<typeof step>[0][]) => told.routes.set('orders-readonly', steps.map(step));
const again = (request: string) => told.query(`UPDATE delivery SET next_try_at = now() WHERE request_id = $1 AND state = 'waiting'`, request);
interface Row {
  readonly state: string;
  readonly tries: number;
  readonly wait: number | null;
  readonly last_error: string | null;
}
const rowsOf = (request: string, channel: string) =>
  told.query<Row>(
    `SELECT state, tries, extract(epoch FROM next_try_at - now())::float AS wait, last_error FROM delivery WHERE request_id = $1 AND channel = $2 ORDER BY id`,
    request,
    channel,
  );
const rowOf = async (request: string, channel: string): Promise<Row> => (await rowsOf(request, channel))[0]!;
const codes = (): string[] => told.house.logged.flatMap((line) => (/"code":"(notify_\w+)"/.exec(line)?.[1] ? [/"code":"(notify_\w+)"/.exec(line)![1]!] : []));
/** A lane with a short deadline, of a channel of its own. */
function laneOf(channel: ChannelDouble, deadlineMs: number): Lane {
  const { ctx } = told.house.running;
  return sendingLane({
    db: ctx.db,
    log: ctx.log,
    channel,
    deadlineMs,
    storyOf: (id) => readStory(ctx.db, ctx.policy.entitlements, new URL(told.house.url), id),
  });
}
/** Asks and spreads without sending. */
async function spread(): Promise<string> {
  const { id } = await ask(told.house);
  const { db, log } = told.house.running.ctx;
  while ((await spreadNotices({ db, log, routes: told.routes, workspace: 'T0TEST', mail: true })) > 0);
  return id;
}

describe('a channel that hangs', () => {
  test('delays no other channel; each message ends by the deadline and waits for its next try', async () => {
    routes({ slack: ['C0ORDERS'], email: ['team@example.com'], webhooks: ['pager'] });
    const [slow, quick] = [channelDouble('email'), channelDouble('slack')];
    // It does not even listen to the signal.
    slow.fault = () => new Promise(() => undefined);
    const id = await spread();
    const [hanging, working] = [laneOf(slow, 400), laneOf(quick, 400)];
    const began = performance.now();
    hanging.pump();
    working.pump();
    await until('Slack was told', () => quick.sent.length === 1, 300);
    expect(performance.now() - began).toBeLessThan(300);
    await until('the mail was given up for now', async () => (await rowOf(id, 'email')).last_error === 'did not answer in time');
    expect(await rowOf(id, 'email')).toMatchObject({ state: 'waiting', tries: 1 });
    expect(hanging.trouble()).toBe('email: did not answer in time');
    expect(working.trouble()).toBeNull();
    await Promise.all([hanging.stop(), working.stop()]);
  });

  test('one webhook that hangs leaves room for the others: at most two of its calls are on their way', async () => {
    routes({ webhooks: ['hangs', 'works'] });
    const channel = channelDouble('webhook', { all: 4, each: 2 });
    let hung = 0;
    channel.fault = ({ address }) => {
      if (address !== 'hangs') return;
      hung++;
      return new Promise(() => undefined);
    };
    for (let n = 0; n < 6; n++) await spread();
    const lane = laneOf(channel, 1_500);
    lane.pump();
    await until('the working one has all', () => channel.sent.length === 6, 1_200);
    expect(hung).toBe(2);
    await lane.stop();
  });

  test('stopping waits for what is on its way, for two seconds; what did not end is sent by the next start', async () => {
    routes({ email: ['team@example.com'] });
    const channel = channelDouble('email');
    channel.fault = () => new Promise(() => undefined);
    const id = await spread();
    const lane = laneOf(channel, 60_000);
    lane.pump();
    await until('it is on its way', () => channel.most === 1);
    const began = performance.now();
    await lane.stop();
    expect(performance.now() - began).toBeLessThan(4_000);
    expect(await rowOf(id, 'email')).toMatchObject({ state: 'waiting', last_error: 'Halligan was stopped while it was sent' });
    lane.pump();
    expect(channel.most).toBe(1);
  });
});

describe('again later', () => {
  test('mail waits longer each time, at most a quarter of an hour, and ends after a day with its reason', async () => {
    routes({ email: ['team@example.com'] });
    told.email.fault = () => {
      throw new DeliveryFault('the mail server answered 451');
    };
    const { id } = await ask(told.house);
    await told.tell();
    const first = await rowOf(id, 'email');
    expect(first).toMatchObject({ state: 'waiting', tries: 1, last_error: 'the mail server answered 451' });
    expect(first.wait).toBeGreaterThan(0.5);
    expect(first.wait).toBeLessThan(2.6);
    await told.query('UPDATE delivery SET tries = 30, next_try_at = now() WHERE request_id = $1', id);
    await told.tell();
    const late = (await rowOf(id, 'email')).wait ?? 0;
    expect(late).toBeGreaterThan(600);
    expect(late).toBeLessThan(1_130);
    await told.query(`UPDATE delivery SET created_at = now() - interval '24 hours 1 minute', next_try_at = now() WHERE request_id = $1`, id);
    await told.tell();
    expect(await rowOf(id, 'email')).toMatchObject({ state: 'failed', wait: null, last_error: 'the mail server answered 451' });
    expect(codes()).toContain('notify_given_up');
  });

  test('webhooks keep the schedule of Standard Webhooks, ten tries in all; asking for a wait gives nobody more tries', async () => {
    routes({ webhooks: ['pager'] });
    const waits = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
    for (const asks of [false, true]) {
      told.webhook.fault = () => {
        throw new DeliveryFault('answered 503', asks ? { retryAt: new Date(Date.now() + 1_000) } : {});
      };
      const { id } = await ask(told.house);
      await told.tell();
      for (const planned of waits) {
        const { wait, state } = await rowOf(id, 'webhook');
        expect(state).toBe('waiting');
        expect(wait).toBeGreaterThan(planned - 2);
        expect(wait).toBeLessThan(planned * 1.1 + 1);
        await again(id);
        await told.tell();
      }
      expect(await rowOf(id, 'webhook')).toMatchObject({ state: 'failed', tries: 10 });
    }
  });

  test('a final fault is not tried again, and says nothing about the channel', async () => {
    routes({ slack: ['C0GONE', 'C0GOOD'] });
    told.slack.fault = ({ address }) => {
      if (address === 'C0GONE') throw new DeliveryFault('the channel was archived', { final: true });
    };
    const { id } = await ask(told.house);
    await told.tell();
    expect((await rowsOf(id, 'slack')).map((row) => row.state).sort()).toEqual(['failed', 'sent']);
    expect(codes()).toEqual(['notify_given_up']);
  });

  test('asked to slow down, the whole channel waits; nothing is lost, and it is no trouble', async () => {
    routes({ slack: ['C0ORDERS'] });
    let limited = 0;
    const after = Date.now() + 1_500;
    told.slack.fault = () => {
      if (Date.now() >= after) return;
      limited++;
      throw new DeliveryFault('rate limited', { retryAt: new Date(after), pause: true });
    };
    const ids = [(await ask(told.house)).id, (await ask(told.house)).id, (await ask(told.house)).id];
    await until('all came', async () => {
      await told.tell();
      return ids.every((id) => told.slack.sent.some((message) => message.request === id));
    });
    // Those that were on their way when it began, and no more.
    expect(limited).toBeLessThanOrEqual(4);
    expect(codes()).toEqual([]);
  });

  test('one line when a channel begins to fail and one when it works again, however many messages', async () => {
    routes({ email: ['team@example.com', 'other@example.com'], webhooks: ['a', 'b'] });
    told.email.fault = () => {
      throw new DeliveryFault('could not be reached');
    };
    told.webhook.fault = ({ address }) => {
      if (address === 'a') throw new DeliveryFault('answered 500');
    };
    const ids = [(await ask(told.house)).id, (await ask(told.house)).id];
    await told.tell();
    for (const id of ids) await again(id);
    await told.tell();
    expect(codes()).toEqual(['notify_failing', 'notify_failing']);
    told.email.fault = undefined;
    told.webhook.fault = undefined;
    for (const id of ids) await again(id);
    await told.tell();
    expect(codes()).toEqual(['notify_failing', 'notify_failing', 'notify_mended', 'notify_mended']);
  });
});

test('at least once: what a process took and did not finish is taken by another when its time is over, with the same id', async () => {
  routes({ webhooks: ['pager'] });
  const id = await spread();
  const { db } = told.house.running.ctx;
  const [lost] = await take(db, 'webhook', { room: 4, each: 2, forMs: 500 });
  expect(lost?.requestId).toBe(id);
  expect(await take(db, 'webhook', { room: 4, each: 2, forMs: 500 })).toEqual([]);
  await until('it is sent again', async () => {
    await told.tell();
    return told.webhook.sent.some((message) => message.id === lost?.id);
  });
  expect(await rowOf(id, 'webhook')).toMatchObject({ state: 'sent', tries: 2 });
});

test('what waits for a channel that the config no longer has is said to have failed', async () => {
  routes({ email: ['team@example.com'] });
  told.email.fault = () => {
    throw new DeliveryFault('away');
  };
  const { id } = await ask(told.house);
  await told.tell();
  await told.another({ channels: [told.slack] }).run();
  expect(await rowOf(id, 'email')).toMatchObject({ state: 'failed', last_error: 'this way of telling is no longer in the config' });
});

test('what was told is deleted after thirty days without news, and nothing before', async () => {
  routes({ webhooks: ['pager'] }, { afterSeconds: 600, webhooks: ['other'] });
  const [old, waiting, young] = [(await ask(told.house)).id, (await ask(told.house)).id, (await ask(told.house)).id];
  await told.tell();
  for (const id of [old, waiting]) {
    await told.query(`UPDATE notice SET created_at = now() - interval '31 days', due_at = now() - interval '31 days' WHERE request_id = $1`, id);
    await told.query(`UPDATE delivery SET created_at = now() - interval '31 days', sent_at = now() - interval '31 days' WHERE request_id = $1`, id);
  }
  // A step that still has its time to come keeps all of it.
  await told.query(`UPDATE notice SET due_at = now() + interval '1 hour' WHERE request_id = $1 AND step = 1`, waiting);
  await told.query('UPDATE notice SET spread_at = now() WHERE request_id = $1', old);
  // The duty `prune` calls this.
  expect(await pruneTold(told.house.running.ctx.db)).toBe(1);
  const left = async (id: string) =>
    (await told.query(`SELECT FROM notice WHERE request_id = $1 UNION ALL SELECT FROM delivery WHERE request_id = $1`, id)).length;
  expect(await left(old)).toBe(0);
  expect(await left(waiting)).toBe(3);
  expect(await left(young)).toBe(3);
  expect(await told.query('SELECT FROM audit_event WHERE request_id = $1', old)).not.toEqual([]);
});
