/** From the start of the process to `/readyz`: ours, against Express and pg alone. */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { generateSigningKey } from '../../src/audit/checkpoint.ts';
import { type Bench, type Figure, figure, median, ms } from './support.ts';

const rounds = 7;

export const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });

/** Milliseconds until the process answers `/readyz` with 200; the process is ended afterwards. */
export async function untilReady(args: string[], port: number, env: NodeJS.ProcessEnv): Promise<number> {
  const began = performance.now();
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } });
  let complaint = '';
  child.stderr.on('data', (chunk) => {
    complaint += chunk;
  });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  for (;;) {
    const ready = await fetch(`http://127.0.0.1:${port}/readyz`).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) break;
    if (child.exitCode !== null || performance.now() - began > 20_000) throw new Error(`not ready: ${complaint}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const took = performance.now() - began;
  child.kill('SIGTERM');
  await gone;
  return took;
}

/** How to start a Halligan of its own on an empty database of the bench's server. */
export interface Startable {
  readonly folder: string;
  /** Of `halligan_bench`, its role in the database. */
  readonly password: string;
  readonly databaseUrl: string;
  readonly env: NodeJS.ProcessEnv;
  /** Writes the config for this port; gives the arguments. */
  args(port: number): Promise<string[]>;
}

/** Makes the database (once), with Halligan's tables, and a folder for its config. */
export async function startable(bench: Bench, database: string): Promise<Startable> {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-bench-'));
  const password = 'bench-only';
  const admin = new pg.Client({ connectionString: bench.superuserUrl });
  await admin.connect();
  await admin.query(
    `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'halligan_bench') THEN CREATE ROLE halligan_bench LOGIN IN ROLE halligan_app PASSWORD '${password}'; END IF; END $$`,
  );
  await admin.query(`CREATE DATABASE ${database} TEMPLATE template0 OWNER halligan_owner`).catch(() => undefined);
  await admin.end();
  const own = new URL(bench.superuserUrl);
  Object.assign(own, { pathname: `/${database}` });
  const { migrate } = await import('../../src/db/migrate.ts');
  await migrate({ url: own.href, directory: 'migrations' });
  await writeFile(join(folder, 'audit.key'), `${generateSigningKey('bench').signingKey}\n`, { mode: 0o600 });
  const example = (port: number) => `
server: { url: 'http://127.0.0.1:${port}', listen: '127.0.0.1:${port}' }
database: { url: 'postgres://halligan_bench@127.0.0.1:${own.port}/${database}', passwordEnv: BENCH_PASSWORD }
login: { issuer: 'http://127.0.0.1:1', clientId: halligan }
audit: { signingKeyFile: audit.key, checkpoints: { directory: checkpoints } }
log: { level: error }
targets: { orders: { kind: postgres, host: 127.0.0.1, port: ${own.port}, database: orders, user: halligan_bench, passwordEnv: BENCH_PASSWORD, tls: disable } }
entitlements:
  orders-readonly: { opens: read, target: orders, grant: { role: orders_ro }, owner: bench, eligible: { groups: [a] }, approval: [ { of: { groups: [b] } } ], maxDuration: 1h }
`;
  const file = join(folder, 'halligan.yaml');
  return {
    folder,
    password,
    databaseUrl: own.href,
    env: { BENCH_PASSWORD: password },
    async args(port) {
      await writeFile(file, example(port));
      return ['bin/halligan.js', 'serve', '--config', file];
    },
  };
}

export async function starting(bench: Bench): Promise<Figure[]> {
  const { folder, databaseUrl, env, args } = await startable(bench, 'halligan_start');
  const bare = join(folder, 'bare.mjs');
  await writeFile(bare, (await readFile(new URL('bare-server.mjs', import.meta.url), 'utf8')).replaceAll('ROOT', process.cwd()));
  const ratios: number[] = [];
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const port = await freePort();
    const mine = await untilReady(await args(port), port, env);
    const other = await freePort();
    const plain = await untilReady([bare], other, { PORT: String(other), DATABASE: databaseUrl });
    ours.push(mine);
    theirs.push(plain);
    ratios.push(mine / plain);
  }
  await rm(folder, { recursive: true, force: true });
  return [figure('cold start to /readyz ÷ Express and pg alone', ratios, { most: 3 }, `${ms(median(ours))} against ${ms(median(theirs))}`)];
}
