/**
 * One more credential of a lease that is there: in token mode one more token of its service account, bound to its Secret, so
 * that the earlier ones go on and all of them end with the lease. Nothing else is made. In user mode there is no secret, and
 * what is left is to see that the binding still stands.
 */
import { type Issued, type LeaseSpec, ProviderError } from '../../domain/provider.ts';
import { type Door, factsOf } from './api.ts';
import { type Held, tokensOf } from './held.ts';
import { askForToken, issuedBy, isWhole, mayBeGiven, readBinding, subjectOf, type Token, type Trace, tracing } from './issue.ts';
import { nameOf } from './marker.ts';

/** Throws with `leaseGone` when the binding, the service account or the Secret is not there any more, is on its way out, or was changed. */
export const another = (door: Door, spec: LeaseSpec, signal: AbortSignal): Promise<Issued> =>
  tracing(async (trace) => {
    const { at, user } = await mayBeGiven(door, spec, signal);
    const [binding, held] = await Promise.all([readBinding(door, spec, signal), user === undefined ? tokensOf(door, spec, signal) : []]);
    if (!binding) throw gone(door, spec, 'the binding');
    const account = user === undefined ? (binding.subjects?.[0]?.name ?? '') : undefined;
    if (!isWhole(binding, spec, subjectOf(door, user, account))) throw gone(door, spec, 'the binding as it was made');
    const token = account === undefined ? undefined : await oneMore(door, spec, held, account, trace, at, signal);
    return issuedBy(door, spec, binding, user, token);
  });

async function oneMore(
  door: Door,
  spec: LeaseSpec,
  held: readonly Held[],
  account: string,
  trace: Trace,
  at: Date | null,
  signal: AbortSignal,
): Promise<Token> {
  const secret = secretOf(door, spec, held, account);
  try {
    return await askForToken(door, spec, secret, trace, at, signal);
  } catch (error) {
    // Not found, or a conflict with the Secret's uid: it may have gone since it was read. Only another reading can tell.
    if (![404, 409].includes(factsOf(error).status)) throw error;
    const { uid } = secretOf(door, spec, await tokensOf(door, spec, signal), account);
    if (uid !== secret.uid) throw gone(door, spec, `the Secret ${account} as it was made`);
    throw error;
  }
}

/** The lease's Secret, if its service account is there as well. */
function secretOf(door: Door, spec: LeaseSpec, held: readonly Held[], account: string): Held {
  const own = (kind: Held['kind']): Held | undefined =>
    held.find((one) => one.kind === kind && one.name === account && one.leaseId === spec.leaseId && !one.meta.deletionTimestamp);
  const secret = own('Secret');
  if (!secret || !own('ServiceAccount')) throw gone(door, spec, `the ${secret ? 'service account' : 'Secret'} ${account}`);
  return secret;
}

const gone = (door: Door, spec: LeaseSpec, what: string): ProviderError =>
  new ProviderError('target_failed', `${door.name} no longer holds ${what} of ${nameOf(spec.leaseId)}.`, {
    next: 'Claim again: a new login is made.',
    leaseGone: true,
  });
