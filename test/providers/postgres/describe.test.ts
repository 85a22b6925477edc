import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Target } from '../../../src/domain/provider.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { within } from '../../support/provider-contract.ts';
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
const describe = () => target.describe(orders.grant, within(10));

test('reads what the role may do from the access lists', async () => {
  expect(await describe()).toEqual({
    summary: `a login in ${orders.groupRole}: SELECT on 3 tables of ${orders.database}`,
    details: [
      'SELECT on table public.customers',
      'SELECT on table public.order_items',
      'SELECT on table public.orders',
      'USAGE on schema public',
      `CONNECT on database ${orders.database}`,
    ],
  });
});

test('shows rights that come through another role, columns, functions, ownership and the power to create', async () => {
  const more = `${orders.groupRole}_more`;
  await asSuperuser(
    orders.database,
    `CREATE ROLE ${more} NOLOGIN`,
    `GRANT ${more} TO ${orders.groupRole}`,
    `GRANT UPDATE (name) ON customers TO ${more}`,
    "CREATE FUNCTION total(int) RETURNS int LANGUAGE sql AS 'SELECT $1'",
    `GRANT EXECUTE ON FUNCTION total TO ${more}`,
    `CREATE TABLE "odd\nname" (id int)`,
    `ALTER TABLE "odd\nname" OWNER TO ${more}`,
    `GRANT CREATE ON SCHEMA public TO ${more}`,
    `GRANT pg_read_all_data TO ${more}`,
  );
  try {
    const { summary, details } = await describe();
    expect(summary).toContain('pg_read_all_data: SELECT on every table');
    expect(summary).toContain('UPDATE on 1 column');
    expect(summary).toContain('EXECUTE on 1 function');
    expect(summary).toContain('CREATE on schema public');
    expect(details).toContain('UPDATE on column public.customers.name');
    expect(details.find((line) => line.includes('odd'))).toMatch(/OWNER.* on table public\."odd name"/);
  } finally {
    await asSuperuser(orders.database, `DROP OWNED BY ${more} CASCADE`, `DROP ROLE ${more}`);
  }
});

test('a long list is shortened to 200 lines that say how many are missing', async () => {
  await asSuperuser(
    orders.database,
    "DO $$ BEGIN FOR i IN 1..250 LOOP EXECUTE format('CREATE TABLE t%s (id int)', i); END LOOP; END $$",
    `GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${orders.groupRole}`,
  );
  const { summary, details } = await describe();
  expect(summary).toContain('SELECT on 253 tables');
  expect(details).toHaveLength(200);
  expect(details.at(-1)).toBe('and 56 more');
});
