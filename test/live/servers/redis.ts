/** Debian's redis-server as a child of the tests: on a free port of loopback, known by its process id, which INFO tells. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { awaitReady, freePort, startChild } from './install.ts';

const binary = '/usr/bin/redis-server';

export interface RedisServer {
  readonly port: number;
  readonly password: string;
  readonly url: string;
  readonly folder: string;
  /** A client of the test's own. */
  readonly client: Redis;
  /** SIGKILL, and nothing comes back. */
  kill(): Promise<void>;
  /** Starts it again on the same port, with whatever its folder holds. */
  restart(): Promise<void>;
  /** SIGSTOP and SIGCONT: it takes connections and answers nothing. */
  freeze(frozen: boolean): void;
  stop(): Promise<void>;
}

interface RedisOptions {
  /** PEM. Then it speaks TLS alone. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Instead of a random one: that of the primary. */
  readonly password?: string;
  /** It is a Sentinel of this primary, which it calls `halligan-test`. */
  readonly sentinelOf?: RedisServer;
}

/** Starts a server of our own that keeps nothing, unless `settings` say so (as on its command line). Its password is random. */
export async function startRedis(settings: readonly string[] = [], options: RedisOptions = {}): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-redis-'));
  const port = await freePort();
  const password = options.sentinelOf ? '' : (options.password ?? randomBytes(15).toString('base64url'));
  const args = options.sentinelOf
    ? [await sentinelFile(folder, port, options.sentinelOf), '--sentinel']
    : [...['--bind', '127.0.0.1', '--dir', folder, '--save', '', '--requirepass', password, '--masterauth', password], ...settings];
  if (!options.sentinelOf && !settings.includes('--appendonly')) args.push('--appendonly', 'no');
  if (options.tls) args.push(...(await tlsArgs(folder, port, options.tls)));
  else if (!options.sentinelOf) args.push('--port', String(port));
  let child = startChild(binary, args, process.env);
  const client = new Redis({
    host: '127.0.0.1',
    port,
    ...(password ? { password } : {}),
    lazyConnect: true,
    maxRetriesPerRequest: null,
    retryStrategy: () => 100,
    ...(options.tls ? { tls: { rejectUnauthorized: false } } : {}),
  });
  client.on('error', () => undefined);
  const awaitOurs = (): Promise<void> =>
    awaitReady(child, 'Redis', 10, async () => {
      const told = await Promise.race([client.info('server'), new Promise<string>((resolve) => setTimeout(() => resolve(''), 500))]);
      return new RegExp(`^process_id:${child.pid}\\b`, 'm').test(told);
    });
  const kill = async (): Promise<void> => {
    child.process.kill('SIGKILL');
    await child.stop();
  };
  await awaitOurs();
  return {
    port,
    password,
    url: `${options.tls ? 'rediss' : 'redis'}://127.0.0.1:${port}`,
    folder,
    client,
    kill,
    async restart() {
      await kill();
      child = startChild(binary, args, process.env);
      await awaitOurs();
    },
    freeze: (frozen) => void child.process.kill(frozen ? 'SIGSTOP' : 'SIGCONT'),
    async stop() {
      client.disconnect();
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function tlsArgs(folder: string, port: number, { cert, key }: { cert: string; key: string }): Promise<string[]> {
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  await writeFile(certFile, cert);
  await writeFile(keyFile, key, { mode: 0o600 });
  return ['--port', '0', '--tls-port', String(port), '--tls-cert-file', certFile, '--tls-key-file', keyFile, '--tls-auth-clients', 'no'];
}

async function sentinelFile(folder: string, port: number, primary: RedisServer): Promise<string> {
  const file = join(folder, 'sentinel.conf');
  const lines = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${folder}`,
    `sentinel monitor halligan-test 127.0.0.1 ${primary.port} 1`,
    `sentinel auth-pass halligan-test ${primary.password}`,
    'sentinel down-after-milliseconds halligan-test 2000',
    'sentinel failover-timeout halligan-test 10000',
  ];
  await writeFile(file, `${lines.join('\n')}\n`);
  return file;
}
