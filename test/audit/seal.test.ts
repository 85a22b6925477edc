/** The sequencer against a real database and a real directory: order, gaps, crashes, tampering by a superuser, and what it refuses to sign. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { checkpointBody, generateSigningKey, signerFrom } from '../../src/audit/checkpoint.ts';
import { exportCheckpoints, exportLog } from '../../src/audit/export.ts';
import { type SealFailpoint, SealRefused, sealFailpoints } from '../../src/audit/seal.ts';
import { type VerifyResult, verifyExport } from '../../src/audit/verify.ts';
import { openDb } from '../../src/db/pool.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';
import { insertEvents, sealAll, sealerFor, someEvents, testKey } from './events.ts';

let t: TestDatabase;
let folder: string;
let directory: string;

beforeAll(async () => {
  t = await testDatabase();
});
afterAll(async () => {
  await t.close();
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-seal-'));
  directory = join(folder, 'checkpoints');
});
afterEach(async () => {
  await t.superuser.query('TRUNCATE audit_event, audit_pending, audit_leaf, audit_node, audit_checkpoint RESTART IDENTITY CASCADE');
  await rm(folder, { recursive: true, force: true });
});

const newSealer = (more: Partial<Parameters<typeof sealerFor>[0]> = {}) => sealerFor({ pool: t.app, directory, ...more });
const text = (name: string): Promise<string> => readFile(join(directory, name), 'utf8');
const count = async (table: string): Promise<number> => (await t.superuser.query<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.n ?? -1;

/** Exports the log through the application's role and verifies it against the published directory. */
async function verifyPublished(): Promise<VerifyResult> {
  let log = '';
  for await (const chunk of exportLog(openDb(t.app))) log += chunk;
  const path = join(folder, 'export.jsonl');
  await writeFile(path, log);
  return await verifyExport({ log: path, checkpoints: directory, key: testKey.verifierKey });
}

async function refusal(work: Promise<unknown>): Promise<SealRefused> {
  const error = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(SealRefused);
  return error as SealRefused;
}

/** Undoes what protects rows from a superuser: nothing does. Foreign keys are switched off for the statement. */
async function tamper(...statements: string[]): Promise<void> {
  const client = await t.superuser.connect();
  try {
    await client.query('SET session_replication_role = replica');
    for (const statement of statements) await client.query(statement);
    await client.query('SET session_replication_role = DEFAULT');
  } finally {
    client.release();
  }
}

describe('sealing', () => {
  test('gives events their index in the order of their positions, signs, publishes, and then has nothing to do', async () => {
    const sealer = newSealer();
    expect(await sealer.sealOnce()).toBeNull();
    const ids = await insertEvents(t.app, someEvents(5));
    expect(await sealer.sealOnce()).toEqual({ sealed: 5, size: 5 });
    expect(await sealer.sealOnce()).toBeNull();
    const { rows } = await t.app.query<{ index: number; event_id: string }>('SELECT index, event_id FROM audit_leaf ORDER BY index');
    expect(rows).toEqual(ids.map((event_id, index) => ({ index, event_id })));
    expect(await count('audit_pending')).toBe(0);
    expect(sealer.status()).toMatchObject({ size: 5, publishedSize: 5, refused: null, signedAt: expect.any(Date) as Date });
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect(await text('latest')).toMatch(/^halligan\.test\/audit\n5\n/);
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 5, checkpoints: 1 });
    expect(sealer.logged).toEqual([]);
    await sealer.close();
  });
  test('goes on over many checkpoints and over stored nodes, and the whole verifies', async () => {
    const sealer = newSealer();
    for (const batch of [1, 254, 1, 1, 300, 256]) {
      await insertEvents(t.app, someEvents(batch));
      expect(await sealer.sealOnce()).toMatchObject({ sealed: batch });
    }
    expect((await t.app.query('SELECT level, index FROM audit_node ORDER BY index')).rows).toEqual([0, 1, 2].map((index) => ({ level: 8, index })));
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 813, checkpoints: 6, headSealedWithinMs: expect.any(Number) as number });
    // The export of the checkpoints is the published file, byte for byte.
    let exported = '';
    for await (const line of exportCheckpoints(openDb(t.app))) exported += line;
    expect(exported).toBe(await text('checkpoints.jsonl'));
  });
  test('takes at most 4,096 at once', async () => {
    await t.superuser.query(`INSERT INTO audit_event (id, at, type, entitlements, line)
      SELECT 'evt_' || lpad(to_hex(n), 32, '0'), now(), 'login.succeeded', '{}', '{"n":' || n || '}' FROM generate_series(1, 4100) n`);
    const sealer = newSealer();
    expect(await sealer.sealOnce()).toEqual({ sealed: 4096, size: 4096 });
    expect(await sealer.sealOnce()).toEqual({ sealed: 4, size: 4100 });
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 4100 });
  });
});

