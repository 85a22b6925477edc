/** The beginning of the log is deleted, on a real database: only when it is archived, sealed and over, and everything stays provable afterwards. */
import { createHash } from 'node:crypto';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { evidenceFor, exportLog, proofFor } from '../../src/audit/export.ts';
import { exportCsv } from '../../src/audit/export-csv.ts';
import { verifyEvidence, verifyExport } from '../../src/audit/verify.ts';
import { carryOutPrune, entriesAtOnce, type PruneOptions, PruneRefused, planPrune } from '../../src/commands/prune-log.ts';
import { openDb } from '../../src/db/pool.ts';
import type { AuditEvent } from '../../src/domain/audit-event.ts';
import { newId } from '../../src/domain/ids.ts';
import { insertEvents, sealAll, sealerFor, someEvents, testKey } from '../audit/events.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';

let t: TestDatabase;
let folder: string;
let directory: string;
const log = pino({ level: 'silent' });

beforeAll(async () => {
  t = await testDatabase();
});
afterAll(async () => {
  await t.close();
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-prune-test-'));
  directory = join(folder, 'checkpoints');
});
afterEach(async () => {
  await t.superuser.query('TRUNCATE audit_event, audit_pending, audit_leaf, audit_node, audit_checkpoint, audit_pruned RESTART IDENTITY CASCADE');
  await rm(folder, { recursive: true, force: true });
});

