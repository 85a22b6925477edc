/**
 * The reaper at a PostgreSQL server, with Halligan out of the picture: sessions that are over are cut, and nothing else is.
 * On a server of its own: the reaper would end what is over of every other test as well.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { readSecret } from '../../src/config/secrets.ts';
import { type EmbeddedPostgres, startPostgres } from '../../src/demo/embedded-postgres.ts';
import type { Issued, LeaseSpec, Limits, Target } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/postgres/sql.ts';
import { type ReaperSettings, reaperSchema, reapPostgres } from '../../src/reap/postgres.ts';
import { reapCommand } from '../../src/reap/reap.ts';
import type { Reaped } from '../../src/reap/reaped.ts';
import { connectTo } from '../providers/postgres/holder.ts';
import { newSuffix } from '../support/postgres.ts';
import { newLease, within } from '../support/provider-contract.ts';

const suffix = newSuffix();
const password = randomBytes(12).toString('hex');
const [reaper, admin, groupRole] = ['halligan_reaper', 'halligan', 'orders_ro'];
let server: EmbeddedPostgres;
let halligan: Target;
let passwordFile: string;
const leases: LeaseSpec[] = [];
const clients: pg.Client[] = [];
const roles: string[] = [];
const children: ChildProcess[] = [];

beforeAll(async () => {
  const { folder } = inject('server');
  server = await startPostgres({ dataDirectory: join(folder, `reap-${suffix}`), superuserPassword: password, fast: true });
  passwordFile = join(folder, `reaper-${suffix}`);
  await writeFile(passwordFile, password, { mode: 0o600 });
  // docs/providers.md has the same statements.
  await asSuperuser(
    'CREATE DATABASE orders',
    `CREATE ROLE ${groupRole} NOLOGIN`,
    `GRANT CONNECT ON DATABASE orders TO ${groupRole}`,
    `CREATE ROLE ${admin} LOGIN CREATEROLE PASSWORD '${password}'`,
    `GRANT CONNECT ON DATABASE orders TO ${admin}`,
    `GRANT ${groupRole} TO ${admin} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
    `CREATE ROLE ${reaper} LOGIN PASSWORD '${password}'`,
    `GRANT CONNECT ON DATABASE orders TO ${reaper}`,
    `GRANT pg_signal_backend TO ${reaper}`,
  );
  halligan = connectTo({ ...config(), user: admin });
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const client of clients.splice(0)) await client.end().catch(() => undefined);
  for (const lease of leases.splice(0)) await halligan.revoke(lease, within(20));
  for (const role of roles.splice(0)) await asSuperuser(`DROP ROLE IF EXISTS ${role}`);
});
afterAll(async () => {
  await halligan?.close();
  await server?.stop();
});

async function asSuperuser<T extends object>(...statements: string[]): Promise<T[]> {
  const client = new pg.Client(server.superuserUrl);
  await client.connect();
  try {
    let rows: T[] = [];
    for (const statement of statements) rows = (await client.query<T>(statement)).rows;
    return rows;
  } finally {
    await client.end();
  }
}

async function open({ handle, secret }: Pick<Issued, 'handle' | 'secret'>): Promise<pg.Client> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port: server.port,
    database: 'orders',
    user: handle,
    password: secret['password'] ?? '',
    connectionTimeoutMillis: 10_000,
  });
  client.on('error', () => undefined);
  await client.connect();
  clients.push(client);
  return client;
}

const config = () => ({ host: '127.0.0.1', port: server.port, database: 'orders', user: reaper, passwordFile, tls: 'disable' });
const reap = (settings: ReaperSettings = {}): Promise<Reaped> => reapPostgres('orders-db', targetSchema.parse(config()), settings, { readSecret }, within(20));
const works = (client: pg.Client): Promise<boolean> =>
  client.query('SELECT 1').then(
    () => true,
    () => false,
  );

/** A lease that ends so soon, and its holder's open session. */
async function held(seconds: number): Promise<{ lease: LeaseSpec; session: pg.Client; login: () => Promise<pg.Client> }> {
  const lease = newLease({ role: groupRole }, seconds);
  leases.push(lease);
  const issued = await halligan.issue(lease, within(8));
  const session = await open(issued);
  return { lease, session, login: () => open(issued) };
}