describe('invariant 20: the log is gap-free', () => {
  test('two sealers at once, with writers at work, give every event one index', async () => {
    const sealers = [newSealer(), newSealer(), newSealer()];
    let writing = true;
    const sealing = sealers.map(async (sealer) => {
      while (writing) await sealer.sealOnce();
    });
    for (let round = 0; round < 20; round += 1) await Promise.all([1, 2, 3].map((n) => insertEvents(t.app, someEvents(n))));
    writing = false;
    await Promise.all(sealing);
    await sealAll(newSealer());
    const { rows } = await t.app.query('SELECT count(*) AS n, min(index) AS low, max(index) AS high, count(DISTINCT event_id) AS events FROM audit_leaf');
    expect(rows[0]).toEqual({ n: 120, low: 0, high: 119, events: 120 });
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 120 });
  });
  test('a transaction that is rolled back leaves no gap', async () => {
    await insertEvents(t.app, someEvents(2));
    await expect(
      insertEvents(t.app, [...someEvents(1), { ...(someEvents(1)[0] as ReturnType<typeof someEvents>[0]), type: 'x' as 'login.succeeded' }]),
    ).rejects.toMatchObject({ code: '23514' });
    await insertEvents(t.app, someEvents(2));
    await sealAll(newSealer());
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 4 });
  });
});

describe('invariant 20: a sealer that is killed', () => {
  const kill = async (failpoint: SealFailpoint): Promise<void> => {
    const script = new URL('./seal-child.ts', import.meta.url).pathname;
    const child = spawn(process.execPath, [script, t.appUrl, directory, failpoint], {
      env: { ...process.env, SEAL_CHILD_KEY: testKey.signingKey },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      const [said] = (await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])) as [Buffer | number | null];
      expect(String(said)).toBe(`at ${failpoint}\n`);
    } finally {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    }
  };
  const steps: { failpoint: SealFailpoint; size: number; lines: number }[] = [
    { failpoint: 'seal.signed', size: 2, lines: 1 },
    { failpoint: 'seal.committed', size: 5, lines: 1 },
    { failpoint: 'seal.appended', size: 5, lines: 2 },
    { failpoint: 'seal.published', size: 5, lines: 2 },
  ];
  test('at every failpoint there is', () => {
    expect(steps.map((step) => step.failpoint)).toEqual([...sealFailpoints]);
  });
  test.each(steps)('at $failpoint is made good by the next run', async ({ failpoint, size, lines }) => {
    await insertEvents(t.app, someEvents(2));
    await sealAll(newSealer());
    await insertEvents(t.app, someEvents(3));
    await kill(failpoint);
    const before = await text('checkpoints.jsonl');
    expect(before.trimEnd().split('\n')).toHaveLength(lines);
    expect(await count('audit_leaf')).toBe(size);
    // The dead process's connection may hold the lock for a moment longer.
    const sealer = newSealer();
    const publishedNow = async (): Promise<number> => {
      await sealer.sealOnce();
      return sealer.status().publishedSize;
    };
    await expect.poll(publishedNow, { timeout: 10_000 }).toBe(5);
    const after = await text('checkpoints.jsonl');
    expect(after.startsWith(before)).toBe(true);
    expect(after.trimEnd().split('\n')).toHaveLength(2);
    expect(await text('latest')).toMatch(/^halligan\.test\/audit\n5\n/);
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 5, checkpoints: 2 });
  });
  test('in the middle of a line leaves a torn one, which is cut off before the next is written', async () => {
    await insertEvents(t.app, someEvents(3));
    await sealAll(newSealer());
    const whole = await text('checkpoints.jsonl');
    await insertEvents(t.app, someEvents(2));
    await sealAll(newSealer());
    const both = await text('checkpoints.jsonl');
    await writeFile(join(directory, 'checkpoints.jsonl'), both.slice(0, whole.length + 40));
    await writeFile(join(directory, 'latest'), (JSON.parse(whole) as { note: string }).note);
    const sealer = newSealer();
    expect(await sealer.sealOnce()).toBeNull();
    expect(sealer.status()).toMatchObject({ size: 5, publishedSize: 5 });
    expect(await text('checkpoints.jsonl')).toBe(both);
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 5, checkpoints: 2 });
  });
});

