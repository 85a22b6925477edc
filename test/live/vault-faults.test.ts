/** Faults between Halligan and Vault, and in Vault: each ends in words, in time, with nothing left behind; ending a lease succeeds as soon as the fault is over. */
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect as show } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ProviderError, Target } from '../../src/domain/provider.ts';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { type HttpFault, type HttpFaultDouble, httpFaultDouble } from './http-fault-double.ts';
import { grant, open, type VaultFixture, vaultFixture } from './vault-fixture.ts';

let fixture: VaultFixture;
let proxy: HttpFaultDouble;
let direct: Target;
let target: Target;

beforeAll(async () => {
  fixture = await vaultFixture();
  proxy = await httpFaultDouble(fixture.bao.port);
  direct = fixture.connect();
  target = fixture.connect({ address: `http://127.0.0.1:${proxy.port}` });
  expect(await target.check([grant], within(10))).toEqual([]);
});
afterEach(async () => {
  proxy.set(() => 'pass');
  for (const ref of await direct.sweep(within(5))) await direct.revoke(ref, within(10));
  expect(await fixture.users()).toEqual([]);
});
afterAll(async () => {
  await proxy?.close();
  await fixture?.close();
});

/** The fault meets the calls whose path has this in it; the others pass. */
const only = (part: string, fault: HttpFault) => proxy.set(({ path }) => (path.includes(part) ? fault : 'pass'));

/** Invariant 22: nothing that anybody could use is in an error, however it is printed. */
function mustHoldNoSecret(error: ProviderError): void {
  const text = `${show(error, { depth: 12, showHidden: true })} ${JSON.stringify(error)} ${error.stack}`;
  expect(text).not.toMatch(/\b(?:hvs|hvb|s|b)\.[A-Za-z0-9]{16,}|eyJ[A-Za-z0-9_-]{10,}/);
  expect(text).not.toContain(fixture.bao.rootToken);
  expect(error.message.length).toBeGreaterThan(20);
}

const faults: [string, HttpFault, string][] = [
  ['an answer of 500', { status: 500, body: { errors: ['1 error occurred: internal error s.AAAAAAAAAAAAAAAAAAAAAAAA'] } }, 'target_failed'],
  ['an answer of 502 in HTML', { status: 502, body: '<html>' }, 'target_failed'],
  ['429 with Retry-After', { status: 429, body: { errors: [] }, headers: { 'retry-after': '7' } }, 'target_failed'],
  ['a sealed server', { status: 503, body: { errors: ['Vault is sealed'] } }, 'target_unreachable'],
  ['a standby that redirects', { status: 307, body: {}, headers: { location: 'https://vault-2.example.com:8200/v1/x' } }, 'target_unreachable'],
  ['a standby that says so', { status: 473, body: { errors: ['Vault is in standby mode'] } }, 'target_unreachable'],
  ['a connection that closes', 'refuse', 'target_unreachable'],
  ['an answer that is lost after the work was done', 'reset-after-send', 'target_unreachable'],
  ['an answer that is not Vault', { status: 200, body: { hello: 'world' } }, 'target_failed'],
];

