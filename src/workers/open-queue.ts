/** The queue of a worker: on Redis where the config sets one up, whose libraries are loaded only then; else in memory. */
import type { Logger } from 'pino';
import type { RedisConfig } from '../config/redis.ts';
import { readSecret } from '../config/secrets.ts';
import { embeddedQueue } from '../queue/embedded.ts';
import type { Queue, QueueParts } from '../queue/port.ts';
import type { RedisSettings, Say } from '../queue/redis.ts';

export type QueueMaker = (parts: QueueParts) => Queue;

/** Connects to Redis. Throws in words when it must not be used as it is; one that cannot be reached stops nothing, and is said in the log. */
export async function openQueue(redis: RedisConfig | undefined, log: Logger): Promise<QueueMaker> {
  if (!redis) return embeddedQueue;
  const settings = await settingsOf(redis);
  const say: Say = (level, code, message, why) => log[level](why === undefined ? { code } : { code, why }, message);
  const [{ openRedis }, { bullQueue }] = await Promise.all([import('../queue/redis.ts'), import('../queue/bullmq.ts')]);
  const link = await openRedis(settings, { say });
  return (parts) => bullQueue({ ...parts, link, say });
}

async function settingsOf({ password, tlsCa, ...rest }: RedisConfig): Promise<RedisSettings> {
  return { ...rest, password: password && (() => readSecret(password)), tlsCa: tlsCa && (await readSecret(tlsCa)) };
}

/** What is wrong with the Redis of the config, in sentences; nothing when a worker can use it. Ends within about four seconds. */
export async function checkRedis(redis: RedisConfig): Promise<string[]> {
  const { EvictingRedis, openRedis } = await import('../queue/redis.ts');
  try {
    const link = await openRedis(await settingsOf(redis), { say: () => undefined });
    const found = link.warnings().map((warning) => warning.message);
    await link.close();
    return found;
  } catch (error) {
    if (error instanceof EvictingRedis) return [error.message];
    throw error;
  }
}
