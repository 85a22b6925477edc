/** Duties that only one process does: takeover when its holder is killed, stopped or leaves; and that one who slept writes nothing stale. Real processes on a real database. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { exportCheckpoints, exportLog } from '../../src/audit/export.ts';
import { type SealFailpoint, sealFailpoints } from '../../src/audit/seal.ts';
import { verifyExport } from '../../src/audit/verify.ts';
import { openDb } from '../../src/db/pool.ts';
import { askDuties, assertHeld, HoldLost, isHeld, releaseDuties } from '../../src/db/stores/duties.ts';
import { insertEvents, sealAll, sealerFor, someEvents, testKey } from '../audit/events.ts';
import { until } from '../support/house.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';

let t: TestDatabase;
let folder: string;
let directory: string;
const children: Child[] = [];

interface Said {
  readonly at: number;
  readonly taken?: string;
  readonly epoch?: number;
  readonly sealed?: number;
  readonly swept?: number;
  readonly stops?: string;
  readonly ready?: string;
  readonly log?: string;
  readonly refused?: object;
}
interface Child {
  readonly process: ChildProcess;
  readonly said: Said[];
}

beforeAll(async () => {
  t = await testDatabase();
});
afterAll(async () => {
  await t.close();
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-holds-'));
  directory = join(folder, 'checkpoints');
});
afterEach(async () => {
  await Promise.all(children.splice(0).map((child) => kill(child)));
  await t.superuser.query('TRUNCATE audit_event, audit_pending, audit_leaf, audit_node, audit_checkpoint RESTART IDENTITY CASCADE');
  await t.superuser.query('UPDATE duty SET holder = NULL, held_until = NULL');
  await rm(folder, { recursive: true, force: true });
});

async function start(stopAt = '', place = { appUrl: t.appUrl, directory }): Promise<Child> {
  const script = fileURLToPath(new URL('duty-child.ts', import.meta.url));
  const child: Child = {
    process: spawn(process.execPath, [script, place.appUrl, place.directory, stopAt], {
      env: { ...process.env, SEAL_CHILD_KEY: testKey.signingKey },
      stdio: ['pipe', 'pipe', 'inherit'],
    }),
    said: [],
  };
  children.push(child);
  let rest = '';
  child.process.stdout?.on('data', (chunk) => {
    const lines = `${rest}${String(chunk)}`.split('\n');
    rest = lines.pop() ?? '';
    child.said.push(...lines.map((line) => JSON.parse(line) as Said));
  });
  await until('it is ready', () => child.said.some((one) => one.ready), 20_000);
  return child;
}
async function kill({ process: child }: Child): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
const holds = (child: Child, name: string, after = 0): Said | undefined => child.said.find((one) => one.taken === name && one.at >= after);
/** Milliseconds from `since` until the child has the duty. */
const takesOver = async (child: Child, name: string, since: number): Promise<number> => {
  const { at } = await until(`${name} is taken over`, () => holds(child, name, since), 10_000);
  return at - since;
};

