/** What is wrong with a target is found before anybody needs it, with the SQL that mends it: each fault is mended with exactly what was said. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Target } from '../../../src/domain/provider.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { newLease, refusalOf, within } from '../../support/provider-contract.ts';
import { connectTo } from './holder.ts';

let orders: TestTarget;
let target: Target;
beforeEach(async () => {
  orders = await testTarget();
  target = connectTo(orders.config);
});
afterEach(async () => {
  await target.close();
  await orders.close();
});

const check = () => target.check([orders.grant], within(10));

/** Breaks the target, expects one fault that says so, does what the fault says, expects none. */
async function breakAndMend(words: RegExp, ...broken: string[]): Promise<void> {
  await asSuperuser(orders.database, ...broken);
  const faults = await check();
  expect(faults.map(({ message }) => message)).toEqual([expect.stringMatching(words)]);
  const sql = /^As a superuser there: (.*);/.exec(faults[0]?.next ?? '')?.[1] ?? 'nothing to run';
  await asSuperuser(orders.database, ...sql.replace(' (if it is missing)', '').split('; '));
  expect(await check()).toEqual([]);
}

test('a well prepared target has no faults', async () => {
  expect(await check()).toEqual([]);
});
test('no CREATEROLE', () =>
  breakAndMend(
    /may not make logins/,
    `ALTER ROLE ${orders.adminRole} NOCREATEROLE`,
    `CREATE ROLE ${orders.leftoversRole} NOLOGIN`,
    `GRANT ${orders.leftoversRole} TO ${orders.adminRole}`,
  ));
test('no ADMIN OPTION on the role to give', () =>
  breakAndMend(/may not give anybody the role/, `REVOKE ADMIN OPTION FOR ${orders.groupRole} FROM ${orders.adminRole}`));
test('the role may not connect', () =>
  breakAndMend(/may not connect to the database/, `REVOKE CONNECT ON DATABASE ${orders.database} FROM ${orders.groupRole}`));
test('functions could not be kept', () => breakAndMend(/may make functions in the schema "public"/, `GRANT CREATE ON SCHEMA public TO ${orders.groupRole}`));
test('a leftovers role that is not ours to use', () => breakAndMend(/may not hand anything to/, `CREATE ROLE ${orders.leftoversRole} NOLOGIN`));
test('Halligan as a superuser', () => breakAndMend(/is a superuser, which is far more than it needs/, `ALTER ROLE ${orders.adminRole} SUPERUSER`));

test.each([
  ['a superuser', 'ALTER ROLE {group} SUPERUSER', 'it has SUPERUSER'],
  ['a role that makes roles', 'ALTER ROLE {group} CREATEROLE', 'it has CREATEROLE'],
  ['a role that passes row security', 'ALTER ROLE {group} BYPASSRLS', 'it has BYPASSRLS'],
  ['a role that runs programs', 'GRANT pg_execute_server_program TO {group}', 'it leads to "pg_execute_server_program", which reaches beyond the data'],
  ['a role that cuts other sessions', 'GRANT pg_signal_backend TO {group}', 'it leads to "pg_signal_backend", which reaches beyond the data'],
])('%s is given to nobody', async (_, sql, words) => {
  await asSuperuser(orders.database, sql.replace('{group}', orders.groupRole));
  expect((await check()).map(({ message }) => message)).toEqual([expect.stringContaining(words)]);
  const lease = newLease(orders.grant, 60);
  expect(await refusalOf(target.issue(lease, within(10)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
  expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
});

test("Halligan's own role and the leftovers role are given to nobody", async () => {
  for (const role of [orders.adminRole, 'pg_write_server_files', 'postgres']) {
    expect(await refusalOf(target.issue(newLease({ role }, 60), within(10)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
  }
});

test('the claim’s error names the missing right too', async () => {
  await asSuperuser(orders.database, `ALTER ROLE ${orders.adminRole} NOCREATEROLE`);
  const error = await refusalOf(target.issue(newLease(orders.grant, 60), within(10)));
  expect(error).toMatchObject({ code: 'target_forbids', nothingMade: true, next: `As a superuser there: ALTER ROLE "${orders.adminRole}" CREATEROLE;` });
});

test('a target that cannot be reached has one fault: that', async () => {
  const away = connectTo({ ...orders.config, port: 1 });
  expect(await away.check([orders.grant], within(10))).toEqual([{ message: expect.stringContaining('could not be reached'), next: expect.any(String) }]);
  await away.close();
});

test('a role of our form without our marker is not ours: not swept, not issued over, not ended', async () => {
  const lease = newLease(orders.grant, 60);
  await asSuperuser(orders.database, `CREATE ROLE "${lease.externalName}" LOGIN`, `GRANT "${lease.externalName}" TO ${orders.adminRole} WITH ADMIN TRUE`);
  try {
    expect(await target.sweep(within(10))).toEqual([]);
    expect(await refusalOf(target.issue(lease, within(10)))).toMatchObject({ code: 'target_forbids' });
    expect(await refusalOf(target.revoke(lease, within(10)))).toMatchObject({ code: 'target_forbids' });
    expect(await target.inspect(lease, within(10))).toMatchObject({ state: 'present', usable: true });
  } finally {
    await asSuperuser(orders.database, `DROP ROLE "${lease.externalName}"`);
  }
});
