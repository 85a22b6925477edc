/**
 * Ending a lease in a cluster: its binding first, which is felt at the next call, then the Secret that its token is bound
 * to and the service account; then everything is read again. Each step may be run twice, by several at once, and by a
 * process that slept in between. The reaper ends what is over by the same code.
 */
import { failpoint } from '../../domain/failpoint.ts';
import { type Gone, type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { type Door, factsOf } from './api.ts';
import { type Held, heldOf, isBinding, remove } from './held.ts';
import { nameOf } from './marker.ts';

const mostRounds = 4;

/** Ends this lease. What is not there is success; a binding with our name but without our marker is refused and left alone. */
export async function revoke(door: Door, ref: LeaseRef, signal: AbortSignal): Promise<Gone> {
  let found = await heldOf(door, ref, signal);
  if (found.held.length === 0) return { cutAt: null, sessionsCut: 0, notes: [] };
  let cutAt: Date | null = null;
  try {
    for (let round = 1; found.held.length > 0; round += 1) {
      mustBeOurs(door, ref, found.held);
      if (round > mostRounds) throw stillThere(door, found.held);
      cutAt = await removeBindings(door, found.held, signal);
      await failpoint('kubernetes.unbound');
      await removeRest(door, found.held, signal);
      await failpoint('kubernetes.removed');
      found = await heldOf(door, ref, signal);
      if (found.held.some(isBinding)) cutAt = null;
    }
  } catch (error) {
    throw withCut(error, cutAt);
  }
  return { cutAt: cutAt ?? found.at ?? new Date(), sessionsCut: 0, notes: [] };
}

/** The bindings, all at once. Gives the time when the last was gone, or when there was none; null when one is still there. */
export async function removeBindings(door: Door, held: readonly Held[], signal: AbortSignal): Promise<Date | null> {
  const removed = await Promise.all(held.filter(isBinding).map((one) => remove(door, one, signal)));
  if (removed.some(({ gone }) => !gone)) return null;
  return removed.reduce<Date | null>((latest, { at }) => (at && (!latest || at > latest) ? at : latest), null) ?? new Date();
}

/** What only helped the binding: the Secret first, so that the token dies even when the service account cannot be removed. */
export async function removeRest(door: Door, held: readonly Held[], signal: AbortSignal): Promise<void> {
  const remaining = (kind: 'Secret' | 'ServiceAccount') => Promise.all(held.filter((one) => one.kind === kind).map((one) => remove(door, one, signal)));
  await remaining('Secret');
  await failpoint('kubernetes.secret-removed');
  await remaining('ServiceAccount');
}

function mustBeOurs(door: Door, ref: LeaseRef, held: readonly Held[]): void {
  const foreign = held.find((one) => isBinding(one) && one.leaseId !== ref.leaseId);
  if (!foreign) return;
  throw new ProviderError(
    'target_forbids',
    `${door.name}: the ${foreign.kind} ${where(foreign)} does not bear the marker of ${ref.leaseId}, so it is not Halligan's to end.`,
    { next: `Look at it (kubectl get ${foreign.kind.toLowerCase()} ${nameOf(ref.leaseId)} -o yaml): somebody took its label off, or made it by hand.` },
  );
}

function stillThere(door: Door, held: readonly Held[]): ProviderError {
  const [one] = held.toSorted((a, b) => Number(isBinding(b)) - Number(isBinding(a)));
  const finalizers = one?.finalizers ?? [];
  const why = finalizers.length > 0 ? `, held by the finalizer ${JSON.stringify(finalizers[0])}` : '';
  return new ProviderError('target_failed', `${door.name}: the ${one?.kind} ${one ? where(one) : ''} was removed, but reading back still shows it${why}.`, {
    next:
      finalizers.length > 0
        ? `As an administrator there: kubectl patch ${one?.kind.toLowerCase()} ${one?.name}${one?.namespace ? ` -n ${one.namespace}` : ''} --type=merge -p '{"metadata":{"finalizers":null}}', and find out who put it there.`
        : 'Look at it there: something makes it again.',
  });
}

const where = ({ namespace, name }: Held): string => (namespace === '' ? name : `${namespace}/${name}`);

/** The same failure, saying as well that access is cut, when it is. */
function withCut(error: unknown, at: Date | null): unknown {
  if (!(error instanceof ProviderError) || at === null) return error;
  const facts = factsOf(error);
  const again = new ProviderError(error.code as ConstructorParameters<typeof ProviderError>[0], error.message, {
    ...(error.next === undefined ? {} : { next: error.next }),
    ...(error.retryAt === undefined ? {} : { retryAt: error.retryAt }),
    cut: { at, sessionsCut: 0 },
  });
  Object.defineProperty(again, 'cause', { value: facts, enumerable: false });
  return again;
}