/** A login that somebody else made, with its end and its comment, and an open session. */
async function foreign(name: string, validUntil: string, comment: string | null): Promise<pg.Client> {
  const quoted = pg.escapeIdentifier(name);
  roles.push(quoted);
  const secret = randomBytes(9).toString('hex');
  await asSuperuser(
    `CREATE ROLE ${quoted} LOGIN PASSWORD '${secret}' IN ROLE ${groupRole}`,
    ...(comment === null ? [] : [`COMMENT ON ROLE ${quoted} IS '${comment}'`]),
  );
  const client = await open({ handle: name, secret: { password: secret } });
  await asSuperuser(`ALTER ROLE ${quoted} VALID UNTIL '${validUntil}'`);
  return client;
}
const canLogin = async (name: string): Promise<boolean | undefined> =>
  (await asSuperuser<{ rolcanlogin: boolean }>(`SELECT rolcanlogin FROM pg_roles WHERE rolname = '${name}'`))[0]?.rolcanlogin;

test('invariant 1: with Halligan dead, the open session of a lease that is over is cut, and one that is not over goes on', async () => {
  const [over, live] = [await held(1.2), await held(60)];
  expect(await reap()).toEqual({ ended: [], sessionsCut: 0, notes: [], faults: [] });
  await sleep(over.lease.endsAt.getTime() - Date.now() + 50);
  expect(await works(over.session)).toBe(true);
  const reaped = await reap();
  expect(reaped).toMatchObject({ ended: [over.lease.externalName], sessionsCut: 1, faults: [] });
  expect(reaped.notes).toEqual([expect.stringContaining('were not disabled: the reaper has no right to')]);
  expect([await works(over.session), await works(live.session)]).toEqual([false, true]);
  await expect(over.login()).rejects.toMatchObject({ code: '28P01' });
});

test('where it may act as Halligan’s role it disables the login too, and Halligan ends the rest when it is back', async () => {
  await asSuperuser(`GRANT ${admin} TO ${reaper} WITH INHERIT FALSE, SET TRUE`, `REVOKE pg_signal_backend FROM ${reaper}`);
  try {
    const { lease, session } = await held(1);
    await sleep(lease.endsAt.getTime() - Date.now() + 50);
    expect(await reap({ actAs: admin })).toEqual({ ended: [lease.externalName], sessionsCut: 1, notes: [], faults: [] });
    expect(await works(session)).toBe(false);
    expect(await canLogin(lease.externalName)).toBe(false);
    expect(await reap({ actAs: admin })).toEqual({ ended: [], sessionsCut: 0, notes: [], faults: [] });
    expect(await halligan.inspect(lease, within(10))).toMatchObject({ state: 'present', usable: false });
    await halligan.revoke(lease, within(20));
    expect(await halligan.inspect(lease, within(10))).toEqual({ state: 'absent' });
  } finally {
    await asSuperuser(`REVOKE ${admin} FROM ${reaper}`, `GRANT pg_signal_backend TO ${reaper}`);
  }
});

test('a login of ours by name alone, one without an end, and somebody else’s are left alone', async () => {
  const named = await foreign(`hg_named_${suffix}`, '2020-01-01', null);
  const endless = await foreign(`hg_lse_${suffix}`, 'infinity', `halligan lease=lse_${'0'.repeat(32)} grant=x`);
  const other = await foreign(`app_${suffix}`, '2020-01-01', null);
  expect(await reap()).toEqual({ ended: [], sessionsCut: 0, notes: [], faults: [] });
  expect(await Promise.all([named, endless, other].map(works))).toEqual([true, true, true]);
});

