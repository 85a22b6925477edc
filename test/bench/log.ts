/** The log: what a witness costs a write, and what verifying costs beside the hashing that nobody can avoid. */
import { fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { commit } from '../../src/commands/commit.ts';
import type { Ctx, PersonActor } from '../../src/commands/context.ts';
import { withdrawRequest } from '../../src/commands/withdraw-request.ts';
import { openDb, openPool } from '../../src/db/pool.ts';
import { move } from '../../src/db/stores/move.ts';
import { cliTokenFor } from '../../src/demo/browserless.ts';
import { requestMachine, transition } from '../../src/domain/lifecycle.ts';
import { newSigner, type SyntheticLog, writeSynthetic } from '../audit/synthetic.ts';
import { type Bench, call, type Figure, figure, timed, tokensOf } from './support.ts';

const rounds = 5;

/** One command, withdrawing a request, as it is and with everything but its witness, by 32 clients, while the server seals. */
export async function witness(bench: Bench): Promise<Figure[]> {
  const url = new URL(bench.superuserUrl);
  url.pathname = '/halligan';
  const pool = openPool({ connectionString: url.href, max: 34 });
  const ctx = { db: openDb(pool), log: pino({ level: 'silent' }), nudge: () => undefined } as unknown as Ctx;
  await cliTokenFor(bench.url, 'oncall');
  const token = await tokensOf(bench.url, 'oncall', 1);
  const asked = await call<{ id: string; person: { id: string } }>(bench.url, token(), 'POST', '/requests', {
    entitlements: ['orders-readonly'],
    duration: '1h',
    reason: 'measuring',
  });
  const actor: PersonActor = { id: asked.person.id, subject: 'oncall', name: 'oncall', groups: ['oncall'], via: 'api', loginId: '', authAt: new Date() };
  const silent = (id: string) =>
    commit(ctx, actor, async (tx) => {
      const request = await tx.sql.selectFrom('request').selectAll().where('id', '=', id).forUpdate().executeTakeFirstOrThrow();
      const outcome = transition(requestMachine, request.state, 'withdraw', { quorumMet: false, lapsesAt: request.lapses_at }, tx.now);
      if ('refuse' in outcome) throw new Error(outcome.refuse);
      await move(tx.sql, 'request', request, outcome.to, { decided_at: tx.now });
    });
  const clients = 32;
  const each = 50;
  const run = async (work: (id: string) => Promise<unknown>): Promise<number> => {
    const { rows } = await pool.query<{ id: string }>(
      `INSERT INTO request SELECT (jsonb_populate_record(r, jsonb_build_object('id', 'req_' || md5(random()::text || n)))).* FROM request r, generate_series(1, ${clients * each}) n WHERE r.id = $1 RETURNING id`,
      [asked.id],
    );
    await pool.query('CHECKPOINT');
    return timed(() =>
      Promise.all(
        Array.from({ length: clients }, async (_, client) => {
          for (let i = 0; i < each; i++) await work(rows[client * each + i]?.id ?? '');
        }),
      ),
    );
  };
  const audited = (id: string) => withdrawRequest(ctx, actor, id);
  await run(audited);
  await run(silent);
  const ratios: number[] = [];
  let note = '';
  for (let round = 0; round < rounds + 2; round++) {
    const withWitness = await run(audited);
    const without = await run(silent);
    ratios.push(without / withWitness);
    note = `${((clients * each * 1_000) / withWitness).toFixed(0)} withdrawals a second with their witness, sealed by the running server`;
  }
  await pool.end();
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
