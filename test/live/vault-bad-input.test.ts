/** A Vault target that somebody set up wrongly, or half: the check and the claim say in one sentence what it is and what mends it, and nothing stays behind. */
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Target, TargetFault } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/vault-database/config.ts';
import { setupCommands } from '../../src/providers/vault-database.ts';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { grant, missingGrant, targetName, type VaultFixture, vaultFixture } from './vault-fixture.ts';

let fixture: VaultFixture;

/** What `halligan print vault-setup` says for the target with these changes. */
const printed = (more: Record<string, unknown> = {}): string =>
  setupCommands(targetSchema.parse(fixture.block(more)), [grant, missingGrant], targetName, 3_600);
const root: VaultFixture['bao']['root'] = (...call) => fixture.bao.root(...call);

beforeAll(async () => {
  fixture = await vaultFixture();
  await root('POST', 'sys/mounts/plain', { type: 'kv', options: { version: '2' } });
});
afterEach(async () => {
  // Whatever was wrong with one target: the good one works beside it, and holds nothing.
  await fixture.bao.script(printed());
  const good = fixture.connect();
  expect(await good.check([grant], within(10))).toEqual([]);
  const lease = newLease(grant, 30);
  await good.issue(lease, within(10));
  await good.revoke(lease, within(10));
  expect(await good.sweep(within(5))).toEqual([]);
  expect(await fixture.users()).toEqual([]);
  expect(await tokens()).toBe(0);
});
afterAll(() => fixture?.close());

/** How many tokens of leases there are. */
async function tokens(): Promise<number> {
  const { data } = (await root('LIST', 'auth/token/accessors')) as { data: { keys: string[] } };
  let count = 0;
  for (const accessor of data.keys) {
    const found = (await root('POST', 'auth/token/lookup-accessor', { accessor }).catch(() => null)) as { data: { meta: { halligan?: string } | null } } | null;
    if (found?.data.meta?.halligan) count += 1;
  }
  return count;
}

const wanted = (message: RegExp, next: RegExp) => ({ message: expect.stringMatching(message), next: expect.stringMatching(next) });
/** The claim of such a target: refused with this code, in one sentence with a next step, and certainly nothing made. */
async function refusedClaim(target: Target, code: string, message: RegExp, next: RegExp): Promise<void> {
  const lease = newLease(grant, 60);
  for (const spec of [lease, { ...newLease(grant, 60), first: true as const }]) {
    const error = await refusalOf(target.issue(spec, within(8)));
    expect(error).toMatchObject({ code, nothingMade: true, ...wanted(message, next) });
    expect(error.message.trim().split('\n')).toHaveLength(1);
  }
}

describe('a mount', () => {
  test('that is no database is named by what it is', async () => {
    const more = { mount: 'plain' };
    await fixture.bao.script(printed(more));
    const target = fixture.connect(more);
    expect(await target.check([grant], within(10))).toContainEqual(wanted(/mounted at plain is of type kv, not database/, /Correct "mount"/));
    await refusedClaim(target, 'target_missing_role', /has no role orders-ro at plain\/roles/, /bao list plain\/roles/);
  });

  test('that is not there is named', async () => {
    const more = { mount: 'nowhere' };
    await fixture.bao.script(printed(more));
    const target = fixture.connect(more);
    expect(await target.check([grant], within(10))).toContainEqual(wanted(/no secrets engine at nowhere/, /bao secrets list/));
    await refusedClaim(target, 'target_missing_role', /has no role orders-ro at nowhere\/roles/, /bao list nowhere\/roles/);
  });
});

describe('the printed commands', () => {
  test.each(['plain', 'database'])('stop before anything is written where the index would be an engine of another kind: %s', async (indexMount) => {
    const policies = async (): Promise<unknown> => {
      const { data } = (await root('LIST', 'sys/policies/acl')) as { data: { keys: string[] } };
      return Promise.all(data.keys.map((name) => root('GET', `sys/policies/acl/${name}`).then((answer) => (answer as { data: unknown }).data)));
    };
    const before = await policies();
    await expect(fixture.bao.script(printed({ indexMount }))).rejects.toThrow(/no kv version 1.*choose another indexMount/s);
    expect(await policies()).toEqual(before);
  });

  test('end at the first one that fails, and leave the shell that they were pasted into', async () => {
    const out = await fixture.bao.script(`set +e\n${printed({ indexMount: 'plain' })}\necho still here`);
    expect(out.trim().split('\n')).toEqual(['still here']);
  });
});

