/** What holds of the vault-database provider with processes dead: Halligan, then Vault too; and Halligan killed between any two calls that it makes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Issued, LeaseSpec } from '../../src/domain/provider.ts';
import { newLease, within } from '../support/provider-contract.ts';
import { type HttpFaultDouble, httpFaultDouble } from './http-fault-double.ts';
import { grant, open, type VaultFixture, vaultFixture } from './vault-fixture.ts';

const children: ChildProcess[] = [];
const shift = fileURLToPath(new URL('../support/clock-shift.mjs', import.meta.url));
const script = fileURLToPath(new URL('vault-child.ts', import.meta.url));
let count = 0;

/** Another Halligan. `said` is its line of JSON, or null when it was killed before it said anything. */
async function childOf(fixture: VaultFixture, work: 'issue' | 'revoke', spec: LeaseSpec, more: { block?: Record<string, unknown>; clockMs?: number } = {}) {
  const file = join(fixture.folder, `child-${count++}.json`);
  await writeFile(file, JSON.stringify({ block: fixture.block(more.block), spec, work }));
  const child = spawn(process.execPath, [...(more.clockMs === undefined ? [] : ['--import', shift]), script, file], {
    env: { ...process.env, HALLIGAN_TEST_CLOCK_SHIFT_MS: String(more.clockMs ?? 0) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  let out = '';
  const said = new Promise<(Issued & { error?: string }) | null>((resolve) => {
    child.stdout?.on('data', (chunk: Buffer) => {
      out += chunk;
      if (out.includes('\n')) resolve(JSON.parse(out));
    });
    child.once('close', () => resolve(null));
  });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    said,
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

/** Uses a credential again and again; says by how many milliseconds after `endsAt` a new login and the open session still worked. */
async function probeUntil(issued: Issued, endsAt: Date, forMs: number): Promise<{ loginMs: number; sessionMs: number }> {
  const session = await open(issued);
  const last = { login: 0, session: 0 };
  while (Date.now() < endsAt.getTime() + forMs) {
    const began = Date.now();
    const again = await open(issued).catch(() => null);
    if (again) last.login = began;
    await again?.end();
    const works = await session.query('SELECT count(*) FROM orders').then(
      () => true,
      () => false,
    );
    if (works) last.session = began;
    await sleep(20);
  }
  await session.end().catch(() => undefined);
  return { loginMs: last.login - endsAt.getTime(), sessionMs: last.session - endsAt.getTime() };
}

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

describe('Halligan dead, Vault alive', () => {
  let fixture: VaultFixture;
  let proxy: HttpFaultDouble;
  beforeAll(async () => {
    fixture = await vaultFixture();
    proxy = await httpFaultDouble(fixture.bao.port);
  });
  afterAll(async () => {
    await proxy.close();
    await fixture.close();
  });

  test('invariant 1: Vault itself refuses new logins and cuts the open session at the end, and drops the user', async () => {
    const spec = newLease(grant, 5);
    const child = await childOf(fixture, 'issue', spec);
    const issued = await child.said;
    if (!issued?.secret) throw new Error(`nothing was issued: ${issued?.error}`);
    await child.kill();
    const measured = await probeUntil(issued, spec.endsAt, 3_000);
    console.log(`measured, Halligan dead, Vault alive: last login ${measured.loginMs} ms, last use of the open session ${measured.sessionMs} ms after the end`);
    const { limits } = fixture.connect();
    expect(measured.loginMs / 1_000).toBeLessThanOrEqual(Math.min(2, limits.newLogin.dead ?? 0));
    expect(measured.sessionMs / 1_000).toBeLessThanOrEqual(limits.openSession.dead ?? 0);
    expect(await fixture.users()).toEqual([]);
    // What is left is our own entry in the index, which a sweep finds and clears.
    const target = fixture.connect();
    expect(await target.inspect(spec, within(5))).toMatchObject({ state: 'present', usable: false });
    await target.revoke(spec, within(10));
    expect(await target.sweep(within(5))).toEqual([]);
  });

  test('invariant 11: with an application clock that is ten minutes off, either way, the credential still ends with the grant', async () => {
    for (const clockMs of [600_000, -600_000]) {
      const spec = newLease(grant, 30);
      const child = await childOf(fixture, 'issue', spec, { clockMs });
      const issued = await child.said;
      if (!issued?.secret) throw new Error(`nothing was issued: ${issued?.error}`);
      await child.kill();
      const early = spec.endsAt.getTime() - new Date(issued.expiresAt).getTime();
      expect(early).toBeGreaterThanOrEqual(0);
      expect(early).toBeLessThan(1_000);
      const target = fixture.connect();
      expect(await target.inspect(spec, within(5))).toMatchObject({ state: 'present', usable: true, expiresAt: new Date(issued.expiresAt) });
      await target.revoke(spec, within(10));
      expect(await fixture.users()).toEqual([]);
    }
  });

  test.each(['issue', 'revoke'] as const)('invariants 4 and 5: killed between any two calls of %s, nothing is left after the next sweep', async (work) => {
    let steps = 0;
    for (let at = 1; ; at += 1) {
      const spec = newLease(grant, 60);
      const target = fixture.connect();
      if (work === 'revoke') await target.issue(spec, within(10));
      proxy.set(() => 'pass');
      const child = await childOf(fixture, work, spec, { block: { address: `http://127.0.0.1:${proxy.port}` } });
      // The death comes when the next call arrives, so the one before it has been answered: between two side effects.
      const died = new Promise<'died'>((resolve) => {
        proxy.set(({ number }) => {
          if (number < at) return 'pass';
          void child.kill().then(() => resolve('died'));
          return 'stall';
        });
      });
      const end = await Promise.race([died, child.said]);
      await child.kill();
      const survived = end !== 'died' && end !== null;
      for (const ref of await target.sweep(within(5))) {
        expect(ref.leaseId).toBe(spec.leaseId);
        await target.revoke(ref, within(10));
      }
      expect(await fixture.users(), `killed before call ${at} of ${work}`).toEqual([]);
      expect(await target.inspect(spec, within(5))).toEqual({ state: 'absent' });
      expect(await target.sweep(within(5))).toEqual([]);
      await target.close();
      if (survived) break;
      steps += 1;
      expect(steps).toBeLessThan(40);
    }
    console.log(`killed before each of the ${steps} calls of ${work}`);
    expect(steps).toBeGreaterThanOrEqual(7);
    // A token that was made and never written down has read nothing: it opens no user, and ends with its grant.
    const { data } = (await fixture.bao.root('LIST', 'auth/token/accessors')) as { data: { keys: string[] } };
    for (const accessor of data.keys) {
      const found = (await fixture.bao.root('POST', 'auth/token/lookup-accessor', { accessor }).catch(() => null)) as {
        data: { meta: Record<string, string> | null; expire_time: string | null; renewable: boolean; orphan: boolean };
      } | null;
      if (!found?.data.meta?.['halligan']) continue;
      expect(found.data).toMatchObject({ renewable: false, orphan: true });
      expect(new Date(found.data.expire_time ?? Number.NaN).getTime()).toBeLessThan(Date.now() + 60_000);
    }
  });
});

describe('Halligan and Vault dead', () => {
  let fixture: VaultFixture;
  beforeAll(async () => {
    fixture = await vaultFixture();
  });
  afterAll(() => fixture.close(true));

  test('invariant 1: the database refuses a new login within the declared bound, and an open session has none, as docs/providers.md says', async () => {
    const spec = newLease(grant, 3);
    const child = await childOf(fixture, 'issue', spec);
    const issued = await child.said;
    if (!issued?.secret) throw new Error(`nothing was issued: ${issued?.error}`);
    await child.kill();
    fixture.bao.child.process.kill('SIGKILL');
    const measured = await probeUntil(issued, spec.endsAt, 9_000);
    console.log(`measured, Halligan and Vault dead: last login ${measured.loginMs} ms after the end`);
    expect(measured.loginMs).toBeGreaterThan(0);
    expect(measured.loginMs / 1_000).toBeLessThanOrEqual(fixture.connect().limits.newLogin.dead ?? 0);
    expect(measured.sessionMs).toBeGreaterThan(8_000);
  });
});
