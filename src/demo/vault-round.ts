/** One more round, on a second target: the same database, by a user that Vault makes for the grant and ends with it. */
import type { House } from './house.ts';
import type { DevOpenBao } from './openbao.ts';
import { vaultTarget } from './orders-vault.ts';
import { type Api, claim, deadlineMs, endOfAccess, expect, openSession, quietly, sleep, type Tell } from './story-parts.ts';

/** Vault ends a token by its own clock, which it tells to the second: up to this long before the grant's end. */
const vaultEarlyMs = 1_000;

/** Asked, approved, claimed, used; then time is up, and neither the database nor Vault has anything left of it. */
export async function vaultRound(house: House, bao: DevOpenBao, people: Record<'oncall' | 'lead', Api>, tell: Tell): Promise<void> {
  const { oncall, lead } = people;
  await tell('vault', async () => {
    const began = performance.now();
    const asked = await oncall('POST', '/requests', {
      entitlements: [vaultTarget],
      duration: '8s',
      reason: 'the same look, through Vault',
      incident: 'INC-4312',
    });
    expect(asked.status === 201 && asked.body['state'] === 'pending', `asking was refused: ${asked.text}`);
    const [entitlement] = asked.body['entitlements'] as { described: { summary: string } | null }[];
    expect(entitlement?.described?.summary.includes('orders_ro'), `what the Vault role opens was not shown: ${asked.text}`);
    const path = `/requests/${String(asked.body['id'])}`;
    const seen = (await lead('GET', path)).body['seen'];
    const decided = await lead('POST', `${path}/decisions`, { decision: 'approve', reason: 'go ahead, through Vault', seen });
    expect(decided.status === 200 && decided.body['state'] === 'approved', `the approval was refused: ${decided.text}`);
    const grant = decided.body['grant'] as { id: string; endsAt: string };

    const credential = await claim(oncall, grant.id, vaultTarget);
    const open = await openSession(house, credential);
    const { rows } = await open.client.query<{ orders: number }>('SELECT count(*)::int AS orders FROM orders');
    const measured: Record<string, number> = { 'time to access': Math.round(performance.now() - began) };
    const [accessor] = await accessorsOf(bao, credential.lease);
    expect(accessor !== undefined && (await holdsToken(bao, accessor)), 'Vault does not have the token of the lease');

    await endOfAccess(house, credential, open, new Date(grant.endsAt), quietly(measured), vaultEarlyMs);
    expect(!(await holdsToken(bao, accessor)), 'Vault still has the token of the lease');
    for (const until = Date.now() + deadlineMs; (await accessorsOf(bao, credential.lease)).length > 0; await sleep(50))
      expect(Date.now() < until, 'the index in Vault still lists the lease');
    return {
      says: `a third round, approved, by a user that Vault made (${credential.handle}): ${rows[0]?.orders} orders; time is up: session cut, login refused, user and token gone`,
      measured,
    };
  });
}

/** The accessors that the index in Vault has for a lease. */
async function accessorsOf(bao: DevOpenBao, lease: string): Promise<string[]> {
  const answer = await bao.root('GET', `halligan/leases/${vaultTarget}/hg_${lease}?list=true`, undefined, [404]);
  return (answer as { data: { keys: string[] } } | null)?.data.keys ?? [];
}

/** Whether Vault has a token of this accessor. OpenBao and Vault each have their own status and words for none. */
const holdsToken = (bao: DevOpenBao, accessor: string): Promise<boolean> =>
  bao.root('POST', 'auth/token/lookup-accessor', { accessor }).then(
    () => true,
    (error: Error) => {
      if (/invalid accessor|token not found|cannot find/i.test(error.message)) return false;
      throw error;
    },
  );
