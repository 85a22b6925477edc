/**
 * The connections to Redis, and whether it can be relied on at this moment: it answers, it takes writes, it still holds
 * what it was given, and it evicts nothing. Halligan works without it, so nothing in here throws later than at the start.
 */
import { randomUUID } from 'node:crypto';
import { Cluster, type CommonRedisOptions, Redis } from 'ioredis';
import { hint, within, wordsOf } from './redis-words.ts';

/** How Redis is reached. */
export interface RedisSettings {
  /** `redis://` or `rediss://`, without a password. Behind Sentinel only its scheme and database number count. */
  readonly url: string;
  readonly username: string | undefined;
  /** Read at each connection. */
  readonly password: (() => Promise<string>) | undefined;
  /** PEM: the authority that signed the server's certificate. */
  readonly tlsCa: string | undefined;
  readonly sentinel: { readonly name: string; readonly hosts: readonly string[] } | undefined;
  /** `host:port` of nodes, beside that of the URL; undefined when it is no cluster. */
  readonly cluster: readonly string[] | undefined;
  /** Every key starts with it. */
  readonly prefix: string;
}

export type Say = (level: 'info' | 'warn' | 'error', code: string, message: string, why?: string) => void;
export type Client = Redis | Cluster;

export interface RedisLink {
  readonly prefix: string;
  /** For what must not wait: a command fails at once when there is no connection. */
  readonly adds: Client;
  /** For workers: a command waits for the connection. */
  readonly work: Client;
  /** Whether it took a write within the last second or two. */
  up(): boolean;
  /** A command was not answered in time: nothing is sent until a probe is answered. */
  suspect(why: string): void;
  /** Calls `forget` whenever Redis may have lost what it held. */
  onEmptied(forget: () => void): void;
  warnings(): { code: string; message: string }[];
  close(): Promise<void>;
}

/** A Redis that may drop work to make room. */
export class EvictingRedis extends Error {}

/** A command has this long, in milliseconds. */
export const commandMs = 1_000;
const probeEveryMs = 1_000;
const retryMs = (times: number): number => Math.min(2_000, 100 * 2 ** Math.min(times, 5)) + Math.floor(Math.random() * 100);

export interface LinkOptions {
  readonly say: Say;
  /** How often the eviction policy is read again; a minute unless set. */
  readonly policyEveryMs?: number;
  /** How long the start waits for a first answer; 3 s unless set. */
  readonly patienceMs?: number;
}

/** Connects. Throws `EvictingRedis` when it is reached and evicts; when it is not reached, says so and goes on trying. */
export async function openRedis(settings: RedisSettings, options: LinkOptions): Promise<RedisLink> {
  const { say } = options;
  const clients: Client[] = [];
  let unread: string | undefined;
  const readPassword = async (): Promise<void> => {
    try {
      const password = await settings.password?.();
      unread = undefined;
      if (password === undefined) return;
      for (const client of clients) usePassword(client, password);
      settled.password = password;
    } catch (error) {
      unread = (error as Error).message;
    }
  };
  const settled: { password?: string } = {};
  await readPassword();
  const make = (more: CommonRedisOptions): Client => {
    const client = track(connect(settings, { ...more, ...settled }), (copy) => clients.push(copy));
    client.on('close', () => void readPassword());
    return client;
  };
  const adds = make({ enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: commandMs, autoResendUnfulfilledCommands: false });
  // Longer than a worker's longest wait for work, which is 10 s.
  const work = make({ maxRetriesPerRequest: null, socketTimeout: 20_000 });
  // Where errors end: `adds` says the state, the others follow it.
  work.on('error', () => undefined);
  const watch = watchState({ client: adds, where: whereIs(settings), key: `${settings.prefix}:here:${randomUUID()}`, say, unread: () => unread });
  const close = async (): Promise<void> => {
    watch.stop();
    for (const client of clients) client.disconnect();
  };
  await watch.settled(options.patienceMs ?? 3_000);
  const policy = watchPolicy(adds, whereIs(settings), say);
  if (watch.up()) {
    const fault = await policy.read();
    if (fault) {
      await close();
      throw new EvictingRedis(fault);
    }
  }
  watch.onUp(() => void policy.alarm());
  const timer = setInterval(() => watch.up() && void policy.alarm(), options.policyEveryMs ?? 60_000);
  timer.unref();
  return {
    prefix: settings.prefix,
    adds,
    work,
    up: watch.up,
    suspect: watch.suspect,
    onEmptied: watch.onEmptied,
    warnings: () => [...watch.warnings(), ...policy.warnings()],
    async close() {
      clearInterval(timer);
      await close();
    },
  };
}

function usePassword(client: Client, password: string): void {
  if (client instanceof Cluster) client.options.redisOptions = { ...client.options.redisOptions, password };
  else client.options.password = password;
}

/** BullMQ copies a client for each worker that waits: the copies are reached too, at a new password and at the end. */
function track(client: Client, keep: (client: Client) => void): Client {
  keep(client);
  const duplicate = client.duplicate.bind(client) as (...args: unknown[]) => Client;
  const copy = (...args: unknown[]): Client => {
    const made = track(duplicate(...args), keep);
    made.on('error', () => undefined);
    return made;
  };
  Object.assign(client, { duplicate: copy });
  return client;
}

const hostPort = (text: string): { host: string; port: number } => {
  const url = new URL(`redis://${text}`);
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 6379) };
};

