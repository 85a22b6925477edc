/**
 * What every adapter of the queue port must do, run against a real one. The bounds of time are wide, because test machines
 * are busy; what must not happen (too early, twice, after the stop) is exact.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { type Handler, type Job, jobId, type LaneLimits, type Queue } from '../../src/queue/port.ts';

export interface QueueParts {
  readonly lanes: (lane: string) => LaneLimits;
  readonly onFailure: (job: Job, error: unknown) => void;
}

/** Makes an empty queue, not started; `close` ends what the adapter holds beside it. */
export type QueueFactory = (parts: QueueParts) => Promise<{ queue: Queue; close(): Promise<void> }>;

const promptMs = 3_000;

export function queueConformance(name: string, make: QueueFactory): void {
  describe(`${name} keeps the queue's contract`, () => {
    const open: (() => Promise<void>)[] = [];
    afterEach(async () => {
      for (const close of open.splice(0)) await close();
    });

    /** A queue under test, with a record of what ran and what failed. */
    async function begin(limits: Partial<LaneLimits> = {}) {
      const failures: { id: string; why: string }[] = [];
      const { queue, close } = await make({
        lanes: () => ({ concurrency: 2, deadlineMs: 10_000, ...limits }),
        onFailure: (job, error) => failures.push({ id: job.id, why: String(error) }),
      });
      open.push(async () => {
        await queue.stop(0);
        await close();
      });
      const ran: { job: Job; at: number }[] = [];
      const start = (work: Handler = async () => undefined): void =>
        queue.start(async (job, signal) => {
          ran.push({ job, at: Date.now() });
          await work(job, signal);
        });
      return { queue, failures, ran, start };
    }

    const job = (subject: string, more: Partial<Job> = {}): Job => {
      const { epoch = 0, kind = 'grant-due' } = more;
      return { id: jobId(kind, subject, epoch), kind, lane: 'expiry', dueAt: new Date(0), subject, epoch, ...more };
    };
    const until = (what: () => boolean, ms = promptMs): Promise<void> => expect.poll(what, { timeout: ms, interval: 5 }).toBe(true);
    const gate = () => Promise.withResolvers<void>();

    test('a job runs when it is due: never before, and promptly; one that is overdue runs at once', async () => {
      const { queue, ran, start } = await begin();
      start();
      const dueAt = new Date(Date.now() + 400);
      await queue.add(job('later', { dueAt }));
      await queue.add(job('now'));
      await until(() => ran.length === 1);
      expect(ran[0]?.job.subject).toBe('now');
      await until(() => ran.length === 2);
      expect(ran[1]?.at).toBeGreaterThanOrEqual(dueAt.getTime());
      expect(ran[1]?.at).toBeLessThan(dueAt.getTime() + promptMs);
    });

    test('the handler gets the job as it was put in', async () => {
      const { queue, ran, start } = await begin();
      const given = job('whole', { kind: 'revoke-lease', lane: 'target:orders', dueAt: new Date(Date.now() - 1_234), epoch: 7 });
      await queue.add(given);
      start();
      await until(() => ran.length === 1);
      expect(ran[0]?.job).toEqual(given);
    });

    test('what was put in before the start waits for it', async () => {
      const { queue, ran, start } = await begin();
      await queue.add(job('a'));
      await sleep(100);
      expect(ran).toEqual([]);
      expect(queue.depth()).toMatchObject({ waiting: 1, running: 0 });
      start();
      await until(() => ran.length === 1);
    });

    test('a job with the id of one that waits or runs is dropped; after it ended the same id runs again', async () => {
      const { queue, ran, start } = await begin();
      const door = gate();
      await queue.add(job('a', { dueAt: new Date(Date.now() + 200) }));
      await queue.add(job('a'));
      await queue.add(job('a', { dueAt: new Date(Date.now() + 200) }));
      start(() => door.promise);
      await until(() => ran.length === 1);
      await queue.add(job('a'));
      await sleep(300);
      expect(ran).toHaveLength(1);
      await queue.add(job('a', { epoch: 1 }));
      await until(() => ran.length === 2);
      door.resolve();
      await until(() => queue.depth().running === 0);
      await queue.add(job('a'));
      await until(() => ran.length === 3);
      expect(ran.map((one) => one.job.epoch)).toEqual([0, 1, 0]);
    });

    test('a lane runs no more at once than its concurrency, and in time all', async () => {
      const { queue, ran, start } = await begin({ concurrency: 3 });
      let now = 0;
      let most = 0;
      start(async () => {
        most = Math.max(most, ++now);
        await sleep(5);
        now--;
      });
      for (let n = 0; n < 20; n++) await queue.add(job(`j${n}`));
      await until(() => ran.length === 20 && now === 0);
      expect(most).toBe(3);
    });

    test('invariant 26: a lane that hangs delays no other', async () => {
      const { queue, ran, start } = await begin({ concurrency: 1 });
      const door = gate();
      start((one) => (one.lane === 'target:hung' ? door.promise : Promise.resolve()));
      for (let n = 0; n < 5; n++) await queue.add(job(`h${n}`, { lane: 'target:hung' }));
      for (let n = 0; n < 5; n++) await queue.add(job(`w${n}`, { lane: 'target:well' }));
      await until(() => ran.filter((one) => one.job.lane === 'target:well').length === 5);
      expect(ran.filter((one) => one.job.lane === 'target:hung')).toHaveLength(1);
      door.resolve();
      await until(() => ran.length === 10);
    });

    test('at its deadline the signal is aborted, and a job that heeds it counts as failed', async () => {
      const { queue, failures, start } = await begin({ deadlineMs: 150 });
      const began = Date.now();
      start((_, signal) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))));
      await queue.add(job('slow'));
      await until(() => failures.length === 1);
      expect(Date.now() - began).toBeGreaterThanOrEqual(145);
      expect(failures[0]?.why).toMatch(/no end within 150 ms/);
      expect(queue.depth()).toEqual({ waiting: 0, running: 0, failed: 1 });
    });

    test('a job that ignores its signal loses its place, and the next one runs', async () => {
      const { queue, failures, ran, start } = await begin({ deadlineMs: 50, concurrency: 1 });
      const door = gate();
      start((one) => (one.subject === 'deaf' ? door.promise : Promise.resolve()));
      await queue.add(job('deaf'));
      await queue.add(job('next'));
      await until(() => ran.length === 2, 8_000);
      expect(failures.map((failure) => failure.id)).toEqual(['grant-due-deaf-0']);
      // Its late end changes nothing any more.
      door.resolve();
      await sleep(20);
      expect(queue.depth()).toEqual({ waiting: 0, running: 0, failed: 1 });
    });

    test('a failure is reported once with its error, is not run again by the queue, and stops nothing', async () => {
      const { queue, failures, ran, start } = await begin({ concurrency: 1 });
      start((one) => {
        if (one.subject === 'bad') throw new Error('at once');
        return one.subject === 'worse' ? Promise.reject(new Error('later')) : Promise.resolve();
      });
      for (const subject of ['bad', 'worse', 'good']) await queue.add(job(subject));
      await until(() => ran.length === 3);
      await sleep(200);
      expect(ran).toHaveLength(3);
      expect(failures).toEqual([
        { id: 'grant-due-bad-0', why: 'Error: at once' },
        { id: 'grant-due-worse-0', why: 'Error: later' },
      ]);
      expect(queue.depth()).toEqual({ waiting: 0, running: 0, failed: 2 });
      await queue.add(job('bad'));
      await until(() => ran.length === 4);
    });

    test('a stop waits for what runs, begins nothing more and takes nothing more', async () => {
      const { queue, ran, start } = await begin({ concurrency: 1 });
      let ended = false;
      start(async () => {
        await sleep(1_500);
        ended = true;
      });
      await queue.add(job('a'));
      await queue.add(job('b'));
      await queue.add(job('c', { dueAt: new Date(Date.now() + 1_000), lane: 'other' }));
      await until(() => ran.length === 1);
      await queue.stop(5_000);
      expect(ended).toBe(true);
      await queue.add(job('d'));
      await sleep(150);
      expect(ran.map((one) => one.job.subject)).toEqual(['a']);
    });

    test('a stop gives up on a job that hangs, after the time it was given', async () => {
      const { queue, ran, start } = await begin();
      const door = gate();
      start(() => door.promise);
      await queue.add(job('hung'));
      await until(() => ran.length === 1);
      const began = Date.now();
      await queue.stop(100);
      expect(Date.now() - began).toBeGreaterThanOrEqual(95);
      expect(Date.now() - began).toBeLessThan(promptMs);
      door.resolve();
    });

    test('a stop with nothing to wait for ends at once', async () => {
      const { queue, start } = await begin();
      start();
      await queue.add(job('far', { dueAt: new Date(Date.now() + 60_000) }));
      const began = Date.now();
      await queue.stop(20_000);
      expect(Date.now() - began).toBeLessThan(promptMs);
    });

    test('thousands of jobs due at one moment all run, each once', async () => {
      const { queue, ran, start } = await begin({ concurrency: 8 });
      start();
      const dueAt = new Date(Date.now() + 200);
      for (let n = 0; n < 5_000; n++) await queue.add(job(`n${n}`, { dueAt, lane: `target:${n % 10}` }));
      await until(() => ran.length >= 5_000, 20_000);
      await until(() => queue.depth().running === 0);
      expect(new Set(ran.map((one) => one.job.id)).size).toBe(5_000);
      expect(ran).toHaveLength(5_000);
      expect(Math.min(...ran.map((one) => one.at))).toBeGreaterThanOrEqual(dueAt.getTime());
      expect(queue.depth()).toEqual({ waiting: 0, running: 0, failed: 0 });
    });

    test('it tells lane by lane what waits and what runs', async () => {
      const { queue, ran, start } = await begin();
      const door = gate();
      start(() => door.promise);
      for (const name of ['one', 'two', 'three']) await queue.add(job(name, { lane: 'target:a' }));
      await queue.add(job('later', { lane: 'target:b', dueAt: new Date(Date.now() + 60_000) }));
      await until(() => ran.length === 2);
      const lanes = async () => ((await queue.lanes?.()) ?? []).toSorted((a, b) => a.lane.localeCompare(b.lane));
      expect(await lanes()).toEqual([
        { lane: 'target:a', waiting: 1, running: 2 },
        { lane: 'target:b', waiting: 1, running: 0 },
      ]);
      door.resolve();
      await until(() => ran.length === 3);
      await until(() => queue.depth().running === 0);
      await expect.poll(async () => (await lanes())[0], { timeout: promptMs }).toEqual({ lane: 'target:a', waiting: 0, running: 0 });
    });

    test('a lane that is held begins nothing, others go on; once it is let go everything that waited runs', async () => {
      const { queue, ran, start } = await begin();
      start();
      await queue.add(job('before', { lane: 'target:a' }));
      await until(() => ran.length === 1);
      queue.hold('target:a', true);
      queue.hold('target:new', true);
      await sleep(50);
      for (const name of ['one', 'two', 'three']) await queue.add(job(name, { lane: 'target:a' }));
      await queue.add(job('new', { lane: 'target:new' }));
      await queue.add(job('other', { lane: 'target:b' }));
      await until(() => ran.length === 2);
      await sleep(400);
      expect(ran.map((one) => one.job.subject)).toEqual(['before', 'other']);
      queue.hold('target:a', false);
      queue.hold('target:new', false);
      await until(() => ran.length === 6);
      await until(() => queue.depth().running === 0);
      expect(new Set(ran.map((one) => one.job.id)).size).toBe(6);
    });

    test('no more jobs begin in a second than the rate of their lane says, and all of them run', async () => {
      const { queue, ran, start } = await begin({ perSecond: 10, concurrency: 8 });
      start();
      const began = Date.now();
      for (let n = 0; n < 35; n++) await queue.add(job(`n${n}`, { lane: 'target:a' }));
      await queue.add(job('other', { lane: 'target:b' }));
      await until(() => ran.some((one) => one.job.subject === 'other'), 1_000);
      await until(() => ran.length === 36, 10_000);
      expect(Date.now() - began).toBeGreaterThan(2_000);
      // A second's worth may come at the end of one second and as much at the beginning of the next.
      for (const { at } of ran) expect(ran.filter((one) => one.job.lane === 'target:a' && one.at >= at && one.at < at + 990).length).toBeLessThanOrEqual(21);
    });

    test('a due time beyond 2³¹ ms is not taken for now', async () => {
      const { queue, ran, start } = await begin();
      start();
      await queue.add(job('far', { dueAt: new Date(Date.now() + 2 ** 31 + 60_000) }));
      await queue.add(job('farther', { dueAt: new Date('9999-01-01') }));
      await sleep(200);
      expect(ran).toEqual([]);
      expect(queue.depth()).toEqual({ waiting: 2, running: 0, failed: 0 });
    });
  });
}
