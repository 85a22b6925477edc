/** What a process notices about itself and its neighbours: each with its code, once in the log, and as long as it lasts in the warnings. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startProcess } from '../../src/compose.ts';
import { parseConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { type Reading, type SelfWatch, selfWatch, writeFault } from '../../src/workers/self-watch.ts';
import { freePort, type House, startTestHouse, until } from '../support/house.ts';
import { claim, claimed, granted, loginAnswer } from '../support/house-verbs.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse();
  for (const person of ['oncall', 'lead', 'auditor']) await house.tokenOf(person);
});
afterAll(() => house?.close());

const codes = (said: readonly { code: string }[]): string[] => said.map((one) => one.code);
const ready = async (url = house.url): Promise<{ status: number; faults: string[]; warnings: string[] }> => {
  const answer = await fetch(`${url}/readyz`);
  const body = (await answer.json()) as { faults: { code: string }[]; warnings: { code: string }[] };
  return { status: answer.status, faults: codes(body.faults), warnings: codes(body.warnings) };
};

describe('by itself', () => {
  let self: SelfWatch;
  let now: Reading;
  const other = { id: 'prc_2', host: 'app-1', pid: 7, policy: null, seenAt: 0 };
  beforeEach(async () => {
    self = await selfWatch(house.config, { host: 'app-1', pid: 7, own: false });
    now = { steady: 1_000, wall: 5_000_000, database: 5_000_000, others: [] };
    expect(self.took(now)).toEqual([]);
  });
  /** `passedMs` later by the steady clock, with the others changed by hand. */
  const later = (passedMs: number, change: Partial<Reading> = {}): string[] => {
    now = { ...now, steady: now.steady + passedMs, wall: now.wall + passedMs, database: now.database + passedMs, ...change };
    return codes(self.took(now));
  };

  test('clocks that go on as they should say nothing, also when they are slewed', () => {
    expect(later(10_000)).toEqual([]);
    expect(later(10_000, { wall: now.wall + 9_000, database: now.database + 11_500 })).toEqual([]);
    expect(self.warnings()).toEqual([]);
  });

  test("this machine's clock set back is said once and shown for ten minutes; set on, only while it is off", () => {
    expect(later(10_000, { wall: now.wall - 600_000 })).toEqual(['clock_stepped_back']);
    expect(self.warnings()[0]?.message).toContain('set back by 610 s');
    expect(codes(self.warnings())).toEqual(['clock_stepped_back', 'clock_off']);
    expect(later(10_000)).toEqual([]);
    expect(later(10_000, { wall: now.database + 10_000 })).toEqual([]);
    expect(codes(self.warnings())).toEqual(['clock_stepped_back']);
    expect(later(600_000)).toEqual([]);
    expect(self.warnings()).toEqual([]);
  });

  test("PostgreSQL's clock set back: what is open ends later, and that is said", () => {
    expect(later(10_000, { database: now.database - 50_000 })).toEqual(['database_clock_stepped_back']);
    expect(self.warnings()[0]?.message).toMatch(/set back by 60 s: what was open ends that much later/);
  });

  test('its name on another process, but not on one that was killed', () => {
    later(10_000, { others: [other] });
    later(10_000, { others: [other] });
    expect(self.warnings()).toEqual([]);
    later(10_000, { others: [{ ...other, seenAt: 10 }] });
    expect(codes(self.warnings())).toEqual(['instance_name_taken']);
    later(10_000, { others: [{ ...other, pid: 8, seenAt: 20 }] });
    expect(self.warnings()).toEqual([]);
  });

  test('a name that the config gives is nobody else’s, whatever their process id', async () => {
    self = await selfWatch(house.config, { host: 'app-1', pid: 7, own: true });
    later(10_000, { others: [{ ...other, pid: 8 }] });
    later(10_000, { others: [{ ...other, pid: 8, seenAt: 10 }] });
    expect(self.warnings().map((one) => one.message)).toEqual([expect.stringMatching(/^Another process is alive under the name app-1, so/)]);
  });

  test('another policy, and not another address, differs', async () => {
    const text = await readFile(house.configFile, 'utf8');
    const same = await parseConfig(house.configFile, text.replace(/listen: '[^']+'/, "listen: '127.0.0.1:1'"), providerOf);
    const another = await parseConfig(house.configFile, text.replace('maxDuration: 4h', 'maxDuration: 3h'), providerOf);
    const name = { host: 'app-2', pid: 1, own: false };
    expect((await selfWatch(same, name)).policy).toBe(self.policy);
    const { policy } = await selfWatch(another, name);
    later(10_000, { others: [{ ...other, pid: 8, policy }] });
    expect(self.warnings()).toEqual([{ code: 'config_differs', message: expect.stringContaining('app-1 (8) runs with other targets') }]);
  });

  test('which faults of a write are told', () => {
    expect(writeFault({ code: '25006' })?.code).toBe('database_read_only');
    expect(writeFault({ code: '53100' })?.code).toBe('database_full');
    expect(writeFault(new Error('away'))).toBeUndefined();
  });
});

