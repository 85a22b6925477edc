import { parse } from 'pg-connection-string';
import { expect, test } from 'vitest';
import { childEnvironment, credentialFormatOf, libpqEnvironment, render } from '../../src/cli/credentials.ts';
import { CliFault } from '../../src/cli/fault.ts';
import type { WireClaim } from '../../src/cli/wire.ts';

const password = `p'a$s:w\\o/rd@!#%&+ é`;
const claim: WireClaim = {
  lease: 'lse_1',
  grant: 'gnt_1',
  entitlement: 'orders-readonly',
  kind: 'postgres',
  target: 'orders-db',
  handle: 'hg_lse_1',
  expiresAt: '2026-11-24T04:12:07.000Z',
  connection: { host: '::1', port: '5432', database: 'a:b/c', user: 'hg_lse_1', sslmode: 'verify-full' },
  secret: { password },
};

test('a password file line escapes backslash and colon', () => {
  expect(render(claim, 'pgpass')).toBe(`\\:\\:1:5432:a\\:b/c:hg_lse_1:p'a$s\\:w\\\\o/rd@!#%&+ é\n`);
});

test('a URI is read back as what was meant', () => {
  const uri = render(claim, 'uri').trim();
  expect(uri).toMatch(/^postgresql:\/\/hg_lse_1:[A-Za-z0-9%._~-]+@\[::1\]:5432\/a%3Ab%2Fc\?sslmode=verify-full$/);
  const url = new URL(uri);
  expect([decodeURIComponent(url.username), decodeURIComponent(url.password), decodeURIComponent(url.pathname.slice(1))]).toEqual([
    'hg_lse_1',
    password,
    'a:b/c',
  ]);
  expect(parse(uri.replace('?sslmode=verify-full', ''))).toMatchObject({ user: 'hg_lse_1', password, port: '5432' });
});

test('a shell that evaluates env gets exactly the values', async () => {
  const { execFileSync } = await import('node:child_process');
  const shown = execFileSync('sh', ['-c', `${render(claim, 'env')}printf '%s\\n' "$PGPASSWORD" "$PGHOST" "$PGSSLMODE"`], { encoding: 'utf8' });
  expect(shown).toBe(`${password}\n::1\nverify-full\n`);
});

test('JSON is the whole claim', () => {
  expect(JSON.parse(render(claim, 'json'))).toEqual(claim);
});

test("a child gets the login, none of what libpq would take before it, and not the caller's own token", () => {
  const env = childEnvironment({ PATH: '/bin', HALLIGAN_TOKEN: 'hgt_x', PGSERVICE: 'prod', PGHOSTADDR: '192.0.2.1', PGHOST: 'old' }, claim);
  expect(env).toMatchObject({ PATH: '/bin', PGHOST: '::1', PGUSER: 'hg_lse_1', HALLIGAN_GRANT: 'gnt_1' });
  for (const name of ['HALLIGAN_TOKEN', 'PGSERVICE', 'PGHOSTADDR']) expect(env[name], name).toBeUndefined();
});

test('a kind that has no such form says so, without its secret', () => {
  const other = { ...claim, kind: 'aws-sts', secret: { secretAccessKey: 'hidden' } };
  const fault = (() => {
    try {
      return libpqEnvironment(other);
    } catch (error) {
      return error;
    }
  })();
  expect(fault).toBeInstanceOf(CliFault);
  expect((fault as Error).message).not.toContain('hidden');
  expect(() => credentialFormatOf('table')).toThrow(expect.objectContaining({ exitCode: 2 }));
});
