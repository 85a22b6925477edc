import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Duty, startDuty } from '../../src/workers/duty.ts';

const lines: { level: number; code: string; why?: string; failures?: number }[] = [];
const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line) as (typeof lines)[number]) });
const open: Duty[] = [];
const duty = (everyMs: number, work: () => Promise<void>): Duty => {
  const started = startDuty(log, 'sweep', everyMs, work);
  open.push(started);
  return started;
};
const until = (what: () => boolean): Promise<void> => expect.poll(what, { timeout: 5_000, interval: 2 }).toBe(true);

beforeEach(() => {
  lines.length = 0;
});
afterEach(async () => {
  for (const one of open.splice(0)) await one.stop();
});

test('it is done at once, then again and again, and says when it last ended well', async () => {
  let runs = 0;
  const before = Date.now();
  const one = duty(20, async () => void runs++);
  expect(one.lastOk()).toBeUndefined();
  await until(() => runs >= 3);
  expect(one.lastOk()?.getTime()).toBeGreaterThanOrEqual(before);
});

test('it is never done twice at once; nudges while it runs become one more run', async () => {
  let [runs, now, most] = [0, 0, 0];
  const one = duty(60_000, async () => {
    runs++;
    most = Math.max(most, ++now);
    await sleep(50);
    now--;
  });
  await until(() => runs === 1);
  for (let n = 0; n < 10; n++) one.nudge();
  await until(() => runs === 2);
  await sleep(120);
  expect({ runs, most }).toEqual({ runs: 2, most: 1 });
  one.nudge();
  await until(() => runs === 3);
});

test('a nudge moves the next run forward and does not add a second rhythm', async () => {
  let runs = 0;
  const one = duty(300, async () => void runs++);
  await until(() => runs === 1);
  for (let n = 0; n < 5; n++) {
    one.nudge();
    await sleep(5);
  }
  expect(runs).toBeGreaterThanOrEqual(6);
  const before = runs;
  await sleep(450);
  // One more by the one rhythm; were there a rhythm for each nudge, it would be six.
  expect(runs - before).toBeLessThanOrEqual(2);
});

test('a failure is logged with its reason, does not end it, and its mending is logged too', async () => {
  let runs = 0;
  const one = duty(5, async () => {
    if (++runs <= 3) throw new Error('the database is away');
  });
  await until(() => one.lastOk() !== undefined);
  expect(lines.map(({ code, why, failures }) => ({ code, why, failures }))).toEqual([
    { code: 'duty_failed', why: 'the database is away', failures: 1 },
    { code: 'duty_mended', why: undefined, failures: 3 },
  ]);
});

test('a failure that lasts is logged at first and at every thirtieth, and a nudge during it does not make it spin', async () => {
  let runs = 0;
  const failing = duty(1, async () => {
    runs++;
    throw new Error('no');
  });
  await until(() => runs > 61);
  await failing.stop();
  expect(lines.map((line) => line.failures)).toEqual([1, 30, 60]);
  let spun = 0;
  const nudged = duty(60_000, async () => {
    spun++;
    nudged.nudge();
    await sleep(1);
    throw new Error('no');
  });
  await sleep(60);
  expect(spun).toBe(1);
});

test('what throws before its first await, or throws no error at all, is a failure like any other', async () => {
  // Story: the throw would have gone to the timer or to the caller of nudge, and ended the process.
  let runs = 0;
  duty(5, () => {
    runs++;
    if (runs === 1) throw new Error('at once');
    return Promise.reject(undefined);
  });
  await until(() => runs >= 3);
  expect(lines[0]).toMatchObject({ code: 'duty_failed', why: 'at once' });
});

test('a stop waits for the run under way, and none follows, nudged or not', async () => {
  let [runs, ended] = [0, false];
  const one = duty(1, async () => {
    runs++;
    await sleep(60);
    ended = true;
  });
  await until(() => runs === 1);
  one.nudge();
  await one.stop();
  expect(ended).toBe(true);
  one.nudge();
  await sleep(80);
  expect(runs).toBe(1);
});
