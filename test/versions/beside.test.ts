/**
 * Two versions side by side, as in a rolling upgrade: the database is brought up to date under the servers of the version
 * before, one of them is replaced after the other under load, and every promise holds: no call is cut off, nothing stays
 * open, nothing lives twice, the log is one log.
 */
import { spawn } from 'node:child_process';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { exportLog } from '../../src/audit/export.ts';
import { migrate, migrateDown } from '../../src/db/migrate.ts';
import { openDb } from '../../src/db/pool.ts';
import { freePort, type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { type ClaimedAnswer, loginAnswer } from '../support/house-verbs.ts';
import { type RoundRobin, roundRobin } from '../support/round-robin.ts';
import { type Before, layOutBefore } from './before.ts';

let before: Before;
let house: House;
let front: RoundRobin;
const ports: number[] = [];
const servers: Served[] = [];
beforeAll(async () => {
  before = await layOutBefore();
  house = await startTestHouse({ server: 'none' });
  ports.push(await freePort(), await freePort());
  front = await roundRobin(Number(new URL(house.url).port), ports);
});
afterAll(async () => {
  for (const server of servers) server.kill();
  await front?.close();
  await house?.close();
  if (before) await rm(dirname(before.folder), { recursive: true, force: true });
});

interface Served {
  stop(): Promise<number | null>;
  kill(): void;
  said(): string;
}

/** `halligan serve` of the source in `folder`, behind the front, on one of its two ports. */
async function serve(folder: string, port: number): Promise<Served> {
  const file = join(house.folder, `halligan-${port}.yaml`);
  const text = await readFile(house.configFile, 'utf8');
  const { host } = new URL(house.url);
  expect(text).toContain(`listen: '${host}'`);
  await writeFile(file, text.replace(`listen: '${host}'`, `listen: '127.0.0.1:${port}'`));
  const child = spawn(process.execPath, [join(folder, 'src/main.ts'), 'serve', '--config', file], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (more: string) => {
    said += more;
  });
  const served: Served = {
    async stop() {
      child.kill('SIGTERM');
      return exited;
    },
    kill: () => void child.kill('SIGKILL'),
    said: () => said,
  };
  servers.push(served);
  await until('it listens', () => said.includes('"code":"listening"'), 20_000).catch(() => {
    throw new Error(`it does not start: ${said.slice(-2_000)}`);
  });
  return served;
}

/** One call on a connection of its own. Throws when it is cut off. */
const call = <T>(token: string, method: string, path: string, body?: unknown): Promise<{ status: number; body: T }> =>
  new Promise((resolve, reject) => {
    const sent = request(
      `${house.url}/api/v1${path}`,
      { method, agent: false, timeout: 20_000, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' } },
      (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (more: string) => {
          text += more;
        });
        answer.once('end', () => (answer.complete ? resolve({ status: answer.statusCode ?? 0, body: JSON.parse(text) as T }) : reject(new Error('cut off'))));
        answer.once('error', reject);
      },
    );
    sent.once('error', reject);
    sent.once('timeout', () => sent.destroy(new Error('no answer')));
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });

const tokens: Record<string, string> = {};
const shown: ClaimedAnswer[] = [];
const strange: string[] = [];

/** Somebody asks, is granted, claims, and gives back or lets it expire, until told to stop. Whatever is not as it should be is kept. */
async function life(who: string, stopped: () => boolean): Promise<number> {
  let rounds = 0;
  const holder = tokens[who] ?? '';
  const lead = tokens['lead'] ?? '';
  while (!stopped()) {
    try {
      const asked = await call<{ id: string; seen: string }>(holder, 'POST', '/requests', {
        entitlements: ['orders-readonly'],
        duration: '3s',
        reason: 'load',
      });
      const decided = await call<{ grant: { id: string } }>(lead, 'POST', `/requests/${asked.body.id}/decisions`, {
        decision: 'approve',
        reason: 'go on',
        seen: asked.body.seen,
      });
      const grant = decided.body.grant.id;
      const claimed = await call<ClaimedAnswer>(holder, 'POST', `/grants/${grant}/leases`, { entitlement: 'orders-readonly' });
      if ([asked.status, decided.status, claimed.status].join() !== '201,200,201') strange.push(JSON.stringify([asked, decided, { status: claimed.status }]));
      shown.push(claimed.body);
      if (rounds % 2 === 0) {
        const back = await call(holder, 'POST', `/grants/${grant}/return`, {});
        if (back.status !== 200 && back.status !== 409) strange.push(JSON.stringify(back));
      }
      rounds++;
    } catch (error) {
      strange.push(String(error));
    }
  }
  return rounds;
}

const rowsOf = async (sql: string): Promise<Record<string, unknown>[]> => (await house.database.superuser.query(sql)).rows as Record<string, unknown>[];

test('the version before runs on, while the tables are migrated, beside the new one, and is replaced', async () => {
  console.log(`the version before: ${before.commit.slice(0, 9)}, with ${before.migrations.length} migrations`);
  const all = await migrationsHere();
  if (all > before.migrations.length) await migrateDown({ url: house.database.ownerUrl, directory: 'migrations' }, all - before.migrations.length);
  const [first, second] = [await serve(before.folder, ports[0]!), await serve(before.folder, ports[1]!)];
  for (const person of ['oncall', 'oncall-2', 'lead']) tokens[person] = await house.tokenOf(person);

  let over = false;
  const lives = ['oncall', 'oncall-2'].map((who) => life(who, () => over));
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  await pause(2_000);
  await migrate({ url: house.database.ownerUrl, directory: 'migrations' });
  await pause(2_000);
  expect(await first.stop()).toBe(0);
  const third = await serve('.', ports[0]!);
  await pause(4_000);
  expect(await second.stop()).toBe(0);
  // How gently the version before left is its own; it cannot be mended any more.
  const cut = strange.filter((one) => one.includes('socket hang up'));
  console.log(`${cut.length} calls were cut off by the version before as it left`);
  expect(strange.filter((one) => !cut.includes(one))).toEqual([]);
  strange.length = 0;
  const fourth = await serve('.', ports[1]!);
  await pause(1_000);
  expect(await third.stop()).toBe(0);
  const fifth = await serve('.', ports[0]!);
  await pause(1_000);
  over = true;
  const rounds = await Promise.all(lives);
  console.log(`${rounds.join(' and ')} rounds`);
  expect(strange).toEqual([]);
  expect(Math.min(...rounds)).toBeGreaterThan(5);

  await until('all is over', async () => (await rowsOf(`SELECT FROM access_grant WHERE state NOT IN ('ended', 'cancelled')`)).length === 0, 30_000);
  await until('all is sealed', async () => (await rowsOf('SELECT FROM audit_pending')).length === 0);
  expect(await rowsOf(`SELECT id FROM lease WHERE state NOT IN ('revoked', 'void')`)).toEqual([]);
  expect(await rolesAt(house.target)).toEqual([]);
  for (const answer of shown.slice(-5)) expect(await loginAnswer(answer)).not.toBe('let in');
  expect(await rowsOf(`SELECT lease_id FROM audit_event WHERE type = 'lease.revoked' GROUP BY lease_id HAVING count(*) > 1`)).toEqual([]);
  const revealed = Number((await rowsOf(`SELECT count(*)::int AS n FROM audit_event WHERE type = 'lease.revealed'`))[0]?.['n']);
  expect(revealed - shown.length).toBeGreaterThanOrEqual(0);
  expect(revealed - shown.length).toBeLessThanOrEqual(cut.length);
  expect(await fifth.stop()).toBe(0);
  expect(await fourth.stop()).toBe(0);

  const log = join(house.folder, 'export.jsonl');
  let text = '';
  for await (const chunk of exportLog(openDb(house.database.superuser))) text += chunk;
  await writeFile(log, text);
  // By the verifier of either version.
  for (const folder of ['.', before.folder]) expect(await verifies(folder, log)).toBe(0);
  const errors = servers.flatMap((server) =>
    server
      .said()
      .split('\n')
      .filter((line) => /"level":"(error|fatal)"/.test(line)),
  );
  expect(errors).toEqual([]);
}, 120_000);

const migrationsHere = async (): Promise<number> => (await readdir('migrations')).filter((file) => file.endsWith('.sql')).length;

const verifies = (folder: string, log: string): Promise<number | null> =>
  new Promise((resolve) => {
    const child = spawn(
      process.execPath,
      [join(folder, 'src/main.ts'), 'audit', 'verify', log, '--key', house.verifierKey, '--checkpoints', join(house.folder, 'checkpoints')],
      { stdio: 'ignore' },
    );
    child.once('exit', (code) => resolve(code));
  });