describe('invariant 20: the application’s role', () => {
  test.each([
    'UPDATE audit_event SET type = type',
    'DELETE FROM audit_event',
    'TRUNCATE audit_event CASCADE',
    'UPDATE audit_leaf SET hash = hash',
    'DELETE FROM audit_leaf',
    'TRUNCATE audit_leaf',
    'UPDATE audit_node SET hash = hash',
    'DELETE FROM audit_node',
    'UPDATE audit_checkpoint SET note = note',
    'DELETE FROM audit_checkpoint',
    'TRUNCATE audit_checkpoint',
    'UPDATE audit_pending SET position = 0',
  ])('may not %s', async (statement) => {
    await expect(t.app.query(statement)).rejects.toMatchObject({ code: '42501' });
  });
});

describe('invariant 20: a superuser below the last checkpoint', () => {
  beforeEach(async () => {
    const sealer = newSealer();
    for (const batch of [3, 300, 20]) {
      await insertEvents(t.app, someEvents(batch));
      await sealAll(sealer);
    }
  });
  const eventAt = (index: number): string => `(SELECT event_id FROM audit_leaf WHERE index = ${index})`;
  test('who edits an event is found, at that event', async () => {
    await tamper(`UPDATE audit_event SET line = replace(line, '"step":39', '"step":93') WHERE id = ${eventAt(42)}`);
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'entry', index: 42 });
  });
  test('who edits an event, its leaf, its checkpoint and its inner node is found too', async () => {
    await tamper(
      `UPDATE audit_event SET line = replace(line, '"step":39', '"step":93') WHERE id = ${eventAt(42)}`,
      `UPDATE audit_leaf SET hash = sha256('\\x00'::bytea || convert_to((SELECT line FROM audit_event WHERE id = event_id), 'UTF8')) WHERE index = 42`,
      `UPDATE audit_node SET hash = sha256('x')`,
      `UPDATE audit_checkpoint SET root = sha256('y') WHERE size = 323`,
    );
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'entry', index: 42 });
  });
  test('who deletes an event is found', async () => {
    await tamper(`DELETE FROM audit_event WHERE id = ${eventAt(7)}`);
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'entry', index: 7 });
  });
  test('who deletes an event and closes the gap is found', async () => {
    await tamper(
      `DELETE FROM audit_event WHERE id = ${eventAt(7)}`,
      'DELETE FROM audit_leaf WHERE index = 7',
      'UPDATE audit_leaf SET index = index + 100000 WHERE index > 7',
      'UPDATE audit_leaf SET index = index - 100001 WHERE index >= 100000',
    );
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'entry', index: 7 });
  });
  test('who changes the order is found', async () => {
    await tamper(
      'UPDATE audit_leaf SET index = CASE index WHEN 10 THEN 11 ELSE 10 END + 100000 WHERE index IN (10, 11)',
      'UPDATE audit_leaf SET index = index - 100000 WHERE index >= 100000',
    );
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'entry', index: 10, message: expect.stringContaining('changed places') as string });
  });
  test('who puts an event in is found', async () => {
    await tamper(
      'UPDATE audit_leaf SET index = index + 100000 WHERE index >= 200',
      'UPDATE audit_leaf SET index = index - 99999 WHERE index >= 100000',
      `INSERT INTO audit_event (id, at, type, entitlements, line) VALUES ('evt_${'0'.repeat(32)}', now(), 'login.succeeded', '{}', '{}')`,
      `INSERT INTO audit_leaf VALUES (200, 'evt_${'0'.repeat(32)}', sha256('z'))`,
    );
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'entry', index: 200 });
  });
  test('who cuts the end off is found, and nothing more is signed', async () => {
    await tamper('DELETE FROM audit_checkpoint WHERE size > 303', 'DELETE FROM audit_leaf WHERE index >= 303');
    expect(await verifyPublished()).toMatchObject({ ok: false, problem: 'truncated', index: 303 });
    await insertEvents(t.app, someEvents(30));
    const sealer = newSealer();
    expect(await refusal(sealer.sealOnce())).toMatchObject({ code: 'published_ahead' });
    expect(sealer.status().refused).toMatchObject({
      code: 'published_ahead',
      message: expect.stringContaining('Published: 323 entries; database: 303') as string,
    });
    expect(sealer.logged).toEqual([{ level: 'error', facts: { code: 'published_ahead' }, message: expect.stringContaining('Nothing is signed') as string }]);
    await refusal(sealer.sealOnce());
    expect(sealer.logged).toHaveLength(1);
    expect(await count('audit_pending')).toBe(30);
  });
});

