/** `halligan doctor` and `halligan print`, as a platform engineer runs them, against a real target. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startMailServer, startReceiver } from '../support/post.ts';
import { asSuperuser } from '../support/postgres.ts';
import { startTestServer } from '../support/test-server.ts';
import { newSeat } from './run-cli.ts';

let server: Awaited<ReturnType<typeof startTestServer>>;
let seat: Awaited<ReturnType<typeof newSeat>>;
beforeAll(async () => {
  server = await startTestServer();
  seat = await newSeat({});
});
afterAll(async () => {
  await seat?.close();
  await server?.close();
});

test('a target that is well prepared: one line, exit 0', async () => {
  const { code, out: stdout } = await seat.run('doctor', '--config', server.configFile);
  expect(stdout).toMatch(/^TARGET +KIND +FINDING +NEXT\n\S+ +postgres +ok\n$/);
  expect(code).toBe(0);
});

test('a right that is missing is named with the statement that mends it, exit 1; for machines too', async () => {
  await asSuperuser('postgres', `ALTER ROLE ${server.target.adminRole} NOCREATEROLE`);
  const people = await seat.run('doctor', '--config', server.configFile);
  const machines = await seat.run('doctor', '--config', server.configFile, '-o', 'json');
  await asSuperuser('postgres', `ALTER ROLE ${server.target.adminRole} CREATEROLE`);
  expect(people.code).toBe(1);
  expect(people.out).toContain(`ALTER ROLE "${server.target.adminRole}" CREATEROLE`);
  expect(machines.code).toBe(1);
  expect(JSON.parse(machines.out)).toMatchObject({ ok: false, targets: [{ kind: 'postgres', ok: false }] });
});

test('every way of telling people is looked at: a line for each that works, and what is wrong with each that does not; nothing is sent', async () => {
  const [post, pager] = [await startMailServer(), await startReceiver()];
  try {
    const file = join(server.folder, 'telling.yaml');
    const secret = `whsec_${randomBytes(24).toString('base64')}`;
    const config = (more: string) => `${more}
email: { host: 127.0.0.1, port: ${post.port}, tls: none, from: halligan@example.com }
webhooks:
  pager: { url: '${pager.url}', secretEnv: PAGER_SECRET, allowPrivate: true }
  inner: { url: '${pager.url.replace('http:', 'https:')}', secretEnv: PAGER_SECRET }
`;
    await writeFile(file, config(await readFile(server.configFile, 'utf8')));
    const looks = (PAGER_SECRET: string, ...more: string[]) => seat.start(['doctor', '--config', file, ...more], { env: { PAGER_SECRET } }).done;
    const found = await looks(secret, '-o', 'json');
    const { ok, targets } = JSON.parse(found.out) as { ok: boolean; targets: { target: string; kind: string; ok: boolean; faults: { message: string }[] }[] };
    expect([found.code, ok]).toEqual([1, false]);
    expect(targets.filter((one) => one.kind === 'telling')).toMatchObject([
      { target: 'email', ok: true, faults: [] },
      { target: 'webhook', ok: false, faults: [{ message: 'inner: its name leads to an address of this network, which is not called (allowPrivate)' }] },
    ]);
    const table = await looks('not a secret of ours');
    expect(table.out).toMatch(/^email +telling +ok$/m);
    expect(table.out).toMatch(/pager: its secret is not one of Standard Webhooks/);
    expect(table.out + table.err).not.toContain('not a secret of ours');
    await post.close();
    expect((await looks(secret)).out).toMatch(/▲ 127\.0\.0\.1:\d+: the mail server could not be reached/);
    expect([post.mails, pager.calls]).toEqual([[], []]);
  } finally {
    await pager.close();
  }
});

test('a config with faults has them all named, exit 1', async () => {
  const file = join(server.folder, 'faulty.yaml');
  await writeFile(file, 'server: { ulr: http://127.0.0.1:1 }\n');
  const { code, err: stderr } = await seat.run('doctor', '--config', file);
  expect(code).toBe(1);
  expect(stderr).toContain('did you mean "url"');
});

test('the least rights are printed as statements that PostgreSQL takes', async () => {
  const { code, out: stdout } = await seat.run('print', 'postgres-setup', '--config', server.configFile);
  expect(code).toBe(0);
  const statements = stdout.replaceAll(/^--.*$/gm, '');
  // The roles exist here, so each statement is taken or refused as already there, never as wrong.
  for (const statement of statements
    .split(';')
    .map((text) => text.replaceAll(/--.*$/gm, '').trim())
    .filter(Boolean)) {
    const sqlState = await asSuperuser(server.target.database, statement).then(
      () => 'taken',
      (error: { code?: string }) => error.code,
    );
    expect(['taken', '42710'], statement).toContain(sqlState);
  }
});

test('what there is nothing of is said in words', async () => {
  const { code, err: stderr } = await seat.run('print', 'vault-roots', '--config', server.configFile);
  expect(code).toBe(1);
  expect(stderr).toContain('There is no vault-roots to print. There is: postgres-setup');
});