describe('a claim that meets', () => {
  const steps = ['auth/token/create', '/halligan/leases', 'database/creds', 'sys/leases/renew', 'lookup-accessor'];
  const once = ['auth/token/create', 'database/creds'];
  for (const [name, fault, code] of faults) {
    test(`${name}, at each of its calls, ends in words and leaves nothing`, async () => {
      for (const step of steps) {
        if (step !== '/halligan/leases' || typeof fault !== 'object' || fault.status !== 200) {
          const lease = newLease(grant, 60);
          let met = 0;
          proxy.set(({ path }) => {
            if (!path.includes(step) || met > 0) return 'pass';
            met += 1;
            return fault;
          });
          const claim = target.issue(lease, within(8));
          if (
            typeof fault === 'string' &&
            !once.includes(step) &&
            (await claim.then(
              () => true,
              () => false,
            ))
          ) {
            // A kept connection that breaks is tried again on a new one, where that makes nothing twice.
            await direct.revoke(lease, within(10));
            continue;
          }
          const error = await refusalOf(claim);
          expect(met, step).toBe(1);
          expect({ step, code: error.code }).toEqual({ step, code });
          mustHoldNoSecret(error);
          if (name.startsWith('429')) expect((error.retryAt?.getTime() ?? 0) - Date.now()).toBeGreaterThan(4_000);
          if (name.includes('redirects')) expect(error.next).toContain('vault-2.example.com:8200');
          // Undone by the claim itself, before it answers; where the answer was lost, Vault may still be at work on what was asked, and takes it back itself.
          if (fault === 'reset-after-send') await expect.poll(() => fixture.users(), { timeout: 5_000, message: step }).toEqual([]);
          else expect(await fixture.users(), step).toEqual([]);
          if (error.nothingMade) expect(await direct.inspect(lease, within(5))).toEqual({ state: 'absent' });
        }
      }
    });
  }

  test('a stall, at each of its calls, ends by its signal, and nothing appears afterwards', async () => {
    for (const step of steps) {
      only(step, 'stall');
      const began = performance.now();
      const error = await refusalOf(target.issue(newLease(grant, 60), within(1)));
      expect(performance.now() - began).toBeLessThan(1_500);
      expect({ step, code: error.code, nothingMade: error.nothingMade }).toEqual({ step, code: 'target_timeout', nothingMade: false });
      mustHoldNoSecret(error);
      proxy.set(() => 'pass');
      for (const ref of await direct.sweep(within(5))) await direct.revoke(ref, within(10));
      await sleep(300);
      expect(await fixture.users(), step).toEqual([]);
    }
  });

  test('a database that is slow: giving up closes the call, and Vault takes back what it had begun', async () => {
    await fixture.superuser.query('BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(2.5); COMMIT').then(
      () => undefined,
      () => undefined,
    );
    const holding = fixture.superuser.query('BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(3); COMMIT');
    await sleep(200);
    const lease = newLease(grant, 60);
    const error = await refusalOf(direct.issue(lease, within(1)));
    expect(error.code).toBe('target_timeout');
    await holding;
    await direct.revoke(lease, within(10));
    await sleep(1_000);
    expect(await fixture.users()).toEqual([]);
  });
});