describe('invariant 20: the signer never signs two inconsistent trees', () => {
  const published = async (batch: number): Promise<void> => {
    await insertEvents(t.app, someEvents(batch));
    await sealAll(newSealer());
  };
  const refuses = async (code: string): Promise<void> => {
    await insertEvents(t.app, someEvents(1));
    const [checkpoints, latest, signed] = [await text('checkpoints.jsonl'), await text('latest'), await count('audit_checkpoint')];
    expect(await refusal(newSealer().sealOnce())).toMatchObject({ code });
    expect(await count('audit_checkpoint')).toBe(signed);
    expect(await count('audit_pending')).toBeGreaterThan(0);
    expect([await text('checkpoints.jsonl'), await text('latest')]).toEqual([checkpoints, latest]);
  };
  test('a tree begun again, as large as the published one', async () => {
    await published(5);
    await tamper('TRUNCATE audit_event, audit_pending, audit_leaf, audit_node, audit_checkpoint');
    const elsewhere = join(folder, 'elsewhere');
    await insertEvents(t.app, someEvents(5));
    await sealAll(newSealer({ directory: elsewhere }));
    await refuses('published_differs');
  });
  test('a tree begun again, larger than the published one', async () => {
    await published(5);
    await tamper('TRUNCATE audit_event, audit_pending, audit_leaf, audit_node, audit_checkpoint');
    await insertEvents(t.app, someEvents(9));
    await sealAll(newSealer({ directory: join(folder, 'elsewhere') }));
    await refuses('published_differs');
  });
  test('an empty database under a published tree', async () => {
    await published(5);
    await tamper('TRUNCATE audit_event, audit_pending, audit_leaf, audit_node, audit_checkpoint');
    await refuses('published_ahead');
  });
  test('leaves changed since they were signed', async () => {
    await published(5);
    await tamper(`UPDATE audit_leaf SET hash = sha256('x') WHERE index = 3`);
    await refuses('tree_damaged');
  });
  test('leaves or nodes taken away', async () => {
    await published(300);
    await tamper('DELETE FROM audit_node');
    await refuses('tree_damaged');
    await tamper('DELETE FROM audit_leaf WHERE index = 299');
    await refuses('tree_damaged');
  });
  test('a checkpoint taken away, or signed by somebody else', async () => {
    await published(5);
    await insertEvents(t.app, someEvents(2));
    await sealAll(newSealer());
    const stranger = signerFrom(generateSigningKey('halligan.test/audit').signingKey);
    const { rows } = await t.superuser.query<{ root: Buffer }>('SELECT root FROM audit_checkpoint WHERE size = 7');
    const note = stranger.sign(checkpointBody({ origin: stranger.name, size: 7, root: rows[0]?.root as Buffer }));
    await t.superuser.query('UPDATE audit_checkpoint SET note = $1 WHERE size = 7', [note]);
    await refuses('tree_damaged');
    await tamper('DELETE FROM audit_checkpoint WHERE size = 7');
    await refuses('published_ahead');
  });
  test('what was published last is not ours, or is not a checkpoint', async () => {
    await published(5);
    const line = await text('checkpoints.jsonl');
    const stranger = signerFrom(generateSigningKey('halligan.test/audit').signingKey);
    const { note } = JSON.parse(line) as { note: string };
    const forged = stranger.sign(note.slice(0, note.indexOf('\n\n') + 1));
    await writeFile(join(directory, 'checkpoints.jsonl'), `${JSON.stringify({ note: forged, leaves: [] })}\n`);
    await refuses('published_foreign');
    for (const bad of ['{}\n', 'nonsense\n', 'null\n']) {
      await writeFile(join(directory, 'checkpoints.jsonl'), bad);
      await refuses('published_unreadable');
    }
    await writeFile(join(directory, 'checkpoints.jsonl'), line);
    await writeFile(join(directory, 'latest'), 'nonsense');
    await refuses('published_foreign');
    await writeFile(join(directory, 'latest'), note);
    expect(await newSealer().sealOnce()).toMatchObject({ size: 10 });
  });
  test('a checkpoint that was signed, not published, and changed in between', async () => {
    await published(5);
    await insertEvents(t.app, someEvents(2));
    const dead = newSealer({ failpoint: (name) => (name === 'seal.committed' ? Promise.reject(new Error('the process ends here')) : undefined) });
    await expect(dead.sealOnce()).rejects.toThrow('the process ends here');
    await tamper(`UPDATE audit_leaf SET hash = sha256('x') WHERE index = 6`);
    expect(await refusal(newSealer().sealOnce())).toMatchObject({ code: 'tree_damaged' });
    expect((await text('checkpoints.jsonl')).trimEnd().split('\n')).toHaveLength(1);
  });
  test('an event that waits and is gone', async () => {
    await published(5);
    const [id] = await insertEvents(t.app, someEvents(1));
    await tamper(`DELETE FROM audit_event WHERE id = '${id}'`);
    await refuses('event_missing');
  });
});

