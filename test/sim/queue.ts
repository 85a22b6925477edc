/**
 * A modelled queue behind the real port, shared by all processes as one on Redis is: it reorders, doubles, delays and loses
 * jobs, brings back old ones, and runs what a stranger writes into it. In half of the runs each process has the real
 * in-memory queue instead.
 */
import { type Handler, type Job, jobId, type Queue, type QueueParts } from '../../src/queue/port.ts';
import { runOne } from '../../src/queue/run-one.ts';
import type { Proc, World } from './world.ts';

export interface SharedQueue {
  /** What one process has in its hands. */
  of(proc: Proc): (parts: QueueParts) => Queue;
  /** Everything that waits is gone. */
  flush(): void;
  /** A stranger writes a job. */
  forge(subjects: readonly string[]): void;
  /** Chance that a job does not go its way. */
  trouble: number;
}

export function sharedQueue(world: World): SharedQueue {
  const { random } = world;
  const waiting = new Set<string>();
  const old: Job[] = [];
  const workers = new Map<Proc, { handler: Handler; parts: QueueParts; held: ReadonlySet<string> }>();
  let age = 0;

  const deliver = (job: Job, born: number): void => {
    if (born !== age) return;
    waiting.delete(job.id);
    // One that no process may begin is lost, as any job may be.
    const alive = [...workers].filter(([proc, { held }]) => !proc.dead && !held.has(job.lane));
    for (const [proc] of workers) if (proc.dead) workers.delete(proc);
    if (alive.length === 0) return;
    const [proc, { handler, parts }] = random.pick(alive);
    world.after(random.between(0, 5), proc, () => {
      world.say(() => `job ${job.kind} ${job.subject.slice(-6)} epoch ${job.epoch}`);
      runOne(handler, job, parts.lanes(job.lane).deadlineMs).catch((error: unknown) => parts.onFailure(job, error));
    });
  };

  const put = (job: Job): void => {
    if (waiting.has(job.id) && !random.chance(queue.trouble)) return;
    if (random.chance(queue.trouble)) return;
    waiting.add(job.id);
    old.push(job);
    const inMs = Math.max(0, job.dueAt.getTime() - world.now);
    const times = random.chance(queue.trouble) ? 2 : 1;
    for (let time = 0; time < times; time++) {
      const late = random.chance(queue.trouble) ? random.between(0, 20_000) : random.between(0, 3);
      const born = age;
      world.after(inMs + late, undefined, () => deliver(job, born));
    }
  };

  const queue: SharedQueue = {
    trouble: 0,
    of: (proc) => (parts) => {
      const held = new Set<string>();
      return {
        add: async (job) => put(job),
        start: (handler) => void workers.set(proc, { handler, parts, held }),
        hold: (lane, wanted) => void (wanted ? held.add(lane) : held.delete(lane)),
        stop: async () => void workers.delete(proc),
        depth: () => ({ waiting: waiting.size, running: 0, failed: 0 }),
      };
    },
    flush() {
      age++;
      waiting.clear();
    },
    forge(subjects) {
      const again = old.length > 0 && random.chance(0.4) ? random.pick(old) : undefined;
      const kind = random.pick(['grant-due', 'revoke-lease'] as const);
      const subject = subjects.length > 0 && random.chance(0.9) ? random.pick(subjects) : 'lse_of_nobody';
      const epoch = random.between(0, 4);
      const lane = kind === 'grant-due' ? 'expiry' : 'target:keeps';
      deliver(again ?? { id: jobId(kind, subject, epoch), kind, lane, dueAt: new Date(world.now), subject, epoch }, age);
    },
  };
  return queue;
}