describe('ending a lease', () => {
  test.each(faults)('that meets %s fails in words, and succeeds once it is over', async (_name, fault, code) => {
    for (const step of ['/halligan/leases', 'sys/leases/revoke', 'revoke-accessor']) {
      const lease = newLease(grant, 60);
      const issued = await direct.issue(lease, within(10));
      const session = await open(issued);
      only(step, fault);
      const ended = await target.revoke(lease, within(20)).then(
        () => null,
        (error: unknown) => error as ProviderError,
      );
      // What is lost is the answer alone; reading back may find that it was done.
      if (ended !== null) {
        expect({ step, code: ended.code }).toEqual({ step, code });
        mustHoldNoSecret(ended);
      } else expect(['reset-after-send', 200]).toContain(typeof fault === 'object' ? fault.status : fault);
      proxy.set(() => 'pass');
      await target.revoke(lease, within(20));
      expect(await direct.inspect(lease, within(5))).toEqual({ state: 'absent' });
      await expect(session.query('SELECT 1')).rejects.toThrow();
      await session.end().catch(() => undefined);
    }
  });

  test('with Vault stalled ends by its signal, and with Vault stopped and continued succeeds', async () => {
    const lease = newLease(grant, 60);
    await direct.issue(lease, within(10));
    fixture.bao.child.process.kill('SIGSTOP');
    const began = performance.now();
    try {
      expect((await refusalOf(direct.revoke(lease, within(2)))).code).toBe('target_timeout');
      expect(performance.now() - began).toBeLessThan(2_500);
    } finally {
      fixture.bao.child.process.kill('SIGCONT');
    }
    expect((await direct.revoke(lease, within(20))).cutAt).toBeInstanceOf(Date);
  });

  test('with Vault sealed says so; the claim as well; unsealed, both work', async () => {
    const lease = newLease(grant, 60);
    await direct.issue(lease, within(10));
    await fixture.bao.seal();
    try {
      expect(await refusalOf(direct.issue(newLease(grant, 60), within(8)))).toMatchObject({
        code: 'target_unreachable',
        message: expect.stringContaining('sealed'),
        nothingMade: true,
      });
      expect(await refusalOf(direct.revoke(lease, within(8)))).toMatchObject({ code: 'target_unreachable', message: expect.stringContaining('sealed') });
      expect(await direct.check([grant], within(5))).toMatchObject([{ message: expect.stringContaining('sealed'), next: expect.stringContaining('unseal') }]);
    } finally {
      await fixture.bao.unseal();
    }
    // The unsealed server needs a moment to load its leases.
    for (let tries = 0; tries < 50 && (await direct.check([grant], within(5))).length > 0; tries += 1) await sleep(100);
    expect((await direct.revoke(lease, within(20))).cutAt).toBeInstanceOf(Date);
  });

  test('with the database away fails in words; once it is back the lease ends', async () => {
    const lease = newLease(grant, 60);
    const issued = await direct.issue(lease, within(10));
    await fixture.superuser.query('ALTER ROLE vault_orders NOLOGIN');
    await fixture.superuser.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'vault_orders'`);
    try {
      const error = await refusalOf(direct.revoke(lease, within(20)));
      expect(error.code).toMatch(/^target_(failed|timeout)$/);
      mustHoldNoSecret(error);
    } finally {
      await fixture.superuser.query('ALTER ROLE vault_orders LOGIN');
    }
    expect(await direct.inspect(lease, within(5))).toMatchObject({ state: 'present' });
    await direct.revoke(lease, within(20));
    await expect(open(issued)).rejects.toMatchObject({ code: '28P01' });
  });

  test('invariant 7: a holder who left something in another database cannot keep the access: it is cut although the user cannot be dropped yet', async () => {
    await fixture.superuser.query('GRANT CREATE, CONNECT ON DATABASE postgres TO orders_ro');
    const lease = newLease(grant, 60);
    const issued = await direct.issue(lease, within(10));
    const elsewhere = await open({ ...issued, connection: { ...issued.connection, database: 'postgres' } });
    await elsewhere.query('CREATE SCHEMA hostile; CREATE TABLE hostile.kept (id int)');
    const session = await open(issued);
    try {
      const first = await refusalOf(direct.revoke(lease, within(20)));
      expect(first).toMatchObject({
        code: 'target_failed',
        message: expect.stringContaining('left something behind'),
        next: expect.stringContaining('DROP OWNED BY'),
      });
      await expect(session.query('SELECT 1')).rejects.toThrow();
      await expect(elsewhere.query('SELECT 1')).rejects.toThrow();
      await sleep(6_500);
      await expect(open(issued)).rejects.toMatchObject({ code: '28P01' });
      expect((await refusalOf(direct.revoke(lease, within(20)))).cut?.at).toBeInstanceOf(Date);
    } finally {
      await session.end().catch(() => undefined);
      await elsewhere.end().catch(() => undefined);
      const { asSuperuser } = await import('../support/postgres.ts');
      await asSuperuser('postgres', `DROP OWNED BY "${issued.handle}"`, 'REVOKE CREATE, CONNECT ON DATABASE postgres FROM orders_ro');
    }
    await direct.revoke(lease, within(20));
    expect(await direct.inspect(lease, within(5))).toEqual({ state: 'absent' });
  });

  test('invariant 9: whenever it comes while a claim is under way, nothing outlives the two', async () => {
    for (let wait = 0; wait < 24; wait += 1) {
      const lease = newLease(grant, 60);
      const early = sleep(wait).then(() => direct.revoke(lease, within(10)));
      await Promise.allSettled([direct.issue(lease, within(10)), early]);
      await direct.revoke(lease, within(20));
      expect(await fixture.users(), `revoked ${wait} ms after the claim began`).toEqual([]);
    }
  });
});

describe('who we are talking to', () => {
  test('a server that is not there, one that does not prove who it is, and one that speaks another protocol are told apart', async () => {
    const lease = newLease(grant, 60);
    const away = fixture.connect({ address: 'http://127.0.0.1:1' });
    expect(await refusalOf(away.issue(lease, within(5)))).toMatchObject({ code: 'target_unreachable', message: expect.stringContaining('ECONNREFUSED') });
    const notTls = fixture.connect({ address: `https://127.0.0.1:${fixture.bao.port}` });
    expect(await refusalOf(notTls.issue(lease, within(5)))).toMatchObject({ code: 'target_unreachable' });
    expect(await away.check([grant], within(5))).toHaveLength(1);
    const caAway = fixture.connect({ address: `https://127.0.0.1:${fixture.bao.port}`, tlsCaFile: `${fixture.folder}/no-such.pem` });
    expect(await refusalOf(caAway.issue(lease, within(5)))).toMatchObject({ code: 'target_unreachable', message: expect.stringContaining('cannot be read') });
  });
});

