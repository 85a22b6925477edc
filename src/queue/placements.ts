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

/** Late by a second a job is looked after, then every third of the patience; after the patience it is run here. */
export function placements({ now, patienceMs }: Options) {
  const all = new Map<string, Placed>();
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
      if (lateMs >= patienceMs) {
        all.delete(job.id);
        return 'here';
      }
      if (lateMs < 1_000 || at - before.checked < patienceMs / 3) return 'leave';
      before.checked = at;
      return 'look';
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
