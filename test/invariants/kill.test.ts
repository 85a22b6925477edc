/**
 * SIGKILL of the whole server at any moment, under load; then a new start. Checked by SQL that shares nothing with the
 * code: what is over ends within 5 s of the start, no role is left behind, nothing lives twice, the log verifies.
 */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { exportLog } from '../../src/audit/export.ts';
import { verifyExport } from '../../src/audit/verify.ts';
import { openDb } from '../../src/db/pool.ts';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { type Api, apiOf, type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { type ClaimedAnswer, connectWith } from '../support/house-verbs.ts';

let house: House;
let child: ChildServer | undefined;
beforeAll(async () => {
  house = await startTestHouse({ server: 'none' });
  child = await startChild(house);
  for (const person of ['oncall', 'oncall-2', 'lead']) await house.tokenOf(person);
});
afterAll(async () => {
  await child?.stop();
  await house?.close();
});

const rounds = 10;
const seed = Number(process.env['HALLIGAN_SEED'] ?? Date.now() % 1_000_000);

/** mulberry32: small, seeded, good enough to choose moments. */
function randomFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const query = async <T extends object>(sql: string, values: unknown[] = []): Promise<T[]> => (await house.database.superuser.query<T>(sql, values)).rows;
const quiet = <T>(call: Promise<T>): Promise<T | undefined> => call.catch(() => undefined);

interface Shown {
  readonly claim: ClaimedAnswer;
  readonly grant: string;
}

/** One person who asks, is granted, claims, claims again, gives back or lets it expire, until told to stop. */
async function life(apis: { holder: Api; lead: Api }, random: () => number, stopped: () => boolean, shown: Shown[]): Promise<void> {
  while (!stopped()) {
    const duration = `${1 + Math.floor(random() * 3)}s`;
    const asked = await quiet(apis.holder.post<{ id: string; seen: string }>('/requests', { entitlements: ['orders-readonly'], duration, reason: 'load' }));
    if (asked?.status !== 201) continue;
    const decided = await quiet(
      apis.lead.post<{ grant: { id: string } | null }>(`/requests/${asked.body.id}/decisions`, { decision: 'approve', reason: 'r', seen: asked.body.seen }),
    );
    const grant = decided?.body.grant?.id;
    if (!grant) continue;
    for (let claims = 1 + Math.floor(random() * 2); claims > 0 && !stopped(); claims--) {
      const answer = await quiet(apis.holder.post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' }));
      if (answer?.status === 201) shown.push({ claim: answer.body, grant });
    }
    const what = random();
    if (what < 0.4) await quiet(apis.holder.post(`/grants/${grant}/return`));
    else if (what < 0.6) await quiet(apis.lead.post(`/grants/${grant}/revoke`, { reason: 'load' }));
  }
}

/** Watches that at no moment two logins of one grant and entitlement are live in the rows. */
const liveTwice = () => query(`SELECT grant_id, entitlement, count(*) FROM lease WHERE state IN ('issuing', 'live') GROUP BY 1, 2 HAVING count(*) > 1`);

test('killed at any moment, ten times: what is over ends within 5 s of the next start, nothing is left, nothing lives twice, the log verifies', async () => {
  console.log(`seed ${seed}`);
  const random = randomFrom(seed);
  const apis = {
    oncall: { holder: apiOf(house.url, await house.tokenOf('oncall')), lead: apiOf(house.url, await house.tokenOf('lead')) },
    'oncall-2': { holder: apiOf(house.url, await house.tokenOf('oncall-2')), lead: apiOf(house.url, await house.tokenOf('lead')) },
  };
  const cuts: number[] = [];
  const open: Awaited<ReturnType<typeof connectWith>>[] = [];
  for (let round = 1; round <= rounds; round++) {
    let stop = false;
    const shown: Shown[] = [];
    const load = [0, 1, 2, 3].map((index) => life(index % 2 ? apis.oncall : apis['oncall-2'], random, () => stop, shown));
    await new Promise((resolve) => setTimeout(resolve, 300 + random() * 1_200));
    // Some sessions stay open over the kill.
    const sessions = (await Promise.all(shown.slice(-3).map((one) => quiet(connectWith(one.claim))))).flatMap((client) => client ?? []);
    await child!.kill();
    stop = true;
    await Promise.all(load);
    const states = await query<{ state: string; n: number }>('SELECT state, count(*)::int AS n FROM lease GROUP BY state ORDER BY state');

    child = await startChild(house);
    const startedAt = Date.now();
    await until(
      `round ${round} (seed ${seed}): no login of a grant that is over may let anybody in, 5 s after the start`,
      async () => {
        const over = await query<{ external_name: string }>(
          `SELECT external_name FROM lease JOIN access_grant g ON g.id = grant_id WHERE g.ends_at < now() OR g.state NOT IN ('active', 'scheduled')`,
        );
        const { rows } = await house.target.superuser.query(
          `SELECT FROM pg_roles WHERE rolname = ANY ($1) AND rolcanlogin UNION ALL SELECT FROM pg_stat_activity WHERE usename = ANY ($1)`,
          [over.map((row) => row.external_name)],
        );
        const late = await query(`SELECT FROM access_grant WHERE ends_at < now() - interval '1 s' AND state IN ('active', 'scheduled')`);
        return rows.length === 0 && late.length === 0;
      },
      5_000,
    );
    cuts.push(Date.now() - startedAt);
    expect(await liveTwice()).toEqual([]);
    // Rounds do not wait for each other's clean-up: the next kill may come into the middle of it.
    open.push(...sessions);
    console.log(`round ${round}: killed with ${states.map((row) => `${row.n} ${row.state}`).join(', ')}; cut ${cuts.at(-1)} ms after the start`);
  }
  await until(
    `seed ${seed}: everything has ended, and no role is left behind`,
    async () => {
      const rest = await query(`SELECT FROM access_grant WHERE state NOT IN ('ended', 'cancelled')`);
      const leases = await query(`SELECT FROM lease WHERE state NOT IN ('revoked', 'void')`);
      return rest.length === 0 && leases.length === 0 && (await rolesAt(house.target)).length === 0;
    },
    16_000,
  );
  for (const session of open) {
    await expect(session.query('SELECT 1')).rejects.toThrow();
    await quiet(session.end());
  }
  const revealed = await query(
    `SELECT FROM lease WHERE revealed_at IS NOT NULL AND NOT EXISTS (SELECT FROM audit_event e WHERE e.lease_id = lease.id AND e.type = 'lease.revealed')`,
  );
  expect(revealed).toEqual([]);
  await until('everything is sealed', async () => (await query('SELECT FROM audit_pending')).length === 0);
  await child!.stop();
  child = undefined;
  const file = join(house.folder, 'audit.jsonl');
  let text = '';
  for await (const chunk of exportLog(openDb(house.database.app))) text += chunk;
  await writeFile(file, text);
  const verified = await verifyExport({ log: file, checkpoints: join(house.folder, 'checkpoints'), key: house.verifierKey });
  expect(verified).toMatchObject({ ok: true });
}, 240_000);
