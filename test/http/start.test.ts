/** Starts that cannot succeed, in words that say what to change; and targets whose faults are named at start and by the claim. */
import { createServer } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { makeLog, StartFault, startProcess } from '../../src/compose.ts';
import { type Config, parseConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { freePort, type House, startTestHouse, until } from '../support/house.ts';
import { claim, granted } from '../support/house-verbs.ts';
import { testDatabase } from '../support/postgres.ts';

let house: House | undefined;
afterEach(async () => {
  await house?.close();
  house = undefined;
});
const silent = makeLog('silent');

async function faultOf(config: Config, databasePatienceMs = 800): Promise<{ message: string; ms: number }> {
  const before = performance.now();
  const error = await startProcess(config, { web: true, worker: true, log: silent, databasePatienceMs }).then(
    async (running) => {
      await running.stop();
      throw new Error('it started');
    },
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StartFault);
  return { message: (error as Error).message, ms: performance.now() - before };
}

test('a port in use: the setting to change is named, and nothing of the process stays behind', async () => {
  house = await startTestHouse({ server: 'none' });
  const squatter = createServer();
  const { port } = new URL(house.url);
  await new Promise<void>((resolve) => squatter.listen(Number(port), '127.0.0.1', resolve));
  const { message } = await faultOf(house.config);
  expect(message).toContain(`127.0.0.1:${port} is taken by another process`);
  expect(message).toContain('server.listen');
  expect(message).toContain(house.configFile);
  await new Promise((resolve) => squatter.close(resolve));
  await until('no connection is left', async () => {
    const { rowCount } = await house!.database.superuser.query(`SELECT FROM pg_stat_activity WHERE datname = $1 AND usename = 'halligan_app'`, [
      house!.database.name,
    ]);
    return rowCount === 0;
  });
  const running = await house.start();
  expect((await running.health()).faults).toEqual([]);
});

test('a database that is down: what was tried is said, within the patience; when it comes back in time, the start goes on', async () => {
  house = await startTestHouse({ server: 'none' });
  const port = await freePort();
  const away: Config = { ...house.config, database: { ...house.config.database, url: `postgres://halligan_app@127.0.0.1:${port}/halligan` } };
  const { message, ms } = await faultOf(away);
  expect(message).toContain(`PostgreSQL at 127.0.0.1:${port}/halligan as halligan_app did not let us in for 1 s`);
  expect(message).toMatch(/ECONNREFUSED/);
  expect(ms).toBeLessThan(3_000);

  const late = createServer();
  const starting = startProcess(away, { web: false, worker: false, log: silent, databasePatienceMs: 10_000 });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { connect } = await import('node:net');
  late.on('connection', (near) => {
    const far = connect(house!.target.config.port, '127.0.0.1');
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => late.listen(port, '127.0.0.1', resolve));
  // It lets us in, but there is no such database: that is said in the server's own words.
  await expect(starting).rejects.toThrow(/database "halligan" does not exist/);
  await new Promise((resolve) => late.close(resolve));
}, 40_000);

test('a wrong password and tables that are not there are said as such, without the password', async () => {
  house = await startTestHouse({ server: 'none' });
  process.env['HALLIGAN_TEST_WRONG_PASSWORD'] = 'a very wrong password';
  const wrong: Config = { ...house.config, database: { ...house.config.database, password: { env: 'HALLIGAN_TEST_WRONG_PASSWORD' } } };
  const { message } = await faultOf(wrong);
  delete process.env['HALLIGAN_TEST_WRONG_PASSWORD'];
  expect(message).toContain('password authentication failed');
  expect(message).not.toContain('a very wrong password');

  const empty = await testDatabase({ empty: true });
  try {
    const url = new URL(empty.appUrl);
    url.password = '';
    const bare: Config = { ...house.config, database: { ...house.config.database, url: url.href } };
    expect((await faultOf(bare)).message).toMatch(/not up to date.*halligan migrate/);
  } finally {
    await empty.close();
  }
});

/**
 * The story of a bug: without CREATEROLE the check stumbled over the role for leftovers before it named the missing
 * right, and its only advice was to run the check.
 */
test('a target whose role lacks a right: named at start with the SQL that mends it, and again by the claim', async () => {
  house = await startTestHouse({ server: 'none' });
  await house.target.superuser.query(`ALTER ROLE ${house.target.adminRole} NOCREATEROLE`);
  await house.start();
  const line = await until('the fault is logged', () => house!.logged.find((one) => one.includes('target_fault') && one.includes('may not make logins')));
  expect(JSON.parse(line)).toMatchObject({
    code: 'target_fault',
    target: 'orders-db',
    next: `As a superuser there: ALTER ROLE "${house.target.adminRole}" CREATEROLE;`,
  });
  const { grant } = await granted(house);
  const answer = await claim(house, grant);
  expect([answer.status, answer.body.code]).toEqual([502, 'target_forbids']);
  expect(answer.body.next).toContain(`ALTER ROLE "${house.target.adminRole}" CREATEROLE`);
  await until(
    'nothing is left of the claim',
    async () => (await house!.database.superuser.query(`SELECT FROM lease WHERE state NOT IN ('void', 'revoked')`)).rowCount === 0,
    15_000,
  );
  await house.target.superuser.query(`ALTER ROLE ${house.target.adminRole} CREATEROLE`);
  expect((await claim(house, grant)).status).toBe(201);
}, 40_000);

test('a group role that is gone: named at start and by the claim; a target that is away stops no start', async () => {
  house = await startTestHouse({
    server: 'none',
    entitlements: (target) => `
  gone:
    opens: read what is not there
    target: orders-db
    grant: { role: ${target.groupRole}_gone }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h
  away:
    opens: read what cannot be reached
    target: away-db
    grant: { role: any }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h`,
    moreTargets: (target) => `  away-db: ${JSON.stringify({ kind: 'postgres', ...target.config, port: 1 })}`,
  });
  await house.start();
  await until('both are logged', () =>
    ['orders-db', 'away-db'].every((name) => house!.logged.some((one) => one.includes(`"target":"${name}"`) && /target_fault|target_unreachable/.test(one))),
  );
  for (const [entitlement, code] of [
    ['gone', 'target_missing_role'],
    ['away', 'target_unreachable'],
  ] as const) {
    const { grant } = await granted(house, { entitlement });
    const answer = await claim(house, grant, 'oncall', entitlement);
    expect([entitlement, answer.body.code]).toEqual([entitlement, code]);
  }
}, 30_000);

test('the config of a test house is one that the loader accepts again', async () => {
  house = await startTestHouse({ server: 'none' });
  const { readFile } = await import('node:fs/promises');
  const again = await parseConfig(house.configFile, await readFile(house.configFile, 'utf8'), providerOf);
  expect([...again.entitlements.keys()]).toEqual(['orders-readonly', 'orders-two', 'orders-both']);
});
