import { expect, test } from 'vitest';
import { type DatabaseRole, groupsIn } from '../../../src/providers/vault-database/describe.ts';

const roleOf = (...creation_statements: string[]): DatabaseRole => ({
  db_name: 'orders',
  creation_statements,
  revocation_statements: [],
  default_ttl: 120,
  max_ttl: 0,
});

test.each([
  [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' IN ROLE orders_ro`, ['orders_ro']],
  [`CREATE ROLE "{{name}}" LOGIN in role Orders_RO, "Weird ""group"""`, ['orders_ro', 'Weird "group"']],
  [`CREATE USER "{{name}}" IN GROUP a; GRANT b, "c" TO "{{name}}"`, ['a', 'b', 'c']],
  [`CREATE ROLE "{{name}}" LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`, []],
  [`GRANT "{{name}}" TO admin`, []],
])('the groups of %s', (statement, groups) => {
  expect(groupsIn(roleOf(statement))).toEqual(groups);
});
