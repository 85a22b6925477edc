/** The same target inside a namespace of Vault. */
import { expect, test } from 'vitest';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { grant, open, vaultFixture } from './vault-fixture.ts';

test('in a namespace everything works as outside, and outside of it there is nothing', async () => {
  const fixture = await vaultFixture({ namespace: 'team-a' });
  try {
    const target = fixture.connect();
    expect(await target.check([grant], within(10))).toEqual([]);
    const lease = newLease(grant, 60);
    const session = await open(await target.issue(lease, within(10)));
    expect(await target.sweep(within(5))).toEqual([{ leaseId: lease.leaseId, externalName: lease.externalName }]);
    expect((await target.revoke(lease, within(10))).sessionsCut).toBe(1);
    await expect(session.query('SELECT 1')).rejects.toThrow();
    await session.end().catch(() => undefined);
    expect(await target.inspect(lease, within(5))).toEqual({ state: 'absent' });
    const outside = fixture.connect({ namespace: undefined });
    expect((await refusalOf(outside.issue(newLease(grant, 60), within(5)))).code).toBe('target_forbids');
  } finally {
    await fixture.close();
  }
});