function connect(settings: RedisSettings, more: CommonRedisOptions): Client {
  const url = new URL(settings.url);
  const tls = url.protocol === 'rediss:' ? { tls: { ...(settings.tlsCa === undefined ? {} : { ca: settings.tlsCa }) } } : {};
  const common = {
    ...more,
    ...tls,
    ...(settings.username === undefined ? {} : { username: settings.username }),
    connectTimeout: 5_000,
    keepAlive: 10_000,
  };
  if (settings.cluster) {
    const { enableOfflineQueue = true, ...redisOptions } = common;
    // A certificate names the host that was asked for, so names are left to the connection.
    const dnsLookup = (address: string, answer: (error: null, address: string) => void) => answer(null, address);
    const nodes = [url.host, ...settings.cluster].map(hostPort);
    return new Cluster(nodes, { enableOfflineQueue, redisOptions, dnsLookup, clusterRetryStrategy: retryMs, slotsRefreshTimeout: 3_000 });
  }
  const db = Number(url.pathname.slice(1) || 0);
  const { sentinel } = settings;
  if (!sentinel) return new Redis({ ...common, ...hostPort(url.host), db, retryStrategy: retryMs });
  const tlsThere = tls.tls ? { enableTLSForSentinelMode: true, sentinelTLS: tls.tls } : {};
  return new Redis({
    ...common,
    ...tlsThere,
    db,
    sentinels: sentinel.hosts.map(hostPort),
    name: sentinel.name,
    retryStrategy: retryMs,
    sentinelRetryStrategy: retryMs,
    sentinelCommandTimeout: 3_000,
    failoverDetector: true,
  });
}

const whereIs = ({ url, sentinel }: RedisSettings): string => (sentinel ? `Redis ${sentinel.name} behind Sentinel` : `Redis at ${new URL(url).host}`);

interface Watched {
  readonly client: Client;
  readonly where: string;
  /** A key of this process alone: when it is missing, Redis has lost more. */
  readonly key: string;
  readonly say: Say;
  /** Why the password could not be read, if so. */
  readonly unread: () => string | undefined;
}

/** Knows by a small write each second whether Redis can be relied on, and says each change once. */
function watchState({ client, where, key, say, unread }: Watched) {
  let up: boolean | undefined;
  let why = 'no answer yet';
  let ended = false;
  const emptied: (() => void)[] = [];
  const risen: (() => void)[] = [];
  const first = Promise.withResolvers<void>();

  const lost = (reason: string): void => {
    why = reason;
    if (up === false || ended) return;
    up = false;
    say('warn', 'queue_lost', `${where} is not usable; this process runs due work by itself, found by the sweep. ${hint(reason)}`.trim(), reason);
  };
  const probe = async (): Promise<void> => {
    if (ended || client.status !== 'ready') return;
    try {
      const answer = await within(client.set(key, '1', 'EX', 3_600, 'NX'), commandMs);
      if (answer === 'OK') for (const forget of emptied) forget();
      const back = up === false;
      if (up !== true) {
        up = true;
        first.resolve();
        if (back) say('info', 'queue_back', `${where} is usable again`);
        for (const tell of risen) tell();
      }
    } catch (error) {
      lost(wordsOf(error));
    }
  };
  client.on('ready', () => void probe());
  client.on('error', (error: Error) => {
    why = wordsOf(error);
  });
  client.on('close', () => {
    if (up) lost(unread() ?? 'the connection broke');
  });
  const timer = setInterval(() => void probe(), probeEveryMs);
  timer.unref();
  return {
    up: () => up === true && client.status === 'ready',
    suspect(reason: string) {
      lost(reason);
    },
    onEmptied: (forget: () => void) => void emptied.push(forget),
    onUp: (tell: () => void) => void risen.push(tell),
    /** Waits for the first answer, so long; then says that there is none. */
    async settled(patienceMs: number) {
      await Promise.race([first.promise, new Promise<void>((resolve) => setTimeout(resolve, patienceMs).unref())]);
      if (up === undefined) lost(unread() ?? why);
    },
    warnings: () =>
      up === false ? [{ code: 'queue_unavailable', message: `${where} is not usable (${unread() ?? why}). Access ends on time all the same.` }] : [],
    stop() {
      ended = true;
      clearInterval(timer);
    },
  };
}

/** Reads `maxmemory-policy` on every node that holds keys; INFO says it where CONFIG is forbidden. */
function watchPolicy(client: Client, where: string, say: Say) {
  let evicts: string | undefined;
  const read = async (): Promise<string | undefined> => {
    const nodes = client instanceof Cluster ? client.nodes('master') : [client];
    for (const node of nodes) {
      const policy = /^maxmemory_policy:(\S+)/m.exec(await within(node.info('memory'), commandMs))?.[1];
      if (policy !== undefined && policy !== 'noeviction')
        return `${where} drops keys when its memory is full (maxmemory-policy is ${policy}), and with them work that waits. Set it to noeviction: redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its redis.conf.`;
    }
    return undefined;
  };
  return {
    read,
    async alarm(): Promise<void> {
      try {
        const now = await read();
        if (now && !evicts) say('error', 'redis_evicts', now);
        if (!now && evicts) say('info', 'redis_evicts_no_more', `${where} drops no keys any more`);
        evicts = now;
      } catch (error) {
        say('warn', 'redis_policy_unknown', `${where} does not say its maxmemory-policy; it must be noeviction`, wordsOf(error));
      }
    },
    warnings: () => (evicts ? [{ code: 'redis_evicts', message: evicts }] : []),
  };
}
