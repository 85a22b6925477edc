/** The one way to write: all or nothing, run again after a deadlock, the database's “no” in the words of its rule. */
import { sql } from 'kysely';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { commit } from '../../src/commands/commit.ts';
import { Refusal } from '../../src/domain/errors.ts';
import { type House, startTestHouse } from '../support/house.ts';
import { granted } from '../support/house-verbs.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse({ worker: false });
});
afterAll(() => house?.close());

const count = async (from: string) => Number((await house.database.superuser.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${from}`)).rows[0]!.n);
const testActor = { system: 'a-test' } as const;

test('a refusal takes everything back, and is witnessed only when the command says how', async () => {
  const before = [await count('audit_event'), await count('outbox')];
  const body = async (tx: Parameters<Parameters<typeof commit>[2]>[0]) => {
    tx.witness({ type: 'grant.started' });
    tx.send({ topic: 'grant-due', payload: { id: 'gnt_x', epoch: 0, dueAt: new Date().toISOString() } });
    throw new Refusal('not_eligible', 'no');
  };
  await expect(commit(house.running.ctx, testActor, body)).rejects.toMatchObject({ code: 'not_eligible' });
  expect([await count('audit_event'), await count('outbox')]).toEqual(before);
  await expect(commit(house.running.ctx, testActor, body, () => ({ type: 'access.refused', data: { command: 'a-test' } }))).rejects.toMatchObject({
    code: 'not_eligible',
  });
  expect([await count('audit_event'), await count('outbox')]).toEqual([before[0]! + 1, before[1]]);
  const { rows } = await house.database.superuser.query<{ line: string }>(`SELECT line FROM audit_event ORDER BY position DESC LIMIT 1`);
  expect(JSON.parse(rows[0]!.line)).toMatchObject({ type: 'access.refused', actor: { system: 'a-test' }, data: { command: 'a-test', code: 'not_eligible' } });
});

test('an error that nobody foresaw is passed on as it is, and leaves nothing', async () => {
  const before = await count('audit_event');
  const bug = new TypeError('a bug');
  await expect(
    commit(
      house.running.ctx,
      testActor,
      async (tx) => {
        tx.witness({ type: 'grant.started' });
        throw bug;
      },
      () => ({ type: 'access.refused' }),
    ),
  ).rejects.toBe(bug);
  expect(await count('audit_event')).toBe(before);
});

test('two that deadlock are run again: both happen, each once', async () => {
  const [one, two] = [await granted(house), await granted(house)];
  const before = await count('audit_event');
  const runs: string[] = [];
  const both = Promise.withResolvers<void>();
  let waiting = 0;
  const lockBoth = (name: string, first: string, second: string) =>
    commit(house.running.ctx, testActor, async (tx) => {
      runs.push(name);
      await sql`SELECT FROM access_grant WHERE id = ${first} FOR UPDATE`.execute(tx.sql);
      if (++waiting === 2) both.resolve();
      await both.promise;
      await sql`SELECT FROM access_grant WHERE id = ${second} FOR UPDATE`.execute(tx.sql);
      tx.witness({ type: 'grant.started', data: { name } });
    });
  await Promise.all([lockBoth('a', one.grant, two.grant), lockBoth('b', two.grant, one.grant)]);
  expect(runs.length).toBeGreaterThan(2);
  expect(await count('audit_event')).toBe(before + 2);
});

test('a broken rule of the database is its refusal', async () => {
  const { grant } = await granted(house);
  const insert = (id: string) =>
    commit(house.running.ctx, testActor, async (tx) => {
      await sql`INSERT INTO lease (id, grant_id, entitlement, target, kind, state, external_name, target_grant, expires_at)
                VALUES (${id}, ${grant}, 'orders-readonly', 'orders-db', 'postgres', 'issuing', ${`hg_${id}`}, '{}', now())`.execute(tx.sql);
    });
  await insert(`lse_${'1'.repeat(32)}`);
  await expect(insert(`lse_${'2'.repeat(32)}`)).rejects.toMatchObject({ code: 'lease_conflict' });
  await house.database.superuser.query('DELETE FROM lease WHERE id = $1', [`lse_${'1'.repeat(32)}`]);
});

test('a grant is never called ended by anybody while a lease of it is open: the database says so', async () => {
  const { grant } = await granted(house);
  await house.database.superuser.query(
    `INSERT INTO lease (id, grant_id, entitlement, target, kind, state, external_name, target_grant, expires_at) VALUES ($1, $2, 'orders-readonly', 'orders-db', 'postgres', 'issuing', $3, '{}', now())`,
    [`lse_${'3'.repeat(32)}`, grant, `hg_lse_${'3'.repeat(32)}`],
  );
  await expect(
    house.database.app.query(`UPDATE access_grant SET state = 'ended', end_reason = 'expired', ended_at = now() WHERE id = $1`, [grant]),
  ).rejects.toMatchObject({ constraint: 'grant_ended_only_when_leases_are_gone' });
  await house.database.superuser.query('DELETE FROM lease WHERE grant_id = $1', [grant]);
});
