/** The part of the config that says how Redis is reached, for a queue that several processes share. */
import { z } from 'zod';
import type { Fault } from './faults.ts';
import { type SecretRef, secretRef } from './secrets.ts';

const place = z.string().min(1).optional();
const host = z.string().regex(/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}$/, 'say host:port, as in redis-1.example.com:6379');

export const redisSchema = {
  redis: z
    .strictObject({
      url: z
        .string()
        .refine(
          (text) => URL.canParse(text) && ['redis:', 'rediss:'].includes(new URL(text).protocol) && new URL(text).hostname !== '',
          'must be a URL that starts with redis:// or rediss:// (with TLS), as in rediss://redis.example.com:6379',
        )
        .describe('Without a user and a password. Behind Sentinel only its scheme and database number count.'),
      username: z.string().min(1).optional().describe('A user of its ACL; the default user unless set.'),
      passwordFile: place,
      passwordEnv: place,
      tlsCaFile: place.describe('The authority (PEM) that signed its certificate, if it is not a public one.'),
      sentinel: z.strictObject({ name: z.string().min(1), hosts: z.array(host).min(1).max(20) }).optional(),
      cluster: z
        .union([z.literal(true), z.array(host).min(1).max(50)])
        .optional()
        .describe('true when the URL leads to a node of a Redis Cluster, or more of its nodes.'),
      prefix: z
        .string()
        .regex(/^[a-z0-9][a-z0-9:_-]{0,39}$/, 'has lower-case letters, digits, colons, dashes and underscores, at most 40')
        .default('halligan')
        .describe('Every key starts with it. One for each database of Halligan.'),
    })
    .optional()
    .describe('Left out: the queue is in this process.'),
};

export interface RedisConfig {
  readonly url: string;
  readonly username: string | undefined;
  readonly password: SecretRef | undefined;
  readonly tlsCa: SecretRef | undefined;
  readonly sentinel: { readonly name: string; readonly hosts: readonly string[] } | undefined;
  /** More nodes, beside that of the URL; undefined when it is no cluster. */
  readonly cluster: readonly string[] | undefined;
  readonly prefix: string;
}

type RawRedis = NonNullable<z.output<typeof redisSchema.redis>>;

/** From what the file says to what the house uses; notes what does not go together. */
export function readRedis(redis: RawRedis, folder: string, fault: Fault): RedisConfig {
  const { username, passwordFile, passwordEnv, tlsCaFile, sentinel, cluster, prefix } = redis;
  const url = new URL(redis.url);
  if (url.password) fault(['redis', 'url'], 'must not hold the password: put it into passwordFile or passwordEnv');
  else if (url.username) fault(['redis', 'url'], 'must not hold the user: put it into username');
  if (url.search || url.hash) fault(['redis', 'url'], 'must end with the port or the number of a database');
  if (!/^\/?\d{0,3}$/.test(url.pathname)) fault(['redis', 'url'], 'must end with the port or the number of a database, as in redis://127.0.0.1:6379/1');
  else if (cluster && Number(url.pathname.slice(1)) > 0) fault(['redis', 'url'], 'must not name a database: a Redis Cluster has only one');
  if (passwordFile !== undefined && passwordEnv !== undefined) fault(['redis', 'passwordEnv'], 'say passwordFile or passwordEnv, one of the two');
  const password = secretRef(redis, 'password', folder);
  if (username !== undefined && !password) fault(['redis', 'passwordFile'], 'is missing: say passwordFile or passwordEnv for this user');
  if (tlsCaFile !== undefined && url.protocol !== 'rediss:') fault(['redis', 'tlsCaFile'], 'is of no use without TLS: let url start with rediss://');
  if (sentinel && cluster) fault(['redis', 'cluster'], 'say sentinel or cluster, one of the two');
  return { url: redis.url, username, password, tlsCa: secretRef(redis, 'tlsCa', folder), sentinel, cluster: cluster === true ? [] : cluster, prefix };
}