test('a config that is changed under a running process is told, and the process goes on with what it read', async () => {
  const text = await readFile(house.configFile, 'utf8');
  expect((await ready()).warnings).toEqual([]);
  await appendFile(house.configFile, '\n# changed\n');
  await until('it is told', async () => (await ready()).warnings.includes('config_changed'), 15_000);
  expect((await ready()).status).toBe(200);
  await writeFile(house.configFile, text);
  await until('it is over', async () => (await ready()).warnings.length === 0, 15_000);
}, 40_000);

test('two processes with two policies tell each other; nothing is lost between them', async () => {
  const port = await freePort();
  const text = await readFile(house.configFile, 'utf8');
  const file = join(house.folder, 'another.yaml');
  await writeFile(file, text.replace(/listen: '[^']+'/, `listen: '127.0.0.1:${port}'`).replace('maxDuration: 4h', 'maxDuration: 3h'));
  const second = await startProcess(await parseConfig(file, await readFile(file, 'utf8'), providerOf), { web: true, worker: true, log: house.running.ctx.log });
  try {
    for (const url of [house.url, `http://127.0.0.1:${port}`])
      await until(`${url} tells`, async () => (await ready(url)).warnings.includes('config_differs'), 25_000);
    const { grant } = await granted(house);
    const issued = await claimed(house, grant);
    await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
    await until('it is ended', async () => (await loginAnswer(issued)) !== 'let in');
  } finally {
    await second.stop();
  }
  await until('it is over', async () => (await ready()).warnings.length === 0, 15_000);
}, 60_000);

test("PostgreSQL's disk is full: nothing is shown or half done, it is told, and everything goes on when there is room", async () => {
  const { superuser } = house.database;
  const { grant } = await granted(house);
  await superuser.query(`CREATE FUNCTION full_disk_double() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$`);
  for (const table of ['process', 'audit_event', 'lease'])
    await superuser.query(`CREATE TRIGGER full_disk_double BEFORE INSERT OR UPDATE ON ${table} FOR EACH STATEMENT EXECUTE FUNCTION full_disk_double()`);
  const events = async () => (await superuser.query('SELECT max(position) AS last FROM audit_event')).rows;
  const before = await events();
  expect(await claim(house, grant)).toMatchObject({ status: 503, body: { code: 'database_unavailable' } });
  await until('it is told', async () => (await ready()).faults.includes('database_full'), 15_000);
  expect((await ready()).status).toBe(503);
  expect(await events()).toEqual(before);
  expect((await superuser.query('SELECT FROM lease WHERE grant_id = $1', [grant])).rowCount).toBe(0);
  await superuser.query('DROP FUNCTION full_disk_double CASCADE');
  await until('it is ready again', async () => (await ready()).status === 200, 15_000);
  expect(await loginAnswer(await claimed(house, grant))).toBe('let in');
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
}, 60_000);

test('PostgreSQL becomes read-only: it is told, by its code', async () => {
  const { superuser, name } = house.database;
  const reconnect = () => superuser.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'halligan_app'`, [name]);
  await superuser.query(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  await reconnect();
  await until('it is told', async () => (await ready()).faults.includes('database_read_only'), 25_000);
  await superuser.query(`ALTER DATABASE ${name} RESET default_transaction_read_only`);
  await reconnect();
  await until('it is ready again', async () => (await ready()).status === 200, 25_000);
}, 60_000);

test('the wall clock of a real process steps ten minutes back: it is in the log with its code, and what is open ends on time', async () => {
  await house.stop();
  const script = fileURLToPath(new URL('../support/serve-child.ts', import.meta.url));
  const shift = fileURLToPath(new URL('../support/clock-shift.mjs', import.meta.url));
  const child = spawn(process.execPath, ['--import', shift, script, house.configFile], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  try {
    await until('it is ready', () => said.includes('ready\n'), 20_000);
    const { grant } = await granted(house, { duration: '15s' });
    const issued = await claimed(house, grant);
    child.kill('SIGUSR2');
    await until('it is told', () => said.includes('"code":"clock_stepped_back"'), 25_000);
    expect((await ready()).warnings).toEqual(['clock_stepped_back', 'clock_off']);
    await until('it ends on time', async () => (await loginAnswer(issued)) !== 'let in', 20_000);
  } finally {
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
    await house.start();
  }
}, 90_000);