const seal = () => sealAll(sealerFor({ pool: t.app, directory }));
const count = async (table: string): Promise<number> => (await t.superuser.query<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.n ?? -1;
const owner = () => openDb(t.owner);
const app = () => openDb(t.app);

async function exportTo(name: string, from = 0): Promise<string> {
  let text = '';
  for await (const chunk of exportLog(app(), { from })) text += chunk;
  await writeFile(join(folder, name), text);
  return join(folder, name);
}
async function allOf(chunks: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return all;
}
/** A moment that is later than all that was written, and earlier than all that will be. */
async function mark(): Promise<Date> {
  await sleep(5);
  const now = new Date();
  await sleep(5);
  return now;
}
const plan = (exportFile: string, before: Date, more: Partial<PruneOptions> = {}) =>
  planPrune(owner(), { exportFile, checkpoints: directory, key: testKey.verifierKey, before, ...more });
const prune = async (exportFile: string, before: Date): Promise<void> => carryOutPrune(owner(), log, await plan(exportFile, before));
const refusedWith = async (work: Promise<unknown>): Promise<string> => {
  const error = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(PruneRefused);
  return (error as PruneRefused).code;
};
const verify = (file: string) => verifyExport({ log: file, checkpoints: directory, key: testKey.verifierKey });

describe('a log that was pruned', () => {
  let archive: string;
  beforeEach(async () => {
    await insertEvents(t.app, someEvents(300));
    await seal();
    await insertEvents(t.app, someEvents(7));
    const before = await mark();
    await insertEvents(t.app, someEvents(5));
    await seal();
    archive = await exportTo('archive.jsonl');
    await prune(archive, before);
  });

  test('has lost the text of what was older, and keeps every hash and checkpoint; the witness says what, and where it is', async () => {
    expect([await count('audit_leaf'), await count('audit_checkpoint'), await count('audit_node')]).toEqual([312, 2, 1]);
    const { rows } = await t.app.query<{ line: string }>('SELECT line FROM audit_event ORDER BY position');
    expect(rows).toHaveLength(6);
    const sha256 = createHash('sha256')
      .update(await readFile(archive))
      .digest('hex');
    expect(JSON.parse(rows.at(-1)?.line ?? '')).toMatchObject({
      type: 'log.pruned',
      actor: { system: 'audit-prune' },
      data: { from: 0, to: 307, exportSha256: sha256, checkpoint: 312 },
    });
  });
  test('is sealed on, consistently with the checkpoints from before, and the archive with what is here is the whole log', async () => {
    const published = await readFile(join(directory, 'checkpoints.jsonl'), 'utf8');
    await insertEvents(t.app, someEvents(4));
    await seal();
    expect((await readFile(join(directory, 'checkpoints.jsonl'), 'utf8')).startsWith(published)).toBe(true);
    const rest = await exportTo('rest.jsonl', 307);
    const whole = join(folder, 'whole.jsonl');
    const archived = (await readFile(archive, 'utf8')).split('\n').slice(0, 307);
    await writeFile(whole, `${archived.join('\n')}\n`);
    await appendFile(whole, await readFile(rest));
    expect(await verify(whole)).toMatchObject({ ok: true, entries: 317, checkpoints: 3 });
    // What is here alone is not the whole log, and cannot pass for it.
    expect(await verify(rest)).toMatchObject({ ok: false });
  });
  test('is never exported with a gap, and what is gone is said to be pruned', async () => {
    const chunks = exportLog(app());
    await expect(chunks.next()).rejects.toMatchObject({ code: 'pruned', message: expect.stringContaining('entries before 307 were pruned') as string });
    await expect(allOf(exportCsv(app(), { from: 306 }))).rejects.toMatchObject({ code: 'pruned' });
    expect(await allOf(exportCsv(app(), { from: 307 }))).toHaveLength(2);
    await expect(proofFor(app(), 306)).rejects.toMatchObject({ code: 'pruned' });
    await expect(proofFor(app(), 9_999)).rejects.toMatchObject({ code: 'not_found' });
    expect(await proofFor(app(), 307)).toMatchObject({ index: 307 });
  });
  test('is pruned further with a newer export of the whole; with the old one there is nothing more', async () => {
    await insertEvents(t.app, someEvents(3));
    const later = await mark();
    await seal();
    const whole = join(folder, 'whole.jsonl');
    await writeFile(whole, `${(await readFile(archive, 'utf8')).split('\n').slice(0, 307).join('\n')}\n`);
    await appendFile(whole, await readFile(await exportTo('rest.jsonl', 307)));
    expect(await plan(archive, later)).toMatchObject({ from: 307, to: 312 });
    await prune(whole, later);
    expect((await t.app.query('SELECT first_index, end_index FROM audit_pruned ORDER BY 1')).rows).toEqual([
      { first_index: 0, end_index: 307 },
      { first_index: 307, end_index: 316 },
    ]);
    expect(await refusedWith(plan(archive, later))).toBe('nothing_to_prune');
  });
});

describe('refused, with nothing deleted', () => {
  let archive: string;
  let before: Date;
  beforeEach(async () => {
    await insertEvents(t.app, someEvents(20));
    before = await mark();
    await insertEvents(t.app, someEvents(5));
    await seal();
    archive = await exportTo('archive.jsonl');
  });
  afterEach(async () => {
    expect([await count('audit_event'), await count('audit_pruned')]).toEqual([expect.any(Number), 0]);
    expect(await count('audit_event')).toBeGreaterThanOrEqual(25);
  });

  test('an export of which one byte was changed, or a line taken out', async () => {
    const lines = (await readFile(archive, 'utf8')).split('\n');
    await writeFile(archive, lines.with(3, (lines[3] as string).replace('léa', 'lea')).join('\n'));
    expect(await refusedWith(plan(archive, before))).toBe('export_not_verified');
    await writeFile(archive, lines.toSpliced(3, 1).join('\n'));
    expect(await refusedWith(plan(archive, before))).toMatch(/export_not_verified|not_sealed/);
  });
  test('one that only begins later', async () => {
    const lines = (await readFile(archive, 'utf8')).split('\n');
    await writeFile(archive, lines.slice(5).join('\n'));
    expect(await refusedWith(plan(archive, before))).toMatch(/export_not_verified|not_sealed/);
  });
  test('a good one, of another database than this', async () => {
    await t.superuser.query("UPDATE audit_leaf SET hash = sha256('x') WHERE index = 7");
    expect(await refusedWith(plan(archive, before))).toBe('export_differs');
    await t.superuser.query('DELETE FROM audit_leaf WHERE index = 7');
    expect(await refusedWith(plan(archive, before))).toBe('export_differs');
  });
  test('one under a checkpoint that is signed by another key', async () => {
    const { generateSigningKey } = await import('../../src/audit/checkpoint.ts');
    const key = generateSigningKey('halligan.test/audit').verifierKey;
    expect(await refusedWith(plan(archive, before, { key }))).toBe('export_not_verified');
  });
  test('one that no published checkpoint is over', async () => {
    const short = join(folder, 'short.jsonl');
    await writeFile(short, `${(await readFile(archive, 'utf8')).split('\n').slice(0, 10).join('\n')}\n`);
    expect(await refusedWith(plan(short, before))).toBe('not_sealed');
  });
  test('entries that are not older; what is not sealed is never among them', async () => {
    expect(await refusedWith(plan(archive, new Date(0)))).toBe('nothing_to_prune');
    await insertEvents(t.app, someEvents(3));
    expect(await plan(archive, new Date())).toMatchObject({ from: 0, to: 25 });
  });
  test('the application’s role, which may not', async () => {
    const made = await plan(archive, before);
    await expect(carryOutPrune(app(), log, made)).rejects.toMatchObject({ code: '42501' });
  });
  test('two at once: one prunes, the other is told', async () => {
    const made = await plan(archive, before);
    await carryOutPrune(owner(), log, made);
    expect(await refusedWith(carryOutPrune(owner(), log, made))).toBe('pruned_meanwhile');
    await t.superuser.query('DELETE FROM audit_pruned');
    await insertEvents(t.app, someEvents(30));
  });
});

describe('what is about a request', () => {
  const person = { id: newId('person') };
  const [request, grant] = [newId('request'), newId('grant')];
  const about = (type: AuditEvent['type']): AuditEvent => ({ type, actor: { system: 'x' }, request, ...(type.startsWith('grant') ? { grant } : {}) });
  beforeAll(async () => {
    await t.superuser.query("INSERT INTO person (id, issuer, subject, name, groups, groups_read_at) VALUES ($1, 'i', 's', 'n', '{}', now())", [person.id]);
    await t.superuser.query(
      `INSERT INTO request (id, person_id, state, entitlements, duration_seconds, reason, break_glass, policy, policy_hash, approver_groups, approver_subjects, reviewer_groups, reviewer_subjects, lapses_at)
       VALUES ($1, $2, 'pending', '{a}', 60, 'x', false, '[]', 'x', '{}', '{}', '{}', '{}', now())`,
      [request, person.id],
    );
  });

  test('is kept while it waits, is open, or owes a review; the words say before when to prune. After that a bundle says that it is not whole', async () => {
    await insertEvents(t.app, someEvents(2));
    const early = await mark();
    await insertEvents(t.app, [about('request.submitted'), about('request.approved'), about('grant.opened')]);
    const before = await mark();
    await insertEvents(t.app, [about('grant.ended'), ...someEvents(2)]);
    await seal();
    const archive = await exportTo('archive.jsonl');
    const blocked = async (): Promise<void> => {
      const error = await plan(archive, before).catch((thrown: unknown) => thrown as PruneRefused);
      expect(error).toMatchObject({ code: 'unfinished', message: expect.stringMatching(new RegExp(`Entry 2 is about ${request}.*--before 20`)) as string });
    };
    await blocked();
    expect(await plan(archive, early)).toMatchObject({ to: 2 });
    await t.superuser.query("UPDATE request SET state = 'approved', decided_at = now() WHERE id = $1", [request]);
    await t.superuser.query(
      "INSERT INTO access_grant (id, request_id, person_id, state, break_glass, starts_at, ends_at) VALUES ($1, $2, $3, 'active', true, now(), now() + interval '1 hour')",
      [grant, request, person.id],
    );
    await blocked();
    await t.superuser.query("UPDATE access_grant SET state = 'ended', end_reason = 'expired', ended_at = now() WHERE id = $1", [grant]);
    await t.superuser.query("INSERT INTO review (id, grant_id, person_id, state, due_at) VALUES ($1, $2, $3, 'due', now())", [
      newId('review'),
      grant,
      person.id,
    ]);
    await blocked();
    const whole = await evidenceFor(app(), grant);
    expect(verifyEvidence(whole, testKey.verifierKey)).toMatchObject({ ok: true, entries: 4 });
    await t.superuser.query('DELETE FROM review WHERE grant_id = $1', [grant]);
    await prune(archive, before);
    await expect(evidenceFor(app(), grant)).rejects.toMatchObject({ code: 'pruned', message: expect.stringContaining('no whole evidence') as string });
  });
});

test('many entries go in bounded transactions, each with a witness of its own, and it can be cut short and taken up', async () => {
  await t.superuser.query(`INSERT INTO audit_event (id, at, type, entitlements, line)
    SELECT 'evt_' || lpad(to_hex(n), 32, '0'), '2026-01-01', 'login.succeeded', '{}',
      '{"at":"2026-01-01T00:00:00.000Z","id":"evt_' || lpad(to_hex(n), 32, '0') || E'","note":"\u2028","n":' || n || '}' FROM generate_series(1, ${entriesAtOnce * 2 + 500}) n`);
  await seal();
  const archive = await exportTo('archive.jsonl');
  const made = await plan(archive, new Date('2026-06-01T00:00:00Z'));
  expect(made).toMatchObject({ from: 0, to: entriesAtOnce * 2 + 500, firstAt: '2026-01-01T00:00:00.000Z' });
  const cutShort = carryOutPrune(owner(), log, made, (_, entries) => {
    if (entries === entriesAtOnce) throw new Error('the machine is switched off');
  });
  await expect(cutShort).rejects.toThrow('switched off');
  expect(await count('audit_event')).toBe(entriesAtOnce + 500 + 1);
  await prune(archive, new Date('2026-06-01T00:00:00Z'));
  const { rows } = await t.app.query<{ data: { from: number; to: number } }>("SELECT line::json->'data' AS data FROM audit_event ORDER BY position");
  expect(rows.map(({ data }) => [data.from, data.to])).toEqual([
    [0, entriesAtOnce],
    [entriesAtOnce, entriesAtOnce * 2],
    [entriesAtOnce * 2, entriesAtOnce * 2 + 500],
  ]);
});
