/** Exports, proofs and evidence bundles from a real database, each checked by the independent verifier. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type EvidenceBundle, type ExportRange, evidenceFor, exportLog, proofFor } from '../../src/audit/export.ts';
import { csvCell, exportCsv } from '../../src/audit/export-csv.ts';
import { verifyEvidence, verifyExport } from '../../src/audit/verify.ts';
import { openNote, readKey } from '../../src/audit/verify-note.ts';
import { hashOfLine, inclusionHolds } from '../../src/audit/verify-tree.ts';
import { type Db, openDb } from '../../src/db/pool.ts';
import type { AuditEvent } from '../../src/domain/audit-event.ts';
import { newId } from '../../src/domain/ids.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';
import { insertEvents, sealAll, sealerFor, someEvents, testKey } from './events.ts';

let t: TestDatabase;
let db: Db;
let folder: string;
const [person, request, otherRequest, grant] = [newId('person'), newId('request'), newId('request'), newId('grant')];
const actor = { id: person, name: '=cmd|calc', via: 'web' };

const story: AuditEvent[] = [
  { type: 'request.submitted', actor, request, incident: 'INC-1', entitlements: ['orders-readonly'], data: { reason: '+1\r\n\u001b[31mred, "quoted"' } },
  { type: 'request.submitted', actor, request: otherRequest },
  { type: 'grant.opened', actor: { system: 'commands' }, person, request, grant, entitlements: ['orders-readonly', 'orders-admin'] },
  { type: 'grant.expired', actor: { system: 'expire-grants' }, person, request, grant },
];

beforeAll(async () => {
  t = await testDatabase();
  db = openDb(t.app);
  folder = await mkdtemp(join(tmpdir(), 'halligan-export-'));
  // Only the grant's row matters here; its person and request are left out, with foreign keys switched off.
  const client = await t.superuser.connect();
  await client.query('SET session_replication_role = replica');
  await client.query(
    `INSERT INTO access_grant (id, request_id, person_id, state, break_glass, starts_at, ends_at)
     VALUES ($1, $2, $3, 'active', false, now(), now() + interval '1 minute')`,
    [grant, request, person],
  );
  await client.query('SET session_replication_role = DEFAULT');
  client.release();
});
afterAll(async () => {
  await t.close();
  await rm(folder, { recursive: true, force: true });
});

async function collected(chunks: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const chunk of chunks) text += chunk;
  return text;
}
const exported = async (range: ExportRange = {}): Promise<string[]> => (await collected(exportLog(db, range))).split('\n').slice(0, -1);

test('while nothing is sealed there is an empty export and no proof', async () => {
  await insertEvents(t.app, someEvents(1));
  expect(await exported()).toEqual([]);
  await expect(proofFor(db, 0)).rejects.toMatchObject({ code: 'not_found' });
  await expect(evidenceFor(db, grant)).rejects.toMatchObject({ code: 'not_found' });
});

describe('a sealed log', () => {
  let ids: string[];
  beforeAll(async () => {
    const sealer = sealerFor({ pool: t.app, directory: join(folder, 'checkpoints') });
    await insertEvents(t.app, someEvents(300));
    await sealAll(sealer);
    ids = await insertEvents(t.app, story);
    await sealAll(sealer);
    // One event of the grant without an index yet.
    await insertEvents(t.app, [{ type: 'grant.ended', actor: { system: 'revoke-lease' }, person, request, grant }]);
  });

  test('is exported whole and in order, without what is not sealed', async () => {
    const lines = await exported();
    expect(lines).toHaveLength(305);
    const log = join(folder, 'log.jsonl');
    await writeFile(log, lines.map((line) => `${line}\n`).join(''));
    expect(await verifyExport({ log, checkpoints: join(folder, 'checkpoints'), key: testKey.verifierKey })).toMatchObject({ ok: true, entries: 305 });
  });
  test('is exported by range and by filter', async () => {
    const all = await exported();
    expect(await exported({ from: 100, to: 103 })).toEqual(all.slice(100, 103));
    expect(await exported({ from: 304, to: 9999 })).toEqual(all.slice(304));
    expect(await exported({ filter: { request } })).toEqual([all[301], all[303], all[304]]);
    expect(await exported({ filter: { person } })).toEqual(all.slice(301));
    expect(await exported({ filter: { grant, type: 'grant.expired' } })).toEqual([all[304]]);
    expect(await exported({ filter: { entitlement: 'orders-admin' } })).toEqual([all[303]]);
    expect(await exported({ filter: { incident: 'INC-1' } })).toEqual([all[301]]);
    expect(await exported({ filter: { lease: 'lse_none' } })).toEqual([]);
    expect(await exported({ filter: { since: new Date(Date.now() + 60_000) } })).toEqual([]);
    expect(await exported({ filter: { until: new Date(Date.now() + 60_000) } })).toHaveLength(305);
  });
  test('proves any entry against the newest checkpoint', async () => {
    for (const index of [0, 255, 256, 304]) {
      const answer = await proofFor(db, index);
      const opened = openNote(answer.checkpoint, readKey(testKey.verifierKey));
      const root = 'head' in opened ? opened.head.root : '';
      expect(opened).toMatchObject({ head: { size: 305 } });
      expect(inclusionHolds(index, 305, answer.leafHash, answer.proof, root)).toBe(true);
      expect(inclusionHolds(index + 1, 305, answer.leafHash, answer.proof, root)).toBe(false);
    }
    await expect(proofFor(db, 305)).rejects.toMatchObject({ code: 'not_found' });
    await expect(proofFor(db, -1)).rejects.toMatchObject({ code: 'not_found' });
  });

  describe('evidence for a grant', () => {
    let bundle: EvidenceBundle;
    beforeAll(async () => {
      bundle = JSON.parse(JSON.stringify(await evidenceFor(db, grant))) as EvidenceBundle;
    });
    test('holds the events of the grant and of its request, and verifies', async () => {
      expect(bundle.entries.map((entry) => entry.index)).toEqual([301, 303, 304]);
      expect(bundle.entries.map((entry) => (JSON.parse(entry.line) as { id: string }).id)).toEqual([ids[0], ids[2], ids[3]]);
      expect(verifyEvidence(bundle, testKey.verifierKey)).toEqual({ ok: true, grant, entries: 3, size: 305, unsealed: 1 });
      await expect(evidenceFor(db, newId('grant'))).rejects.toMatchObject({ code: 'not_found' });
    });
    test('invariant 21: any field changed is found', async () => {
      const entry = (change: object, at = 1): object => ({
        ...bundle,
        entries: bundle.entries.map((known, i) => (i === at ? { ...known, ...change } : known)),
      });
      const { line, proof } = bundle.entries[1] as EvidenceBundle['entries'][number];
      const foreign = await proofFor(db, 302);
      const cases: [string, object, object][] = [
        ['an entry’s line', entry({ line: line.replace('grant.opened', 'grant.return') }), { problem: 'inclusion', index: 303 }],
        ['an entry’s line and hash', entry({ line: `${line} `, leafHash: hashOfLine(Buffer.from(`${line} `)) }), { problem: 'inclusion', index: 303 }],
        ['an entry’s hash', entry({ leafHash: '1'.repeat(64) }), { problem: 'inclusion' }],
        ['an entry’s index', entry({ index: 302 }), { problem: 'inclusion', index: 302 }],
        ['an index beyond the tree', entry({ index: 305 }, 2), { problem: 'inclusion', index: 305 }],
        ['a step of a proof', entry({ proof: proof.with(2, '0'.repeat(64)) }), { problem: 'inclusion', index: 303 }],
        ['a step too few', entry({ proof: proof.slice(1) }), { problem: 'inclusion' }],
        ['a step too many', entry({ proof: [...proof, '0'.repeat(64)] }), { problem: 'inclusion' }],
        ['a step that is no hash', entry({ proof: proof.with(0, 'zz') }), { problem: 'inclusion' }],
        ['the order', { ...bundle, entries: bundle.entries.toReversed() }, { problem: 'order' }],
        ['an entry twice', { ...bundle, entries: [bundle.entries[1], bundle.entries[1]] }, { problem: 'order' }],
        ['an entry of another request', { ...bundle, entries: [bundle.entries[0], foreign, bundle.entries[1]] }, { problem: 'foreign-entry', index: 302 }],
        ['the grant', { ...bundle, grant: newId('grant') }, { problem: 'foreign-entry' }],
        ['the checkpoint’s size', { ...bundle, checkpoint: bundle.checkpoint.replace('\n305\n', '\n306\n') }, { problem: 'checkpoint-signature' }],
        ['the checkpoint’s form', { ...bundle, checkpoint: 'x' }, { problem: 'malformed' }],
        ['the version', { ...bundle, v: 2 }, { problem: 'malformed' }],
        ['no entries', { ...bundle, entries: [] }, { problem: 'malformed' }],
        ['entries of another form', { ...bundle, entries: [7] }, { problem: 'malformed' }],
      ];
      for (const [name, changed, expected] of cases) expect(verifyEvidence(changed, testKey.verifierKey), name).toMatchObject({ ok: false, ...expected });
      expect(verifyEvidence(null, testKey.verifierKey)).toMatchObject({ ok: false, problem: 'malformed' });
      expect(verifyEvidence(bundle, 'x')).toMatchObject({ ok: false, problem: 'key' });
    });
  });

  test('as CSV is safe to open in a spreadsheet and in a terminal', async () => {
    const csv = await collected(exportCsv(db, { filter: { request } }));
    const rows = csv.split('\r\n');
    expect(rows[0]).toBe('index,at,type,actor,via,person,request,grant,lease,incident,entitlements,data,id');
    expect(rows).toHaveLength(5);
    expect(rows[1]).toContain(`,request.submitted,${person},web,,${request},,,INC-1,orders-readonly,`);
    expect(rows[2]).toContain(',commands,,');
    expect(rows[2]).toContain(',orders-readonly orders-admin,');
    expect(csv.replaceAll('\r\n', '')).not.toMatch(/\p{Cc}/u);
  });
});

test('an export longer than a page has every line once', async () => {
  await t.superuser.query(`INSERT INTO audit_event (id, at, type, entitlements, line)
    SELECT 'evt_' || lpad(to_hex(n), 32, '0'), now(), 'login.succeeded', '{}', '{"id":"evt","n":' || n || '}' FROM generate_series(1, 10100) n`);
  await sealAll(sealerFor({ pool: t.app, directory: join(folder, 'checkpoints') }));
  const lines = await exported();
  expect(lines).toHaveLength(305 + 1 + 10_100);
  expect(new Set(lines).size).toBe(lines.length);
  let pages = 0;
  for await (const chunk of exportLog(db, { filter: { type: 'login.succeeded' } })) {
    pages += 1;
    expect(chunk.split('\n').length).toBeLessThanOrEqual(5_001);
  }
  expect(pages).toBe(3);
});

test.each([
  ['=1+1', `'=1+1`],
  ['+1', `'+1`],
  ['-1', `'-1`],
  ['@SUM(A1)', `'@SUM(A1)`],
  ['\t=1', `'\\u0009=1`],
  ['\r=1', `'\\u000d=1`],
  ['\n1', `'\\u000a1`],
  ['  =1', `'  =1`],
  ['\u0000=1', `'\\u0000=1`],
  ['＝1', `'＝1`],
  ['a=1', 'a=1'],
  ['2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z'],
  ['a,b', '"a,b"'],
  ['say "hi"', '"say ""hi"""'],
  ['two\r\nlines', 'two\\u000d\\u000alines'],
  ['\u001b[31mred', '\\u001b[31mred'],
  ['\u202egnp.exe', '\\u202egnp.exe'],
  ['', ''],
])('the CSV cell of %j is %j', (text, cell) => {
  expect(csvCell(text).replace(/^"'(.*)"$/, "'$1")).toBe(cell);
});
