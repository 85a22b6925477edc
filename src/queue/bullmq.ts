/**
 * The queue of many processes: BullMQ on Redis, one of its queues for each lane. Redis is never the truth and never
 * needed: what cannot be put there at once, and what did not run long after it was due, runs in this process instead.
 */
import { embeddedQueue } from './embedded.ts';
import { type Lane, openLane, type Shared, sleep } from './lane.ts';
import { placements } from './placements.ts';
import type { Handler, Job, LaneDepth, Queue, QueueParts } from './port.ts';
import type { RedisLink, Say } from './redis.ts';
import { wordsOf } from './redis-words.ts';
import { workInHand } from './work-in-hand.ts';

export interface BullOptions extends QueueParts {
  readonly link: RedisLink;
  readonly say: Say;
  /** A job that has not run so long after it was due runs in this process, whatever Redis says; 30 s unless set. */
  readonly patienceMs?: number;
}

/** A queue that shares its work with every process that uses the same Redis and prefix. It owns the link and closes it when it stops. */
export function bullQueue(options: BullOptions): Queue {
  const { link, now } = options;
  const lanes = new Map<string, Lane>();
  const placed = placements({ now, patienceMs: options.patienceMs ?? 30_000 });
  const hand = workInHand({ onFailure: options.onFailure, onEnded: placed.delete });
  const local = embeddedQueue(options);
  const tell = seldom(options.say);
  const held = new Set<string>();
  let handler: Handler | undefined;
  let stopping = false;
  const shared: Shared = { link, now, hand, tell, elsewhere: local.has, onBegin: placed.began, handler: () => (stopping ? undefined : handler) };

  const laneOf = (name: string): Lane => {
    const there = lanes.get(name);
    if (there) return there;
    const lane = openLane(name, options.lanes(name), shared);
    lanes.set(name, lane);
    lane.hold(held.has(name));
    if (handler) lane.start();
    return lane;
  };

  const place = async (job: Job, again: boolean): Promise<void> => {
    try {
      const lane = laneOf(job.lane);
      await (again ? lane.mend(job) : lane.put(job));
    } catch (error) {
      const why = wordsOf(error);
      if (/no answer within|timed out/i.test(why)) link.suspect(why);
      else if (link.up()) tell('warn', 'job_not_queued', 'Redis did not take a job; it runs in this process', why);
      placed.delete(job.id);
      await local.add(job);
    }
  };

  const mindWorkers = setInterval(() => {
    placed.prune();
    for (const lane of lanes.values()) lane.mind();
  }, 10_000);
  mindWorkers.unref();
  link.onEmptied(placed.clear);

  return {
    async add(job) {
      if (stopping || hand.runs(job.id) || local.has(job.id)) return;
      if (!link.up()) return local.add(job);
      // Until Redis has let go of it, it would take it for the same job.
      await hand.ended(job.id);
      const next = placed.next(job);
      if (next === 'leave') return;
      if (next === 'here') return local.add(job);
      await place(job, next === 'look');
    },
    start(given) {
      handler = given;
      local.start(async (job, signal) => {
        if (!hand.runs(job.id)) await given(job, signal);
      });
      for (const lane of lanes.values()) lane.start();
    },
    async stop(withinMs) {
      stopping = true;
      clearInterval(mindWorkers);
      for (const lane of lanes.values()) lane.pause();
      await Promise.all([local.stop(withinMs), Promise.race([hand.allEnded(), sleep(withinMs)])]);
      await Promise.race([Promise.allSettled([...lanes.values()].map((lane) => lane.close())), sleep(1_000)]);
      await link.close();
    },
    hold(name, wanted) {
      if (wanted) held.add(name);
      else held.delete(name);
      lanes.get(name)?.hold(wanted);
      local.hold(name, wanted);
    },
    async lanes() {
      const shared = link.up() ? await Promise.allSettled([...lanes.values()].map((lane) => lane.depth())) : [];
      const all = new Map<string, LaneDepth>();
      for (const one of [...shared.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : [])), ...(await local.lanes())]) {
        const before = all.get(one.lane);
        all.set(one.lane, { lane: one.lane, waiting: one.waiting + (before?.waiting ?? 0), running: one.running + (before?.running ?? 0) });
      }
      return [...all.values()];
    },
    depth() {
      const here = local.depth();
      return {
        waiting: placed.waiting((id) => hand.ended(id) !== undefined) + here.waiting,
        running: hand.count() + here.running,
        failed: hand.failed() + here.failed,
      };
    },
    warnings: link.warnings,
  };
}

/** Says the same thing once a minute, and how often it was; an attacker must not fill the log. */
function seldom(say: Say): Say {
  const last = new Map<string, { at: number; unsaid: number }>();
  return (level, code, message, why) => {
    const before = last.get(code);
    if (before && performance.now() - before.at < 60_000) {
      before.unsaid++;
      return;
    }
    last.set(code, { at: performance.now(), unsaid: 0 });
    say(level, code, before?.unsaid ? `${message} (${before.unsaid} more since it was last said)` : message, why);
  };
}