describe('a target that is half set up', () => {
  test('without its index', async () => {
    const more = { indexMount: 'unmade' };
    await fixture.bao.script(printed(more));
    await root('DELETE', 'sys/mounts/unmade');
    const target = fixture.connect(more);
    expect(await target.check([grant], within(10))).toContainEqual(wanted(/no engine for the index at unmade/, /vault-setup/));
    await refusedClaim(target, 'target_forbids', /no kv engine of version 1 for the index at unmade/, /vault-setup/);
  });

  test('without its token role', async () => {
    const more = { tokenRole: 'unmade-lease' };
    await fixture.bao.script(printed(more));
    await root('DELETE', 'auth/token/roles/unmade-lease');
    const target = fixture.connect(more);
    expect(await target.check([grant], within(10))).toContainEqual(wanted(/no token role unmade-lease/, /docs\/providers\.md/));
    await refusedClaim(target, 'target_forbids', /makes no token for orders-ro/, /Make the token role unmade-lease/);
  });

  test("without Halligan's own policy", async () => {
    await root('DELETE', 'sys/policies/acl/halligan-orders-vault');
    const target = fixture.connect();
    expect(await target.check([grant], within(10))).toContainEqual(wanted(/refused|lacks rights/, /policy/));
    await refusedClaim(target, 'target_forbids', /Vault refused while/, /policy/);
  });

  test('without the role in the allowed roles of its database connection', async () => {
    const allow = (allowed_roles: string) =>
      root('POST', 'database/config/orders', { plugin_name: 'postgresql-database-plugin', verify_connection: false, allowed_roles });
    await allow('others');
    try {
      await refusedClaim(fixture.connect(), 'target_forbids', /does not list orders-ro among its allowed roles/, /allowed_roles/);
    } finally {
      await allow('orders-ro');
    }
  });
});

test('a token file that is not there, is empty, or cannot be read is named, with what was found', async () => {
  const files = { gone: join(fixture.folder, 'no-such-file'), empty: join(fixture.folder, 'empty-file'), folder: join(fixture.folder, 'a-folder') };
  await writeFile(files.empty, '\n');
  await mkdir(files.folder);
  for (const [file, why] of [
    [files.gone, /cannot be read \(ENOENT\)/],
    [files.empty, /is empty/],
    [files.folder, /cannot be read \(EISDIR\)/],
  ] as const)
    for (const auth of [
      { method: 'jwt', role: 'halligan', jwtFile: file },
      { method: 'token', tokenFile: file },
      { method: 'approle', roleId: 'x', secretIdFile: file },
    ]) {
      const target = fixture.connect({ auth });
      await refusedClaim(target, 'target_forbids', why, /Mount or write it/);
      expect(await target.check([grant], within(5))).toEqual([wanted(why, /Mount or write it/)]);
    }
});

test.each([
  [600_000, /clock is \d+ s behind Halligan's/],
  [-600_000, /clock is \d+ s ahead of Halligan's/],
])('a clock that is ten minutes off (%i ms) is told by the check, with what mends it', async (clockMs, message) => {
  const file = join(fixture.folder, `clock-${clockMs}.json`);
  await fixture.writeJwt({ seconds: 3_600 });
  await writeFile(file, JSON.stringify({ block: fixture.block(), spec: newLease(grant, 60), work: 'check' }));
  const [shift, script] = ['../support/clock-shift.mjs', 'vault-child.ts'].map((name) => fileURLToPath(new URL(name, import.meta.url)));
  const child = spawn(process.execPath, ['--import', shift ?? '', script ?? '', file], {
    env: { ...process.env, HALLIGAN_TEST_CLOCK_SHIFT_MS: String(clockMs) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const line = await new Promise<string>((resolve, reject) => {
      let out = '';
      child.stdout.on('data', (chunk: Buffer) => {
        out += chunk;
        if (out.includes('\n')) resolve(out);
      });
      child.once('close', () => reject(new Error('the child said nothing')));
    });
    const faults = JSON.parse(line) as TargetFault[];
    expect(faults).toEqual([wanted(message, /NTP/)]);
    const seconds = Number(/\d+/.exec(faults[0]?.message ?? '')?.[0]);
    expect(Math.abs(seconds - 600)).toBeLessThan(3);
  } finally {
    child.kill('SIGKILL');
  }
});
