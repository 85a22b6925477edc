/** `halligan doctor` and `halligan print`, as a platform engineer runs them, against a real target. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
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