describe('the directory', () => {
  test('that is not one, or cannot be made, is refused in words', async () => {
    await insertEvents(t.app, someEvents(1));
    await writeFile(join(folder, 'file'), '');
    for (const bad of [join(folder, 'file'), join(folder, 'file', 'below'), '/proc/halligan']) {
      const sealer = newSealer({ directory: bad });
      expect(await refusal(sealer.sealOnce())).toMatchObject({ code: 'directory_unwritable', message: expect.stringContaining(bad) as string });
      expect(sealer.status().refused?.code).toBe('directory_unwritable');
    }
    expect(await count('audit_checkpoint')).toBe(0);
  });
  test('that cannot be written to is refused in words, and used again when it can', async () => {
    await insertEvents(t.app, someEvents(1));
    const sealer = newSealer();
    await sealAll(sealer);
    await insertEvents(t.app, someEvents(1));
    if (process.getuid?.() === 0) {
      // Modes do not bind root: a directory where the file should be does.
      await rm(join(directory, 'latest'));
      await rm(join(directory, 'checkpoints.jsonl'));
      await mkdir(join(directory, 'checkpoints.jsonl'));
    } else await chmod(directory, 0o500);
    expect(await refusal(sealer.sealOnce())).toMatchObject({ code: 'directory_unwritable' });
    if (process.getuid?.() === 0) await rm(join(directory, 'checkpoints.jsonl'), { recursive: true });
    else await chmod(directory, 0o700);
    await sealAll(sealer);
    expect(sealer.status()).toMatchObject({ size: 2, publishedSize: 2, refused: null });
    expect(await verifyPublished()).toMatchObject({ ok: true, entries: 2 });
  });
  test('that was lost is written again from the beginning, out of notes that were signed before', async () => {
    for (const batch of [2, 3]) {
      await insertEvents(t.app, someEvents(batch));
      await sealAll(newSealer());
    }
    const before = await text('checkpoints.jsonl');
    await rm(directory, { recursive: true });
    const sealer = newSealer();
    expect(await sealer.sealOnce()).toBeNull();
    expect(await text('checkpoints.jsonl')).toBe(before);
    expect(sealer.logged).toMatchObject([{ level: 'warn', message: expect.stringContaining('from the beginning') as string }]);
  });
});
