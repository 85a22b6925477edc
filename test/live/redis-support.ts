/** What the tests of the queue on Redis share: a queue under test with a record of what it ran and said, and a stand-in for the sweep. */
import { randomUUID } from 'node:crypto';
import { Queue as Bull } from 'bullmq';
import { bullQueue } from '../../src/queue/bullmq.ts';
import { laneName } from '../../src/queue/payload.ts';
import { type Handler, type Job, jobId, type LaneLimits, type Queue } from '../../src/queue/port.ts';
import { type LinkOptions, openRedis, type RedisLink, type RedisSettings } from '../../src/queue/redis.ts';
import type { RedisServer } from './servers/redis.ts';

export const settingsOf = (server: Pick<RedisServer, 'url' | 'password'>, more: Partial<RedisSettings> = {}): RedisSettings => ({
  url: server.url,
  username: undefined,
  password: async () => server.password,
  tlsCa: undefined,
  sentinel: undefined,
  cluster: undefined,
  prefix: `test-${randomUUID()}`,
  ...more,
});

export const job = (subject: string, more: Partial<Job> = {}): Job => {
  const { epoch = 0, kind = 'grant-due' } = more;
  return { id: jobId(kind, subject, epoch), kind, lane: 'expiry', dueAt: new Date(0), subject, epoch, ...more };
};

export interface UnderTest {
  readonly queue: Queue;
  readonly link: RedisLink;
  /** Ids in the order in which they began. */
  readonly ran: string[];
  readonly ranAt: number[];
  /** Codes of what it said, and all of it. */
  readonly codes: string[];
  readonly said: string[];
  /** Adds these again every 200 ms until they have run, as the sweep does. */
  sweep(jobs: readonly Job[]): void;
  stop(withinMs?: number): Promise<void>;
}

interface More extends Omit<LinkOptions, 'say'> {
  readonly work?: Handler;
  readonly now?: () => number;
  readonly queuePatienceMs?: number;
  readonly limits?: Partial<LaneLimits>;
}

/** Opens a started queue. Whoever opens it stops it. */
export async function openUnderTest(settings: RedisSettings, more: More = {}): Promise<UnderTest> {
  const { work = async () => undefined, now = () => Date.now(), queuePatienceMs, limits, ...options } = more;
  const [ran, ranAt, codes, said]: [string[], number[], string[], string[]] = [[], [], [], []];
  const say = (level: string, code: string, message: string, why = ''): void => {
    codes.push(code);
    said.push(`${level} ${code} ${message} ${why}`);
  };
  const link = await openRedis(settings, { say, ...options });
  const queue = bullQueue({
    lanes: () => ({ concurrency: 4, deadlineMs: 10_000, ...limits }),
    onFailure: (failed, error) => said.push(`failed ${failed.id} ${String(error)}`),
    now,
    link,
    say,
    ...(queuePatienceMs === undefined ? {} : { patienceMs: queuePatienceMs }),
  });
  const done = new Set<string>();
  queue.start(async (one, signal) => {
    ran.push(one.id);
    ranAt.push(Date.now());
    await work(one, signal);
    done.add(one.id);
  });
  const timers: NodeJS.Timeout[] = [];
  return {
    queue,
    link,
    ran,
    ranAt,
    codes,
    said,
    sweep(jobs) {
      let busy = false;
      timers.push(
        setInterval(async () => {
          if (busy) return;
          busy = true;
          for (const one of jobs) if (!done.has(one.id)) await queue.add(one);
          busy = false;
        }, 200),
      );
    },
    async stop(withinMs = 0) {
      for (const timer of timers) clearInterval(timer);
      await queue.stop(withinMs);
    },
  };
}

/** BullMQ itself, as somebody else who writes into the same Redis. */
export function strangerAt(server: RedisServer, prefix: string, lane = 'expiry'): Bull {
  return new Bull(laneName(lane), { connection: server.client, prefix });
}
