/**
 * A lane in Redis: its queue, and this process' worker on it. What comes out of Redis is not believed: ids and an epoch,
 * checked for form here and against Postgres by the handlers.
 */
import { Queue as Bull, type Job as BullJob, DelayedError, WaitingError, Worker } from 'bullmq';
import { failpoint } from '../domain/failpoint.ts';
import { jobIn, laneName, payloadOf } from './payload.ts';
import type { Handler, Job, LaneDepth, LaneLimits } from './port.ts';
import { commandMs, type RedisLink, type Say } from './redis.ts';
import { within, wordsOf } from './redis-words.ts';
import type { WorkInHand } from './work-in-hand.ts';

/** What all lanes of a process have in common. */
export interface Shared {
  readonly link: RedisLink;
  readonly now: () => number;
  readonly hand: WorkInHand;
  readonly tell: Say;
  /** Whether this process has the job in its own queue. */
  readonly elsewhere: (id: string) => boolean;
  /** A job of this lane came out of Redis and begins. */
  readonly onBegin: (job: Job) => void;
  /** Undefined before the start and after the stop. */
  readonly handler: () => Handler | undefined;
}

export interface Lane {
  /** Puts a job into Redis; one whose id is there is dropped. Throws when Redis does not take it within a second. */
  put(job: Job): Promise<void>;
  /** Looks after a job that should have run, and puts whatever holds its id without running it out of the way. Throws as `put` does. */
  mend(job: Job): Promise<void>;
  /** How many jobs of this lane wait and run in Redis, by whatever process. Throws as `put` does. */
  depth(): Promise<LaneDepth>;
  start(): void;
  /** Takes no more out of Redis while held; other processes do. */
  hold(held: boolean): void;
  /** Begins nothing more. */
  pause(): void;
  /** Starts the worker again should it have ended. */
  mind(): void;
  close(): Promise<void>;
}

/** A process that vanished with a job loses it after at most lock and two checks; one that is alive keeps it. */
const lockMs = 15_000;
const stalledCheckMs = 5_000;
/** A job further away than this is put off again. */
const longestDelayMs = 86_400_000;
/** A job that is due so soon waits in its place. */
const soonMs = 100;
/** Waits, in milliseconds, and keeps no process alive. */
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

/** Opens the lane; nothing runs before `start`. */
export function openLane(name: string, limits: LaneLimits, shared: Shared): Lane {
  const { link, now, tell } = shared;
  const bull = new Bull(laneName(name), {
    connection: link.adds,
    prefix: link.prefix,
    skipVersionCheck: true,
    streams: { events: { maxLen: 100 } },
    defaultJobOptions: { attempts: 1, removeOnComplete: true, removeOnFail: true },
  });
  bull.on('error', () => undefined);
  let worker: Worker | undefined;
  let over = false;
  let held = false;

  const put = async (job: Job): Promise<void> => {
    const delay = Math.min(longestDelayMs, Math.max(0, Math.ceil(job.dueAt.getTime() - now())));
    await within(bull.add(job.kind, payloadOf(job), { jobId: job.id, delay }), commandMs);
    await failpoint('queue.put');
  };
  const start = (): void => {
    worker = workerOf(name, limits, shared, () => held);
    if (held) void worker.pause(true).catch(() => undefined);
  };
  return {
    put,
    start,
    async depth() {
      const { active = 0, ...rest } = await within(bull.getJobCounts('active', 'wait', 'delayed', 'prioritized'), commandMs);
      return { lane: name, waiting: Object.values(rest).reduce((sum, count) => sum + count, 0), running: active };
    },
    async mend(job) {
      const [there, finished, delay] = await within(link.adds.hmget(bull.toKey(job.id), 'name', 'finishedOn', 'delay'), commandMs);
      if (finished) await within(bull.remove(job.id), commandMs);
      else if (Number(delay) > 0) {
        // Put in by a machine whose clock is ahead of ours.
        const late = await within(bull.getJob(job.id), commandMs);
        if (late) await within(late.promote(), commandMs);
        return;
      } else if (there) return;
      await put(job);
    },
    hold(wanted) {
      held = wanted;
      if (!worker || over) return;
      if (held) void worker.pause(true).catch(() => undefined);
      else void worker.resume().catch(() => undefined);
    },
    pause() {
      over = true;
      void worker?.pause(true).catch(() => undefined);
    },
    mind() {
      if (!worker || worker.isRunning() || over || held) return;
      tell('error', 'queue_trouble', `the worker of lane ${name} had ended; it is started again`);
      void worker.close(true).catch(() => undefined);
      start();
    },
    async close() {
      over = true;
      await Promise.allSettled([worker?.close(true), bull.close()]);
    },
  };
}

function workerOf(lane: string, limits: LaneLimits, shared: Shared, held: () => boolean): Worker {
  const { link, hand, tell } = shared;
  const worker = new Worker(laneName(lane), (found, token) => runFound({ lane, limits, shared, held }, found, token), {
    connection: link.work,
    prefix: link.prefix,
    concurrency: limits.concurrency,
    lockDuration: lockMs,
    stalledInterval: stalledCheckMs,
    // A job that stalled runs again, as often as it must.
    maxStalledCount: 1_000_000,
    runRetryDelay: 1_000,
    ...limiterOf(limits.perSecond),
    removeOnComplete: { count: 0 },
    removeOnFail: { count: 0 },
  });
  worker.on('completed', (job) => hand.letGo(job.id ?? ''));
  worker.on('failed', (job) => hand.letGo(job?.id ?? ''));
  worker.on('error', (error) => {
    // A connection that breaks is the link's to say, once for all lanes.
    if (link.up() && !isConnectionError(error)) tell('warn', 'queue_trouble', `BullMQ had trouble in lane ${lane}`, wordsOf(error));
  });
  return worker;
}

/** Counted in Redis, so that all processes together keep the rate. */
const limiterOf = (perSecond: number | undefined) =>
  perSecond === undefined
    ? {}
    : { limiter: perSecond >= 1 ? { max: Math.floor(perSecond), duration: 1_000 } : { max: 1, duration: Math.ceil(1_000 / perSecond) } };

const isConnectionError = (error: Error & { code?: string }): boolean =>
  error.code !== undefined || /connection|socket|command queue|no answer|timed out/i.test(error.message);

interface Finding {
  readonly lane: string;
  readonly limits: LaneLimits;
  readonly shared: Shared;
  readonly held: () => boolean;
}

/** Runs what BullMQ found. It does not throw for a job that failed: trying again is the sweep's. */
async function runFound({ lane, limits, shared, held }: Finding, found: BullJob, token: string | undefined): Promise<void> {
  const { now, hand, tell } = shared;
  const job = jobIn(lane, found);
  if (!job) return tell('warn', 'job_refused', `a job in Redis is none of ours (lane ${lane}); it was dropped. Something else writes there.`);
  if (hand.runs(job.id) || shared.elsewhere(job.id)) return;
  for (let early = job.dueAt.getTime() - now(); early > 0; early = job.dueAt.getTime() - now()) {
    if (early > soonMs) {
      await found.moveToDelayed(Date.now() + Math.min(Math.ceil(early), longestDelayMs), token);
      throw new DelayedError();
    }
    await sleep(Math.ceil(early));
  }
  const handler = shared.handler();
  if (!handler || held()) {
    // For another process, or for this one after its start or when it lets go of the lane.
    await found.moveToWait(token);
    throw new WaitingError();
  }
  shared.onBegin(job);
  await failpoint('queue.taken');
  await hand.run(handler, job, limits.deadlineMs);
  await failpoint('queue.ran');
}
