import { describe, expect, test } from 'vitest';
import { grantSchema, indexPath, leasePolicy, targetSchema } from '../../../src/providers/vault-database/config.ts';

const block = {
  address: 'https://vault.example.com:8200',
  auth: { method: 'jwt', role: 'halligan', jwtFile: '/var/run/secrets/tokens/vault' },
  host: 'db.example.com',
  database: 'orders',
  sessionsEndWithUser: true,
};
/** The paths of what the schema finds wrong. */
const faults = (more: object): string[] => {
  const parsed = targetSchema.safeParse({ ...block, ...more });
  return parsed.success ? [] : parsed.error.issues.map((issue) => issue.path.join('.'));
};

describe('a target of Vault', () => {
  test('has defaults for what most leave out', () => {
    expect(targetSchema.parse(block)).toMatchObject({
      mount: 'database',
      tokenRole: 'halligan-lease',
      indexMount: 'halligan',
      port: 5432,
      tls: 'verify-full',
      plugin: 'postgresql',
    });
  });

  test.each([
    ['an address with a path', { address: 'https://vault.example.com/v1' }, ['address']],
    ['an address with a password', { address: 'https://a:b@vault.example.com' }, ['address']],
    ['plain http to another machine', { address: 'http://vault.example.com:8200' }, ['address']],
    ['a token for another machine', { auth: { method: 'token', tokenFile: '/t' } }, ['auth.method']],
    ['no source of a token', { address: 'http://127.0.0.1:8200', auth: { method: 'token' } }, ['auth.tokenFile']],
    ['two sources of a secret id', { auth: { method: 'approle', roleId: 'r', secretIdFile: '/s', secretIdEnv: 'S' } }, ['auth.secretIdFile']],
    ['an unknown method', { auth: { method: 'userpass', role: 'x' } }, ['auth.method']],
    ['a mount that leaves its place', { mount: 'database/../sys' }, ['mount']],
    ['a mount with slashes at its ends', { mount: '/database/' }, ['mount']],
    ['an index that leaves its place', { indexMount: '..' }, ['indexMount']],
    ['a token role with a slash', { tokenRole: 'a/b' }, ['tokenRole']],
    ['a namespace with an escape', { namespace: 'a%2f..' }, ['namespace']],
    ['plain text to a database elsewhere', { tls: 'disable' }, ['tls']],
    ['nothing that ends open sessions', { sessionsEndWithUser: false }, ['probe']],
    ['a probe without a password', { probe: { user: 'p' } }, ['probe.passwordFile']],
    ['a probe of another kind of database', { plugin: 'other', probe: { user: 'p', passwordFile: '/p' } }, ['probe']],
    ['an unknown key', { adress: 'x' }, ['']],
  ])('with %s is refused', (_name, more, where) => {
    expect(faults(more)).toEqual(where);
  });

  test('a token is for development on loopback', () => {
    expect(faults({ address: 'http://127.0.0.1:8200', auth: { method: 'token', tokenFile: '/t' } })).toEqual([]);
  });

  test('gives the names that follow from it', () => {
    const config = targetSchema.parse(block);
    expect(leasePolicy(config, 'orders-ro')).toBe('halligan-lease-orders-ro');
    expect(indexPath(config, 'orders-vault')).toBe('halligan/leases/orders-vault');
  });
});

test.each(['../orders', 'a/b', 'a..b', '.', '', 'a%2fb', 'a?b', 'a*', 'ä', 'a b'])('a role named %j is refused', (role) => {
  expect(grantSchema.safeParse({ role }).success).toBe(false);
});