test('roles that Vault made are judged by their end alone, where the file names their pattern', async () => {
  const [over, live, app] = [
    await foreign(`v-token-orders-${suffix}`, '2020-01-01', null),
    await foreign(`v-token-later-${suffix}`, '2099-01-01', null),
    await foreign(`vapp_${suffix}`, '2020-01-01', null),
  ];
  expect(await reap({ vaultUsers: 'v-%' })).toMatchObject({ ended: [`v-token-orders-${suffix}`], sessionsCut: 1, faults: [] });
  expect(await Promise.all([over, live, app].map(works))).toEqual([false, true, true]);
  for (const vaultUsers of ['%', 'v%', '_-%', '']) expect(reaperSchema.safeParse({ vaultUsers }).success, vaultUsers).toBe(false);
});

test('a role that cannot be ended is a fault, and stops nothing else', async () => {
  const [first, second] = [await held(1), await held(1.1)];
  await asSuperuser(`REVOKE pg_signal_backend FROM ${reaper}`);
  try {
    await sleep(second.lease.endsAt.getTime() - Date.now() + 50);
    const { ended, faults } = await reap();
    expect(ended).toEqual([]);
    expect(faults).toHaveLength(2);
    expect(faults[0]).toContain('refused while cutting open sessions');
    expect(await works(first.session)).toBe(true);
  } finally {
    await asSuperuser(`GRANT pg_signal_backend TO ${reaper}`);
  }
  expect((await reap()).ended).toHaveLength(2);
});

test('a thousand logins that are over and stay, because the reaper may not disable them, delay no cut', async () => {
  await asSuperuser(`DO $$ BEGIN FOR n IN 1..1000 LOOP
    EXECUTE format('CREATE ROLE hg_stays_%s LOGIN VALID UNTIL %L', n, '2020-01-01');
    EXECUTE format('COMMENT ON ROLE hg_stays_%s IS %L', n, 'halligan lease=lse_' || md5(n::text)); END LOOP; END $$`);
  try {
    const { lease, session } = await held(1);
    await sleep(lease.endsAt.getTime() - Date.now() + 50);
    const began = Date.now();
    const reaped = await reap();
    expect(Date.now() - began).toBeLessThan(2_000);
    expect(reaped).toMatchObject({ ended: [lease.externalName], sessionsCut: 1, faults: [], notes: [expect.stringContaining('1001 logins')] });
    expect(await works(session)).toBe(false);
  } finally {
    await asSuperuser("DO $$ BEGIN FOR n IN 1..1000 LOOP EXECUTE format('DROP ROLE hg_stays_%s', n); END LOOP; END $$");
  }
});

test('the command: one line of JSON for each target, 0 when nothing failed; a file that is not right is said in words', async () => {
  const folder = inject('server').folder;
  const file = join(folder, `reap-${suffix}.yaml`);
  const { passwordFile: _, ...block } = { kind: 'postgres', ...config() };
  const write = (targets: unknown) => writeFile(file, JSON.stringify({ targets }));
  const run = async (): Promise<{ code: number; lines: Record<string, unknown>[] }> => {
    const lines: Record<string, unknown>[] = [];
    return { code: await reapCommand({ targets: file, once: true, say: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) }), lines };
  };
  const { lease } = await held(1);
  await sleep(lease.endsAt.getTime() - Date.now() + 50);
  // A relative path is meant from the file.
  await write({ 'orders-db': { ...block, passwordFile: `reaper-${suffix}` } });
  expect(await run()).toMatchObject({ code: 0, lines: [{ target: 'orders-db', kind: 'postgres', ended: [lease.externalName], sessionsCut: 1, faults: [] }] });
  await write({ 'orders-db': { ...block, passwordFile }, away: { ...block, passwordFile, port: 1 } });
  const { code, lines } = await run();
  expect(code).toBe(1);
  expect(lines.find(({ target: name }) => name === 'orders-db')).toMatchObject({ faults: [] });
  expect(lines.find(({ target: name }) => name === 'away')).toMatchObject({ faults: [expect.stringContaining('could not be reached')] });
  for (const wrong of [{}, { a: { kind: 'mysql' } }, { a: { ...block } }, { a: { ...block, passwordFile, vaultUsers: '%' } }]) {
    await write(wrong);
    expect(await run(), JSON.stringify(wrong)).toEqual({ code: 1, lines: [] });
  }
});

