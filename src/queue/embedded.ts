/** The queue of a single process: timers in memory over the due-index in Postgres. What it forgets at a crash the sweep finds at the next start. */
import type { Handler, Job, LaneDepth, LaneLimits, Queue, QueueParts } from './port.ts';
import { type Rate, rateOf } from './rate.ts';
import { runOne } from './run-one.ts';

export interface EmbeddedQueue extends Queue {
  lanes(): Promise<readonly LaneDepth[]>;
  /** Whether a job with this id waits or runs. */
  has(id: string): boolean;
}

interface Lane {
  readonly limits: LaneLimits;
  readonly ready: Job[];
  readonly rate: Rate;
  running: number;
  held: boolean;
  /** Set while the rate lets nothing begin. */
  later: NodeJS.Timeout | undefined;
}

const longestTimerMs = 2 ** 31 - 1;

/** A queue over nothing but memory. It runs what is due by `options.now`, and forgets everything when the process ends. */
export function embeddedQueue(options: QueueParts): EmbeddedQueue {
  const lanes = new Map<string, Lane>();
  /** Jobs that wait or run, with their lanes. */
  const known = new Map<string, string>();
  const timers = new Map<string, NodeJS.Timeout>();
  const inFlight = new Set<Promise<void>>();
  let handler: Handler | undefined;
  let stopping = false;
  let failed = 0;

  const laneOf = (name: string): Lane => {
    const there = lanes.get(name);
    if (there) return there;
    const limits = options.lanes(name);
    const lane: Lane = { limits, ready: [], rate: rateOf(limits.perSecond), running: 0, held: false, later: undefined };
    lanes.set(name, lane);
    return lane;
  };

  const pump = (lane: Lane): void => {
    while (handler && !stopping && !lane.held && !lane.later && lane.running < lane.limits.concurrency && lane.ready.length > 0) {
      const waitMs = lane.rate.take();
      if (waitMs > 0) {
        lane.later = setTimeout(() => {
          lane.later = undefined;
          pump(lane);
        }, waitMs);
        return;
      }
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
      known.set(job.id, job.lane);
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
      for (const lane of lanes.values()) clearTimeout(lane.later);
      const patience = new Promise<void>((resolve) => setTimeout(resolve, withinMs).unref());
      await Promise.race([Promise.allSettled(inFlight), patience]);
    },
    hold(name, held) {
      const lane = laneOf(name);
      lane.held = held;
      pump(lane);
    },
    has: (id) => known.has(id),
    async lanes() {
      const all = new Map<string, number>([...lanes.keys()].map((name) => [name, 0]));
      for (const name of known.values()) all.set(name, (all.get(name) ?? 0) + 1);
      return [...all].map(([lane, count]) => {
        const running = lanes.get(lane)?.running ?? 0;
        return { lane, waiting: count - running, running };
      });
    },
    depth: () => ({ waiting: known.size - inFlight.size, running: inFlight.size, failed }),
  };
}
