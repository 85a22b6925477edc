/** A scheduled grant becomes active when its start has come. */
import { move } from '../db/stores/move.ts';
import { type GrantRow, lockGrant } from '../db/stores/open-leases.ts';
import { grantMachine, transition } from '../domain/lifecycle.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx } from './context.ts';
import { aboutGrant } from './end-lease.ts';

/** Starts a locked, scheduled grant if its time has come; returns it as it is now. */
export async function startIfDue(tx: Tx, grant: GrantRow): Promise<GrantRow> {
  if (grant.state !== 'scheduled') return grant;
  const outcome = transition(grantMachine, grant.state, 'start', { startsAt: grant.starts_at, endsAt: grant.ends_at, openLeases: 0 }, tx.now);
  if ('refuse' in outcome) return grant;
  const epoch = await move(tx.sql, 'access_grant', grant, outcome.to);
  tx.witness({ ...aboutGrant(grant), type: outcome.auditEvent });
  return { ...grant, state: outcome.to, epoch };
}

/** Starts the grant if its time has come; does nothing when it has been started, ended or cancelled meanwhile. */
export async function startGrant(ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>, grantId: string): Promise<void> {
  await commit(ctx, { system: 'expire-grants' }, async (tx) => {
    const grant = await lockGrant(tx.sql, grantId);
    if (grant) await startIfDue(tx, grant);
  });
}