describe('one row for each duty, by the clock of the database alone', () => {
  const db = () => openDb(t.app);
  const ask = async (holder: string, more: { done?: string[]; lifeMs?: number; wanted?: string[] } = {}) => {
    const answers = await askDuties(db(), { holder, wanted: ['prune'], done: [], lifeMs: 3_000, ...more });
    return answers.find((one) => one.name === 'prune');
  };
  test('free: taken; mine: extended at the same epoch; another’s: left; run out: taken at the next epoch, also by the same', async () => {
    const first = (await ask('a'))?.epoch ?? 0;
    expect(first).toBeGreaterThan(0);
    expect((await ask('a'))?.epoch).toBe(first);
    expect((await ask('b'))?.epoch).toBeNull();
    await ask('a', { lifeMs: 1 });
    await sleep(20);
    expect((await ask('a'))?.epoch).toBe(first + 1);
    await ask('a', { lifeMs: 1 });
    await sleep(20);
    expect((await ask('b'))?.epoch).toBe(first + 2);
    expect((await ask('a'))?.epoch).toBeNull();
    await releaseDuties(db(), 'a', ['prune']);
    expect((await ask('c'))?.epoch).toBeNull();
    await releaseDuties(db(), 'b', ['prune']);
    expect((await ask('c'))?.epoch).toBe(first + 3);
  });
  test('of fifty who ask at once one gets it, each time that it runs out', async () => {
    for (let round = 0; round < 5; round++) {
      const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => ask(`p${round}-${n}`, { lifeMs: 300 })));
      expect(answers.filter((one) => one?.epoch !== null)).toHaveLength(1);
      await sleep(320);
    }
  });
  test('a run that ended well is known to all; without the hold it is not written', async () => {
    await ask('a', { done: ['prune'] });
    expect((await ask('b', { wanted: [] }))?.doneMsAgo).toBeLessThan(2_000);
    await t.superuser.query("UPDATE duty SET done_at = now() - interval '1 hour' WHERE name = 'prune'");
    await ask('b', { done: ['prune'] });
    expect((await ask('b'))?.doneMsAgo).toBeGreaterThan(3_000_000);
  });
  test('what is written under a hold: refused when it changed hands; nobody can take it before that transaction ends', async () => {
    const epoch = (await ask('a', { lifeMs: 200 }))?.epoch ?? 0;
    const hold = { name: 'prune', holder: 'a', epoch };
    await db()
      .transaction()
      .execute(async (trx) => {
        await assertHeld(trx, hold);
        await sleep(400);
        // It ran out, and its row is held: nobody waits for it, and nobody gets it.
        expect((await ask('b'))?.epoch).toBeNull();
      });
    expect((await ask('b'))?.epoch).toBe(epoch + 1);
    await expect(
      db()
        .transaction()
        .execute((trx) => assertHeld(trx, hold)),
    ).rejects.toBeInstanceOf(HoldLost);
    expect(await isHeld(db(), hold)).toBe(false);
  });
});

describe('takeover', () => {
  test('when its holder is killed, within 5 s; of every duty', async () => {
    const [first, second] = [await start(), await start()];
    for (const name of ['seal-audit', 'expire-grants', 'prune'])
      expect([holds(first, name), holds(second, name)], name).toEqual([expect.anything(), undefined]);
    const since = Date.now();
    await kill(first);
    const took = await Promise.all(['seal-audit', 'expire-grants', 'prune'].map((name) => takesOver(second, name, since)));
    console.log(`killed: followed after ${took.join(', ')} ms`);
    expect(Math.max(...took)).toBeLessThan(5_000);
  });
  test('when its holder is stopped, within 5 s; it wakes and does nothing under the old epoch', async () => {
    const [first, second] = [await start(), await start()];
    const since = Date.now();
    first.process.kill('SIGSTOP');
    const took = await takesOver(second, 'expire-grants', since);
    console.log(`stopped: followed after ${took} ms`);
    expect(took).toBeLessThan(5_000);
    await sleep(7_000);
    const woken = Date.now();
    first.process.kill('SIGCONT');
    await sleep(3_000);
    // A line that was being written when it was stopped may come out late; none is newer than the wake.
    expect(first.said.filter((one) => one.at > woken && (one.swept !== undefined || one.sealed !== undefined))).toEqual([]);
    expect(
      second.said.filter((one) => one.swept !== undefined).every((one) => one.swept === second.said.find((other) => other.taken === 'expire-grants')?.epoch),
    ).toBe(true);
  });
  test('when its holder leaves in good order, at once', async () => {
    const [first, second] = [await start(), await start()];
    const since = Date.now();
    first.process.kill('SIGTERM');
    const took = await takesOver(second, 'seal-audit', since);
    console.log(`left: followed after ${took} ms`);
    // The next question of the other one, a second later at most.
    expect(took).toBeLessThan(1_600);
  });
});

/** All that one run of the story below has for itself. */
async function ownPlace() {
  const [database, own] = [await testDatabase(), await mkdtemp(join(tmpdir(), 'halligan-sleeper-'))];
  const close = async (): Promise<void> => {
    await database.close();
    await rm(own, { recursive: true, force: true });
  };
  return { database, appUrl: database.appUrl, own, directory: join(own, 'checkpoints'), close };
}

