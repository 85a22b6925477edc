/** Ends what is over in a cluster: bindings that bear our marker and whose `halligan/until` is past, then the Secrets and service accounts. It knows the marker and the end, and nothing of Halligan. */
import { ProviderError, type TargetOptions } from '../domain/provider.ts';
import { openDoor } from '../providers/kubernetes-rbac/api.ts';
import type { TargetConfig } from '../providers/kubernetes-rbac/config.ts';
import { removeBindings, removeRest } from '../providers/kubernetes-rbac/end.ts';
import { everyHeld, type Held } from '../providers/kubernetes-rbac/held.ts';
import type { Reaped } from './reaped.ts';

/** One round. What cannot be ended is a fault, told in words, and stops nothing else; the cluster's own clock says what is over. */
export async function reapKubernetes(name: string, config: TargetConfig, options: TargetOptions, signal: AbortSignal): Promise<Reaped> {
  const door = openDoor(name, config, options);
  try {
    const { held, at } = await everyHeld(door, signal);
    if (!at) return { ended: [], sessionsCut: 0, notes: [], faults: [`${name} does not say what time it is there, so nothing can be judged.`] };
    const over = held.filter(({ until }) => until !== null && until <= at);
    const faults = held
      .filter(({ until }) => until === null)
      .map((one) => `${shown(one)} bears Halligan's label but no end that can be read; it is left alone.`);
    faults.push(...(await eachInTurn(byLease(over), (some) => removeBindings(door, some, signal))));
    faults.push(...(await eachInTurn(byLease(over), (some) => removeRest(door, some, signal))));
    const left = over.length === 0 ? [] : (await everyHeld(door, signal)).held.filter((one) => over.some(({ uid }) => uid === one.uid));
    faults.push(
      ...left.map(
        (one) => `${shown(one)} is over and still there${one.finalizers.length > 0 ? `, held by the finalizer ${JSON.stringify(one.finalizers[0])}` : ''}.`,
      ),
    );
    const ended = over.filter((one) => left.every(({ uid }) => uid !== one.uid));
    return { ended: ended.map(shown), sessionsCut: 0, notes: [], faults };
  } catch (error) {
    if (error instanceof ProviderError) return { ended: [], sessionsCut: 0, notes: [], faults: [error.message] };
    throw error;
  } finally {
    await door.close();
  }
}

const shown = ({ kind, namespace, name }: Held): string => `${kind} ${namespace === '' ? '' : `${namespace}/`}${name}`;
const byLease = (held: readonly Held[]): Held[][] => [...Map.groupBy(held, ({ leaseId }) => leaseId).values()];

/** Ten leases at a time. Gives the failures in words. */
async function eachInTurn(leases: readonly Held[][], work: (held: Held[]) => Promise<unknown>): Promise<string[]> {
  const faults: string[] = [];
  for (let from = 0; from < leases.length; from += 10) {
    for (const result of await Promise.allSettled(leases.slice(from, from + 10).map(work)))
      if (result.status === 'rejected') faults.push((result.reason as Error).message);
  }
  return faults;
}