test('the command goes on until it is told to stop', async () => {
  const file = join(inject('server').folder, `reap-on-${suffix}.yaml`);
  await writeFile(file, JSON.stringify({ targets: { 'orders-db': { kind: 'postgres', ...config() } } }));
  const { lease, session } = await held(1);
  const stop = new AbortController();
  const lines: string[] = [];
  const running = reapCommand({ targets: file, everySeconds: 0.2, say: (line) => void lines.push(line), signal: stop.signal });
  await sleep(lease.endsAt.getTime() - Date.now() + 1_000);
  expect(await works(session)).toBe(false);
  stop.abort();
  expect(await running).toBe(0);
  expect(lines).toHaveLength(1);
});

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** A process of its own; `line` is the next one that it prints. */
function started(script: string, ...args: string[]): { child: ChildProcess; line: () => Promise<string> } {
  const child = spawn(process.execPath, [path(script), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const lines: string[] = [];
  let rest = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    const parts = `${rest}${chunk}`.split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
  });
  return {
    child,
    async line() {
      for (const end = Date.now() + 15_000; lines.length === 0; await sleep(10)) if (Date.now() > end) throw new Error(`${script} said nothing`);
      return lines.shift() ?? '';
    },
  };
}

test('invariant 1: Halligan killed, the reaper beside the server: the open session ends within the bound that `limits` declares', async () => {
  const everySeconds = 2;
  const folder = inject('server').folder;
  const [reaperFile, childFile] = [join(folder, `reap-dead-${suffix}.yaml`), join(folder, `child-${suffix}.json`)];
  await writeFile(reaperFile, JSON.stringify({ targets: { 'orders-db': { kind: 'postgres', ...config() } } }));
  const lasts: number[] = [];
  let bound: number | null = null;
  for (let round = 0; round < 3; round += 1) {
    const spec = newLease({ role: groupRole }, 3);
    leases.push(spec);
    await writeFile(childFile, JSON.stringify({ block: { ...config(), user: admin, reaper: everySeconds }, spec }));
    const { child, line } = started('halligan-child.ts', childFile);
    const { issued, limits }: { issued: Issued; limits: Limits } = JSON.parse(await line());
    bound = limits.openSession.dead;
    const session = await open(issued);
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('close', resolve));
    // The real command, so that its rounds stand anywhere to the end.
    const reaping = started('../../bin/halligan.js', 'reap', '--targets', reaperFile, '--every', `${everySeconds}s`);
    const end = spec.endsAt.getTime();
    let last = 0;
    for (const deadline = end + (everySeconds + 5) * 1_000; Date.now() < deadline; await sleep(20)) {
      const now = Date.now();
      if (!(await works(session))) break;
      last = now;
    }
    lasts.push(last - end);
    expect(JSON.parse(await reaping.line())).toMatchObject({ target: 'orders-db', ended: [spec.externalName], sessionsCut: 1, faults: [] });
    reaping.child.kill('SIGTERM');
  }
  console.log(`Halligan dead, a round every ${everySeconds} s: the open session last worked ${lasts.join(', ')} ms after the end; declared: ${bound} s`);
  expect(bound).toBe(everySeconds + 60);
  expect(Math.max(...lasts)).toBeLessThanOrEqual(everySeconds * 1_000 + 1_000);
}, 60_000);
