/**
 * What this process put into Redis and has not seen end. The sweep adds all that is near every two seconds; most of it is
 * there already, and Redis is not asked again before a job is late.
 */
import type { Job } from './port.ts';

interface Placed {
  readonly dueAt: number;
  /** When it was put in. */
  readonly since: number;
  /** When Redis was last asked about it. */
  checked: number;
  /** When the sweep last wanted it. */
  wanted: number;
}

/** `leave` it where it is, `put` it into Redis, `look` after it there, or run it `here`, in this process. */
export type Next = 'leave' | 'put' | 'look' | 'here';

interface Options {
  readonly now: () => number;
  readonly patienceMs: number;
}

/** A lane in which jobs begin may be longer than the patience. Longer than so many times the patience nothing waits in Redis, whatever begins there: who can hold one job back there must not keep access open for a minute. */
const longest = 1.5;

/**
 * Late by a second a job is looked after, then every third of the patience; after the patience it is run here. While other
 * jobs of its lane begin, it only waits its turn: then it is looked after once in a patience, and run here after one and a half.
 */
export function placements({ now, patienceMs }: Options) {
  const all = new Map<string, Placed>();
  /** When a job of the lane, put there by us, last came out of Redis and began. */
  const begun = new Map<string, number>();
  return {
    next(job: Job): Next {
      const at = now();
      const before = all.get(job.id);
      if (!before) {
        all.set(job.id, { dueAt: job.dueAt.getTime(), since: at, checked: Number.NEGATIVE_INFINITY, wanted: at });
        return 'put';
      }
      before.wanted = at;
      const lateMs = at - Math.max(before.dueAt, before.since);
      const idleMs = Math.min(lateMs, at - (begun.get(job.lane) ?? 0));
      if (idleMs >= patienceMs || lateMs >= longest * patienceMs) {
        all.delete(job.id);
        return 'here';
      }
      const look = idleMs >= 1_000 ? patienceMs / 3 : patienceMs;
      if (lateMs < (idleMs >= 1_000 ? 1_000 : patienceMs) || at - before.checked < look) return 'leave';
      before.checked = at;
      return 'look';
    },
    /** A job came out of Redis and begins. One that this process did not put there says nothing of how the lane moves: anybody may have. */
    began(job: Pick<Job, 'id' | 'lane'>): void {
      if (all.has(job.id)) begun.set(job.lane, now());
    },
    delete: (id: string) => void all.delete(id),
    clear: () => all.clear(),
    /** Forgets what is over and what the sweep no longer wants: another process has done it. */
    prune(): void {
      const at = now();
      for (const [id, one] of all) if (at - Math.max(one.dueAt, one.since, one.wanted) > patienceMs) all.delete(id);
    },
    waiting: (runs: (id: string) => boolean): number => [...all.keys()].filter((id) => !runs(id)).length,
  };
}
