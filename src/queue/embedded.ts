/** The queue of a single process: timers in memory over the due-index in Postgres. What it forgets at a crash the sweep finds at the next start. */
import type { Handler, Job, LaneLimits, Queue } from './port.ts';

interface Options {
  readonly lanes: (lane: string) => LaneLimits;
  /** Postgres' time in milliseconds since 1970, as near as this process knows it. */
  readonly now: () => number;
  /** Told of every job that threw; the job is not run again by the queue. */
  readonly onFailure: (job: Job, error: unknown) => void;
}

interface Lane {
  readonly limits: LaneLimits;
  readonly ready: Job[];
  running: number;
}

const longestTimerMs = 2 ** 31 - 1;

/** A queue over nothing but memory. It runs what is due by `options.now`, and forgets everything when the process ends. */
export function embeddedQueue(options: Options): Queue {
  const lanes = new Map<string, Lane>();
  const known = new Set<string>();
  const timers = new Map<string, NodeJS.Timeout>();
  const inFlight = new Set<Promise<void>>();
  let handler: Handler | undefined;
  let stopping = false;
  let failed = 0;

  const laneOf = (name: string): Lane => {
    const lane = lanes.get(name) ?? { limits: options.lanes(name), ready: [], running: 0 };
    lanes.set(name, lane);
    return lane;
  };

  const pump = (lane: Lane): void => {
    while (handler && !stopping && lane.running < lane.limits.concurrency) {
      const job = lane.ready.shift();
      if (!job) return;
      lane.running++;
      const run = runOne(handler, job, lane.limits.deadlineMs)
        .catch((error: unknown) => {
          failed++;
          options.onFailure(job, error);
        })
        .finally(() => {
          lane.running--;
          known.delete(job.id);
          inFlight.delete(run);
          pump(lane);
        });
      inFlight.add(run);
    }
  };

  const ripen = (job: Job): void => {
    const inMs = job.dueAt.getTime() - options.now();
    if (inMs > 0) {
      timers.set(
        job.id,
        setTimeout(() => ripen(job), Math.min(inMs, longestTimerMs)),
      );
      return;
    }
    timers.delete(job.id);
    const lane = laneOf(job.lane);
    lane.ready.push(job);
    pump(lane);
  };

  return {
    async add(job) {
      if (stopping) return;
      // A job that still waits is set again: a machine that slept, or a clock that was set, left its timer too long.
      const timer = timers.get(job.id);
      if (timer) clearTimeout(timer);
      else if (known.has(job.id)) return;
      known.add(job.id);
      ripen(job);
    },
    start(given) {
      handler = given;
      for (const lane of lanes.values()) pump(lane);
    },
    async stop(withinMs) {
      stopping = true;
      for (const timer of timers.values()) clearTimeout(timer);
      timers.clear();
      const patience = new Promise<void>((resolve) => setTimeout(resolve, withinMs).unref());
      await Promise.race([Promise.allSettled(inFlight), patience]);
    },
    depth: () => ({ waiting: known.size - inFlight.size, running: inFlight.size, failed }),
  };
}

/** Runs the handler under its deadline. One that does not end a second after its signal gives its place back all the same. */
async function runOne(handler: Handler, job: Job, deadlineMs: number): Promise<void> {
  const controller = new AbortController();
  let abandon: NodeJS.Timeout | undefined;
  const abort = setTimeout(() => controller.abort(new Error(`no end within ${deadlineMs} ms`)), deadlineMs);
  const abandoned = new Promise<never>((_, reject) => {
    abandon = setTimeout(() => reject(new Error(`abandoned after ${deadlineMs + 1_000} ms`)), deadlineMs + 1_000);
  });
  try {
    await Promise.race([handler(job, controller.signal), abandoned]);
  } finally {
    clearTimeout(abort);
    clearTimeout(abandon);
  }
}
