/** The attacks of the section "Targets" in RELIABILITY, made by the holder of a credential, and what a secret leaves behind. */
import { readFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import type { Issued, LeaseSpec, Target } from '../../../src/domain/provider.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { newLease, within } from '../../support/provider-contract.ts';
import { connectTo, open, sqlStateOf, unopened } from './holder.ts';

let orders: TestTarget;
let target: Target;
let lease: LeaseSpec;
let issued: Issued;

beforeAll(async () => {
  orders = await testTarget();
  target = connectTo(orders.config);
});
afterAll(async () => {
  await target.close();
  await orders.close();
});
beforeEach(async () => {
  lease = newLease(orders.grant, 60);
  issued = await target.issue(lease, within(10));
});
afterEach(() => target.revoke(lease, within(20)));

test.each([
  ['extends its own end', "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'"],
  ['takes the marker off', 'COMMENT ON ROLE CURRENT_USER IS NULL'],
  ['becomes the group role, whose objects outlive the lease', 'SET ROLE {group}'],
  ['gives itself to somebody', 'GRANT CURRENT_USER TO {group}'],
  ['gives the group to somebody', 'GRANT {group} TO {admin}'],
  ['makes a login', 'CREATE ROLE backdoor LOGIN'],
  ['renames itself', 'ALTER ROLE CURRENT_USER RENAME TO innocent'],
  ['raises its connection limit', 'ALTER ROLE CURRENT_USER CONNECTION LIMIT -1'],
  ['cuts Halligan off', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{admin}'"],
  ['writes', 'DELETE FROM order_items'],
  ['makes a table', 'CREATE TABLE public.mine (id int)'],
])('a holder who %s is refused', async (what, sql) => {
  // Halligan's own session must be there to be attacked.
  await target.inspect(lease, within(10));
  const client = await open(issued);
  const statement = sql.replace('CURRENT_USER', `"${issued.handle}"`).replace('{group}', orders.groupRole).replace('{admin}', orders.adminRole);
  const before = await target.inspect(lease, within(10));
  expect(await sqlStateOf(client.query(statement))).toBe(what === 'renames itself' ? '0A000' : '42501');
  await client.end();
  expect(await target.inspect(lease, within(10))).toMatchObject({ usable: true, expiresAt: (before as { expiresAt: Date }).expiresAt });
});

test('a password that the holder changes ends with the lease like the first', async () => {
  const client = await open(issued);
  await client.query(`ALTER ROLE "${issued.handle}" PASSWORD 'my own words'`);
  await client.end();
  const changed = { ...issued, secret: { password: 'my own words' } };
  await (await open(changed)).end();
  await target.revoke(lease, within(20));
  expect(await sqlStateOf(open(changed))).toBe('28P01');
});

test('invariant 7: the cut is committed before the clean-up, and survives its failure', async () => {
  const side = `side_${orders.database}`;
  await asSuperuser('postgres', `CREATE DATABASE ${side}`);
  try {
    await asSuperuser(side, 'CREATE TABLE public.mine AS SELECT 1 AS id', `ALTER TABLE public.mine OWNER TO "${issued.handle}"`);
    await asSuperuser('postgres', `ALTER DATABASE ${side} WITH ALLOW_CONNECTIONS false`);
    const session = await open(issued);
    const error = await target.revoke(lease, within(20)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: 'target_forbids',
      cut: { sessionsCut: 1 },
      next: `As a superuser there: ALTER DATABASE "${side}" WITH ALLOW_CONNECTIONS true;`,
    });
    expect(await sqlStateOf(session.query('SELECT 1'))).not.toBe('none');
    expect(await sqlStateOf(open(issued))).toBe('28P01');
    expect(await target.inspect(lease, within(10))).toMatchObject({ state: 'present', usable: false, openSessions: 0 });
    await asSuperuser('postgres', `ALTER DATABASE ${side} WITH ALLOW_CONNECTIONS true`);
    const gone = await target.revoke(lease, within(20));
    expect(gone.notes).toEqual([`1 object given to ${orders.leftoversRole}`]);
    expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
  } finally {
    await asSuperuser('postgres', `DROP DATABASE ${side} WITH (FORCE)`);
  }
});

test('a right that somebody else gave to the login alone is named, with who can take it back; access is cut all the same', async () => {
  await asSuperuser(orders.database, `GRANT SELECT ON customers TO "${issued.handle}"`);
  await expect(target.revoke(lease, within(20))).rejects.toMatchObject({
    code: 'target_forbids',
    cut: { sessionsCut: 0 },
    next: `As a superuser in the database "${orders.database}": DROP OWNED BY "${issued.handle}";`,
  });
  await asSuperuser(orders.database, `DROP OWNED BY "${issued.handle}"`);
});

test('a right that one holder gave another does not keep the other from ending', async () => {
  const second = newLease(orders.grant, 60);
  const other = await target.issue(second, within(10));
  try {
    await asSuperuser(orders.database, 'CREATE TABLE public.shared AS SELECT 1 AS id', `ALTER TABLE public.shared OWNER TO "${other.handle}"`);
    const client = await open(other);
    await client.query(`GRANT ALL ON public.shared TO "${issued.handle}"`);
    await client.end();
    expect((await target.revoke(lease, within(20))).cutAt).not.toBeNull();
    expect(await target.inspect(second, within(10))).toMatchObject({ usable: true });
  } finally {
    await target.revoke(second, within(20));
    await asSuperuser(orders.database, 'DROP TABLE public.shared');
  }
});

test('a lease that was cut but not dropped is not brought back by issuing it again', async () => {
  await asSuperuser(orders.database, `ALTER ROLE "${issued.handle}" NOLOGIN`);
  await expect(target.issue(lease, within(10))).rejects.toMatchObject({ code: 'target_failed', nothingMade: false });
});

test('invariant 9: a login that was begun before the cut is not let in after it', async () => {
  const { client, release } = await stalledLogin(issued);
  const gone = target.revoke(lease, within(20));
  await gone;
  release();
  expect(await sqlStateOf(client.opened)).not.toBe('none');
});

test('invariant 1: with nobody alive, a login begun after the end is refused at once', async () => {
  const short = newLease(orders.grant, 1);
  const made = await target.issue(short, within(10));
  await (await open(made)).end();
  await new Promise((done) => setTimeout(done, short.endsAt.getTime() - Date.now() + 5));
  const state = await sqlStateOf(open(made));
  await target.revoke(short, within(20));
  expect(state).toBe('28P01');
});

test('with nobody alive, a login begun before the end can be finished after it, within authentication_timeout: the limits say so', async () => {
  const short = newLease(orders.grant, 1.5);
  const made = await target.issue(short, within(10));
  const { client, release } = await stalledLogin(made);
  await new Promise((done) => setTimeout(done, short.endsAt.getTime() - Date.now() + 700));
  release();
  const state = await sqlStateOf(client.opened);
  await client.end();
  await target.revoke(short, within(20));
  // PostgreSQL looks at VALID UNTIL when the exchange begins. If this ever changes, X_new (dead) may be lowered to 0.
  expect(state).toBe('none');
  expect(target.limits.newLogin.dead).toBeGreaterThanOrEqual(0.7);
});

test('invariant 22: the password is not in the server log, which holds every statement, nor in its catalogs', async () => {
  const { password = '' } = issued.secret;
  await (await open(issued)).end();
  const log = await readFile(inject('server').logFile, 'latin1');
  expect(log).toContain(`CREATE ROLE "${issued.handle}"`);
  const {
    rows: [stored],
  } = await orders.superuser.query<{ rolpassword: string }>('SELECT rolpassword FROM pg_authid WHERE rolname = $1', [issued.handle]);
  expect(stored?.rolpassword).toMatch(/^SCRAM-SHA-256\$4096:/);
  for (const form of [
    password,
    Buffer.from(password).toString('base64').replace(/=+$/, ''),
    Buffer.from(password).toString('hex'),
    encodeURIComponent(password),
  ]) {
    expect(log).not.toContain(form);
    expect(stored?.rolpassword).not.toContain(form);
  }
});

/** A holder that stops half-way through its login, after the server has judged the password's end and before it is let in. */
async function stalledLogin(made: Issued) {
  const plain = unopened(made);
  const { connection } = plain as unknown as { connection: { sendSCRAMClientFinalMessage(text: string): void } };
  const send = connection.sendSCRAMClientFinalMessage.bind(connection);
  let release = () => undefined as void;
  const reached = new Promise<void>((done) => {
    connection.sendSCRAMClientFinalMessage = (text) => {
      release = () => send(text);
      done();
    };
  });
  const opened = plain.connect();
  opened.catch(() => undefined);
  await reached;
  return { client: Object.assign(plain, { opened }), release: () => release() };
}
