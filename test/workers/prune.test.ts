/** What is over for long enough is deleted, with everything about it, and witnessed; what is not over, or not for long enough, stays. On a real database, as the application's role. */
import pino from 'pino';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { openDb } from '../../src/db/pool.ts';
import { askDuties, HoldLost } from '../../src/db/stores/duties.ts';
import { newId } from '../../src/domain/ids.ts';
import { pruneHistory, pruner } from '../../src/workers/prune.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';

let t: TestDatabase;
let person: string;
const log = pino({ level: 'silent' });
const day = 86_400;
const tables = ['delivery', 'notice', 'slack_handle', 'idempotency', 'review', 'lease', 'access_grant', 'decision', 'request'];

beforeAll(async () => {
  t = await testDatabase();
});
afterAll(async () => {
  await t.close();
});
beforeEach(async () => {
  await t.superuser.query(`TRUNCATE audit_event, audit_pending, person, ${tables.join(', ')} CASCADE`);
  person = newId('person');
  for (const id of [person, newId('person')])
    await t.superuser.query("INSERT INTO person (id, issuer, subject, name, groups, groups_read_at) VALUES ($1, 'i', $1, 'n', '{}', now())", [id]);
});

const ctx = () => ({ db: openDb(t.app), log, nudge: () => undefined });
const count = async (table: string): Promise<number> => (await t.superuser.query<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.n ?? -1;
const counts = async () => Object.fromEntries(await Promise.all(tables.map(async (table) => [table, await count(table)])));

/** A request of which everything has been over for so many days; returns its id. */
async function over(days: number): Promise<string> {
  const [request, grant, notice, card, lease] = [newId('request'), newId('grant'), newId('notice'), newId('delivery'), newId('lease')];
  const then = `now() - interval '${days} days'`;
  const run = (text: string, ...values: unknown[]) => t.superuser.query(text, values);
  await run(
    `INSERT INTO request (id, person_id, state, entitlements, duration_seconds, reason, break_glass, policy, policy_hash, approver_groups, approver_subjects, reviewer_groups, reviewer_subjects, created_at, lapses_at, decided_at)
     VALUES ($1, $2, 'approved', '{a}', 60, 'x', true, '[]', 'x', '{}', '{}', '{}', '{}', ${then}, ${then}, ${then})`,
    request,
    person,
  );
  await run(
    `INSERT INTO decision (id, request_id, requester_id, person_id, decision, reason, seen, via, decided_at)
     SELECT $1, $2, $3, id, 'approve', '', 'x', 'web', ${then} FROM person WHERE id <> $3`,
    newId('decision'),
    request,
    person,
  );
  await run(
    `INSERT INTO access_grant (id, request_id, person_id, state, break_glass, starts_at, ends_at, end_reason, ending_at, ended_at)
     VALUES ($1, $2, $3, 'ended', true, ${then} - interval '1 hour', ${then}, 'expired', ${then}, ${then})`,
    grant,
    request,
    person,
  );
  await run(
    `INSERT INTO lease (id, grant_id, entitlement, target, kind, state, external_name, target_grant, expires_at, end_reason, read_back_at)
     VALUES ($1, $2, 'a', 't', 'postgres', 'revoked', $1, '{}', ${then}, 'expired', ${then})`,
    lease,
    grant,
  );
  await run(
    `INSERT INTO review (id, grant_id, person_id, state, due_at, closed_by, closed_at, verdict)
     SELECT $1, $2, $3, 'closed', ${then}, id, ${then}, 'justified' FROM person WHERE id <> $3`,
    newId('review'),
    grant,
    person,
  );
  await run(
    `INSERT INTO notice (id, type, request_id, grant_id, lease_id, due_at, created_at, spread_at) VALUES ($1, 'lease.revoked', $2, $3, $4, ${then}, ${then}, ${then})`,
    notice,
    request,
    grant,
    lease,
  );
  const deliver = (id: string, form: string, of: string | null) =>
    run(
      `INSERT INTO delivery (id, notice_id, request_id, channel, form, address, card_id, state, created_at, sent_at) VALUES ($1, $2, $3, 'slack', $4, 'C01', $5, 'sent', ${then}, ${then})`,
      id,
      notice,
      request,
      form,
      of,
    );
  await deliver(card, 'card', null);
  await deliver(newId('delivery'), 'reply', card);
  await run(
    `INSERT INTO slack_handle (handle_hash, purpose, request_id, expires_at) VALUES (sha256($1::bytea), 'decide', $2, ${then})`,
    Buffer.from(request),
    request,
  );
  await run(`INSERT INTO idempotency (person_id, key, body_hash, object_id, created_at) VALUES ($1, $2, 'x', $2, ${then})`, person, request);
  return request;
}

test('deletes everything about it, and says how many in one event of the same transaction', async () => {
  await over(500);
  const kept = await over(300);
  expect(await pruneHistory(ctx(), 400 * day)).toEqual({ requests: 1, decisions: 1, grants: 1, leases: 1, reviews: 1, notices: 1, deliveries: 2 });
  expect(await counts()).toEqual(Object.fromEntries(tables.map((table) => [table, table === 'delivery' ? 2 : 1])));
  expect((await t.app.query('SELECT id FROM request')).rows).toEqual([{ id: kept }]);
  const { rows } = await t.app.query<{ line: string }>('SELECT line FROM audit_event');
  expect(rows.map(({ line }) => JSON.parse(line) as object)).toMatchObject([
    { type: 'history.pruned', actor: { system: 'prune' }, data: { requests: 1, leases: 1, deliveries: 2, keptSeconds: 400 * day } },
  ]);
  // Nothing deleted, nothing said.
  await pruneHistory(ctx(), 400 * day);
  expect(await count('audit_event')).toBe(1);
});

describe('what is not over stays whole, however old it is', () => {
  test.each([
    ['a request that waits', "UPDATE request SET state = 'pending', decided_at = NULL"],
    ['a grant that is open', "UPDATE access_grant SET state = 'active', end_reason = NULL, ended_at = NULL, ending_at = NULL"],
    ['a grant that is being ended', "UPDATE access_grant SET state = 'ending', ended_at = NULL"],
    ['a lease that is live', "UPDATE lease SET state = 'live', revealed_at = now(), handle = 'x', end_reason = NULL, read_back_at = NULL"],
    ['a lease that was never read back as gone', "UPDATE lease SET state = 'revoking', next_try_at = now(), read_back_at = NULL"],
    ['a review that is due', "UPDATE review SET state = 'due', closed_by = NULL, closed_at = NULL, verdict = NULL"],
    ['a review that was closed lately', 'UPDATE review SET closed_at = now()'],
    ['a lease that was read back lately', 'UPDATE lease SET read_back_at = now()'],
    ['a notice that is still to be told', 'UPDATE notice SET spread_at = NULL'],
    ['a message that waits', "UPDATE delivery SET state = 'waiting', sent_at = NULL, next_try_at = now() WHERE form = 'card'"],
  ])('%s', async (_, statement) => {
    await over(5_000);
    const before = await counts();
    await t.superuser.query(statement);
    expect(await pruneHistory(ctx(), 30 * day)).toMatchObject({ requests: 0 });
    expect(await counts()).toEqual(before);
  });
});

test('the database itself keeps thirty days, whatever the application asks for, and lets no other way in', async () => {
  await over(20);
  await expect(pruneHistory(ctx(), 29 * day)).rejects.toMatchObject({ code: '23514', constraint: 'history_kept_thirty_days' });
  await expect(t.app.query('SELECT * FROM prune_history(NULL, 10)')).rejects.toMatchObject({ constraint: 'history_kept_thirty_days' });
  expect(await pruneHistory(ctx(), 30 * day)).toMatchObject({ requests: 0 });
  // Objects of the application's role stand in no way: names are looked up in the catalogue alone.
  const { rows } = await t.superuser.query("SELECT prosecdef, proconfig, proacl::text FROM pg_proc WHERE proname = 'prune_history'");
  expect(rows).toEqual([
    {
      prosecdef: true,
      proconfig: ['search_path=pg_catalog, pg_temp'],
      proacl: expect.stringMatching(/^\{halligan_owner=X\/halligan_owner,halligan_app=X\/halligan_owner\}$/) as string,
    },
  ]);
});

test('more than fits in a batch goes in several, each with its witness; a row that somebody has locked is left for later', async () => {
  const ids: string[] = [];
  for (let n = 0; n < 4; n++) ids.push(await over(500 + n));
  await t.superuser.query(
    `INSERT INTO request (id, person_id, state, entitlements, duration_seconds, reason, break_glass, policy, policy_hash, approver_groups, approver_subjects, reviewer_groups, reviewer_subjects, lapses_at, decided_at)
     SELECT 'req_' || lpad(to_hex(n), 32, '0'), $1, 'lapsed', '{a}', 60, 'x', false, '[]', 'x', '{}', '{}', '{}', '{}', now(), now() - interval '450 days' FROM generate_series(1, 450) n`,
    [person],
  );
  const client = await t.superuser.connect();
  try {
    await client.query('BEGIN');
    await client.query('SELECT FROM request WHERE id = $1 FOR UPDATE', [ids[0]]);
    const answers = await askDuties(openDb(t.app), { holder: 'a', wanted: ['prune'], done: [], lifeMs: 60_000 });
    const hold = { name: 'prune', holder: 'a', epoch: answers.find((one) => one.name === 'prune')?.epoch ?? -1 };
    await pruner(ctx(), { requestsSeconds: 400 * day })(hold);
    expect((await t.app.query('SELECT id FROM request')).rows).toEqual([{ id: ids[0] }]);
    const { rows } = await t.app.query<{ n: number }>("SELECT (line::json->'data'->>'requests')::int AS n FROM audit_event ORDER BY position");
    expect(rows.map((row) => row.n)).toEqual([200, 200, 53]);
    await expect(pruner(ctx(), { requestsSeconds: 400 * day })({ ...hold, epoch: hold.epoch - 1 })).rejects.toBeInstanceOf(HoldLost);
  } finally {
    await client.query('ROLLBACK');
    client.release();
  }
  expect(await pruneHistory(ctx(), 400 * day)).toMatchObject({ requests: 1 });
});

test('without a retention in the config requests stay; keys and messages that are of no use go all the same', async () => {
  await over(500);
  const answers = await askDuties(openDb(t.app), { holder: 'a', wanted: ['prune'], done: [], lifeMs: 60_000 });
  await pruner(ctx(), {})({ name: 'prune', holder: 'a', epoch: answers.find((one) => one.name === 'prune')?.epoch ?? -1 });
  expect(await counts()).toMatchObject({ request: 1, lease: 1, decision: 1, idempotency: 0, notice: 0, delivery: 0 });
});
