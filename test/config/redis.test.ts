/** How Redis is reached, as the config file says it: each fault in words, with its line. */
import { expect, test } from 'vitest';
import { read, saidOf, sample } from './sample.ts';

const at = sample.trimEnd().split('\n').length + 1;
const withRedis = (...lines: string[]): string => `${sample}redis:\n${lines.map((line) => `  ${line}\n`).join('')}`;
const url = 'url: redis://redis.example.com:6379';

test('left out there is none', async () => {
  expect((await read(sample)).redis).toBeUndefined();
});

test('with everything that goes together', async () => {
  const { redis } = await read(
    withRedis('url: rediss://redis.example.com:6380/2', 'username: halligan', 'passwordFile: secrets/redis', 'tlsCaFile: ca.pem', 'prefix: halligan:eu'),
  );
  expect(redis).toEqual({
    url: 'rediss://redis.example.com:6380/2',
    username: 'halligan',
    password: { file: '/etc/halligan/secrets/redis' },
    tlsCa: { file: '/etc/halligan/ca.pem' },
    sentinel: undefined,
    cluster: undefined,
    prefix: 'halligan:eu',
  });
  expect((await read(withRedis(url))).redis).toMatchObject({ password: undefined, prefix: 'halligan' });
  expect((await read(withRedis(url, 'cluster: true'))).redis?.cluster).toEqual([]);
  expect((await read(withRedis(url, 'cluster: [ redis-2.example.com:6379 ]'))).redis?.cluster).toEqual(['redis-2.example.com:6379']);
  expect((await read(withRedis(url, "sentinel: { name: main, hosts: ['[::1]:26379'] }"))).redis?.sentinel).toEqual({ name: 'main', hosts: ['[::1]:26379'] });
});

test.for([
  [
    ['url: http://redis.example.com'],
    [`${at + 1} redis.url: must be a URL that starts with redis:// or rediss:// (with TLS), as in rediss://redis.example.com:6379`],
  ],
  [
    ['url: redis.example.com:6379'],
    [`${at + 1} redis.url: must be a URL that starts with redis:// or rediss:// (with TLS), as in rediss://redis.example.com:6379`],
  ],
  [['url: redis://:geheim@redis.example.com'], [`${at + 1} redis.url: must not hold the password: put it into passwordFile or passwordEnv`]],
  [['url: redis://halligan@redis.example.com'], [`${at + 1} redis.url: must not hold the user: put it into username`]],
  [['url: redis://redis.example.com/main'], [`${at + 1} redis.url: must end with the port or the number of a database, as in redis://127.0.0.1:6379/1`]],
  [['url: redis://redis.example.com?db=1'], [`${at + 1} redis.url: must end with the port or the number of a database`]],
  [['url: redis://redis.example.com/1', 'cluster: true'], [`${at + 1} redis.url: must not name a database: a Redis Cluster has only one`]],
  [[url, 'passwordFile: a', 'passwordEnv: B'], [`${at + 3} redis.passwordEnv: say passwordFile or passwordEnv, one of the two`]],
  [[url, 'username: halligan'], [`${at} redis.passwordFile: is missing: say passwordFile or passwordEnv for this user`]],
  [[url, 'tlsCaFile: ca.pem'], [`${at + 2} redis.tlsCaFile: is of no use without TLS: let url start with rediss://`]],
  [[url, 'sentinel: { name: main, hosts: [ a:1 ] }', 'cluster: true'], [`${at + 3} redis.cluster: say sentinel or cluster, one of the two`]],
  [[url, 'prefix: "{all}"'], [`${at + 2} redis.prefix: has lower-case letters, digits, colons, dashes and underscores, at most 40`]],
] as const)('%j', async ([lines, said]) => {
  expect(await saidOf(withRedis(...lines))).toEqual(said);
});

test('a name that is not known, a list without a node, and no URL', async () => {
  expect((await saidOf(withRedis(url, 'hosts: [a:1]'))).join()).toContain('hosts');
  expect((await saidOf(withRedis(url, 'cluster: []'))).length).toBeGreaterThan(0);
  expect((await saidOf(withRedis('prefix: a'))).join()).toContain('redis.url');
  expect((await saidOf(withRedis(url, 'sentinel: { name: main, hosts: [nowhere] }'))).join()).toContain('host:port');
});