describe('one who sleeps at a step of sealing', () => {
  const sleepsAt = async (at: SealFailpoint): Promise<void> => {
    const place = await ownPlace();
    const { app } = place.database;
    const text = (name: string): Promise<string> => readFile(join(place.directory, name), 'utf8');
    const sizeOfLatest = async (): Promise<number> => Number((await text('latest')).split('\n')[1]);
    const reached = (size: number) => until(`${at}: ${size} entries are published`, async () => (await sizeOfLatest()) === size, 10_000);
    await insertEvents(app, someEvents(3));
    await sealAll(sealerFor({ pool: app, directory: place.directory }));
    const sleeper = await start(at, place);
    const other = await start('', place);
    await until('it holds the duty', () => holds(sleeper, 'seal-audit'));
    sleeper.process.stdin?.write('arm\n');
    await until('it is armed', () => sleeper.said.some((one) => 'armed' in one));
    await insertEvents(app, someEvents(4));
    const { at: since } = await until('it sleeps', () => sleeper.said.find((one) => one.stops === at));
    const took = await takesOver(other, 'seal-audit', since);
    expect(took, at).toBeLessThan(5_000);
    // What waits is sealed and published by the other one, also where the sleeper had a transaction open.
    await insertEvents(app, someEvents(5));
    await reached(12);
    const published = Date.now() - since;
    console.log(`${at}: followed after ${took} ms, all sealed and published after ${published} ms`);
    await sleep(Math.max(0, 12_000 - published));
    await insertEvents(app, someEvents(6));
    await reached(18);
    const [checkpoints, latest] = [await text('checkpoints.jsonl'), await text('latest')];
    const woken = Date.now();
    sleeper.process.kill('SIGCONT');
    await sleep(2_500);
    expect([await text('checkpoints.jsonl'), await text('latest')], at).toEqual([checkpoints, latest]);
    expect(sleeper.said.filter((one) => one.at > woken && one.sealed !== undefined)).toEqual([]);
    expect([...sleeper.said, ...other.said].filter((one) => one.refused)).toEqual([]);
    // Its successor is killed: it takes over in its turn, at an epoch of its own.
    await kill(other);
    await insertEvents(app, someEvents(2));
    await reached(20);
    expect((await text('checkpoints.jsonl')).startsWith(checkpoints)).toBe(true);
    let exported = '';
    for await (const line of exportCheckpoints(openDb(app))) exported += line;
    expect(await text('checkpoints.jsonl')).toBe(exported);
    expect((await readdir(place.directory)).sort()).toEqual(['checkpoints.jsonl', 'latest']);
    let log = '';
    for await (const chunk of exportLog(openDb(app))) log += chunk;
    await writeFile(join(place.own, 'log.jsonl'), log);
    expect(await verifyExport({ log: join(place.own, 'log.jsonl'), checkpoints: place.directory, key: testKey.verifierKey })).toMatchObject({
      ok: true,
      entries: 20,
    });
    await kill(sleeper);
    await place.close();
  };

  test('at each of them: another takes over within 5 s and goes on; the sleeper wakes and writes nothing stale', async () => {
    await Promise.all(sealFailpoints.map(sleepsAt));
  }, 90_000);
});

test('when PostgreSQL ends every connection: somebody has each duty within 5 s again, and no epoch had two holders', async () => {
  const both = [await start(), await start()];
  for (let round = 0; round < 3; round++) {
    await insertEvents(t.app, someEvents(2));
    const since = Date.now();
    await t.superuser.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'halligan_app'");
    // The pool of this test was hit as well.
    await sleep(200);
    await insertEvents(t.app, someEvents(1)).catch(() => undefined);
    await until('it is swept', () => both.some((child) => child.said.some((one) => one.swept !== undefined && one.at > since + 300)), 5_000);
    await until('it is sealed', async () => (await t.superuser.query('SELECT FROM audit_pending')).rowCount === 0, 5_000);
  }
  const taken = both.flatMap((child) => child.said.filter((one) => one.taken).map((one) => `${one.taken} ${one.epoch}`));
  expect(new Set(taken).size).toBe(taken.length);
  expect(both.flatMap((child) => child.said.filter((one) => one.refused))).toEqual([]);
});
