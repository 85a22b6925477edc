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
  const { password, tlsCa, ...rest } = redis;
  const settings: RedisSettings = {
    ...rest,
    password: password && (() => readSecret(password)),
    tlsCa: tlsCa && (await readSecret(tlsCa)),
  };
  const say: Say = (level, code, message, why) => log[level](why === undefined ? { code } : { code, why }, message);
  const [{ openRedis }, { bullQueue }] = await Promise.all([import('../queue/redis.ts'), import('../queue/bullmq.ts')]);
  const link = await openRedis(settings, { say });
  return (parts) => bullQueue({ ...parts, link, say });
}
