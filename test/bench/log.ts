/** The log: what a witness costs a write, and what verifying costs beside the hashing that nobody can avoid. */
import { fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import pino from 'pino';
import { commit } from '../../src/commands/commit.ts';
import { openDb, openPool } from '../../src/db/pool.ts';
import { newSigner, type SyntheticLog, writeSynthetic } from '../audit/synthetic.ts';
import { type Bench, type Figure, figure, timed } from './support.ts';

const rounds = 5;

/** Writes by compare-and-set through `commit`, with and without an event, by 32 clients, while the sealer works. */
export async function witness(bench: Bench): Promise<Figure[]> {
  const url = new URL(bench.superuserUrl);
  url.pathname = '/halligan';
  const pool = openPool({ connectionString: url.href, max: 34 });
  const folder = await mkdtemp(join(tmpdir(), 'halligan-bench-'));
  const ctx = { db: openDb(pool), log: pino({ level: 'silent' }), nudge: () => undefined };
  await pool.query('CREATE TABLE bench_write (id int PRIMARY KEY, epoch int NOT NULL)');
  await pool.query('INSERT INTO bench_write SELECT n, 0 FROM generate_series(1, 32) n');
  const clients = 32;
  const each = 60;
  const write = (id: number, audited: boolean) =>
    commit(ctx, { system: 'bench' }, async (tx) => {
      await sql`SELECT * FROM bench_write WHERE id = ${id} FOR UPDATE`.execute(tx.sql);
      await sql`UPDATE bench_write SET epoch = epoch + 1 WHERE id = ${id}`.execute(tx.sql);
      if (audited) tx.witness({ type: 'request.withdrawn', entitlements: ['orders-readonly'], data: { n: id } });
    });
  const run = (audited: boolean) =>
    timed(() =>
      Promise.all(
        Array.from({ length: clients }, async (_, id) => {
          for (let i = 0; i < each; i++) await write(id + 1, audited);
        }),
      ),
    );
  await run(true);
  await run(false);
  const ratios: number[] = [];
  let note = '';
  for (let round = 0; round < rounds; round++) {
    const audited = await run(true);
    const plain = await run(false);
    ratios.push(plain / audited);
    note = `${((clients * each * 1_000) / audited).toFixed(0)} audited writes a second, sealed by the running server`;
  }
  await pool.query('DROP TABLE bench_write');
  await pool.end();
  await rm(folder, { recursive: true, force: true });
  return [figure('audited writes ÷ unaudited, 32 clients', ratios, { least: 0.7 }, note)];
}

interface Run {
  readonly ms: number;
  readonly maxRssKb: number;
}

const child = (what: 'verify' | 'hash', log: SyntheticLog): Promise<Run> =>
  new Promise((resolve, reject) => {
    const running = fork(new URL('verify-child.ts', import.meta.url), [what, log.log, log.checkpoints, log.verifierKey]);
    running.once('message', (message) => resolve(message as Run));
    running.once('exit', (code) => code !== 0 && reject(new Error(`${what} ended with ${code}`)));
  });

export async function verifying(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-bench-'));
  const sizes = (count: number) => Array.from({ length: Math.ceil(count / 4_096) }, (_, i) => Math.min(count, (i + 1) * 4_096));
  const small = await writeSynthetic(join(folder, 'small'), sizes(100_000));
  const large = await writeSynthetic(join(folder, 'large'), sizes(1_000_000), newSigner());
  const speed: number[] = [];
  const memory: number[] = [];
  let note = '';
  for (let round = 0; round < rounds; round++) {
    const ours = await child('verify', large);
    const raw = await child('hash', large);
    const less = await child('verify', small);
    speed.push(raw.ms / ours.ms);
    memory.push(ours.maxRssKb / less.maxRssKb);
    note = `${(ours.ms / 1_000).toFixed(1)} s for 1,000,000 entries; one SHA-256 for each line alone takes ${(raw.ms / 1_000).toFixed(1)} s; peak ${(ours.maxRssKb / 1_024).toFixed(0)} MB`;
  }
  await rm(folder, { recursive: true, force: true });
  return [
    figure('verifying 1,000,000 entries, speed ÷ raw SHA-256 of every line', speed, { least: 0.5 }, note),
    figure('memory of verifying 1,000,000 entries ÷ 100,000', memory, { most: 1.2 }, 'peak resident set of the whole process'),
  ];
}