describe("Halligan's own login", () => {
  test('is made anew from the JWT file, read again, when Vault forgot the token; its loss is told', async () => {
    const own = fixture.connect();
    const lease = newLease(grant, 60);
    await own.issue(lease, within(10));
    fixture.warnings.length = 0;
    await fixture.bao.root('PUT', 'sys/leases/revoke-prefix/auth/jwt');
    await own.revoke(lease, within(10));
    expect(fixture.warnings.join()).toContain('vault_login_lost');
  });

  test('when it cannot be had, claims fail in words at once, ending goes on trying, and both work again when it is back', async () => {
    const own = fixture.connect();
    const lease = newLease(grant, 60);
    await own.issue(lease, within(10));
    await fixture.bao.root('PUT', 'sys/leases/revoke-prefix/auth/jwt');
    for (const spoil of [
      () => fixture.writeJwt({ seconds: -120 }),
      () => fixture.writeJwt({ audience: 'elsewhere' }),
      () => fixture.writeJwt({ subject: 'system:serviceaccount:other:other' }),
      () => writeFile(fixture.jwtFile, ''),
      () => writeFile(fixture.jwtFile, 'not a token'),
    ]) {
      await spoil();
      const error = await refusalOf(own.issue(newLease(grant, 60), within(8)));
      expect(error).toMatchObject({ code: 'target_forbids', nothingMade: true });
      mustHoldNoSecret(error);
      expect((await refusalOf(own.revoke(lease, within(8)))).code).toBe('target_forbids');
    }
    await fixture.writeJwt();
    await own.revoke(lease, within(10));
    const again = newLease(grant, 60);
    await own.issue(again, within(10));
    await own.revoke(again, within(10));
  });

  test('is renewed before it ends, and replaced when it can be renewed no more, with no call failing', async () => {
    const role = { role_type: 'jwt', user_claim: 'sub', bound_audiences: 'vault', token_policies: 'halligan-orders-vault', token_no_default_policy: true };
    await fixture.bao.root('POST', 'auth/jwt/role/short', { ...role, token_ttl: '3s', token_max_ttl: '7s' });
    const own = fixture.connect({ auth: { method: 'jwt', role: 'short', jwtFile: fixture.jwtFile }, address: `http://127.0.0.1:${proxy.port}` });
    proxy.set(() => 'pass');
    for (const until = Date.now() + 12_000; Date.now() < until; await sleep(250)) await own.describe(grant, within(3));
    const calls = proxy.calls();
    expect(calls.filter((call) => call.includes('renew-self')).length).toBeGreaterThanOrEqual(2);
    const logins = calls.filter((call) => call.includes('jwt/login')).length;
    expect(logins).toBeGreaterThanOrEqual(2);
    expect(logins).toBeLessThanOrEqual(6);
    await own.close();
    expect(proxy.calls().at(-1)).toContain('revoke-self');
  });
});
