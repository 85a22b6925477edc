/** What a cluster holds for a lease, or for all of them: bindings, and in token mode service accounts and Secrets. Read from the API server's truth, never from a cache of ours. */
import type { HttpInfo, V1DeleteOptions, V1ObjectMeta } from '@kubernetes/client-node';
import { type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { type Answer, type Apis, type Door, factsOf } from './api.ts';
import { leaseIn, leaseLabel, nameOf, untilOf } from './marker.ts';

export type HeldKind = 'RoleBinding' | 'ClusterRoleBinding' | 'Secret' | 'ServiceAccount';

export interface Held {
  readonly kind: HeldKind;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The lease whose marker it bears, by label and name together; null when it has only our name. */
  readonly leaseId: string | null;
  /** The end that is written on it. */
  readonly until: Date | null;
  readonly finalizers: readonly string[];
  readonly meta: V1ObjectMeta;
}

/** A binding gives access; the rest only helps it. */
export const isBinding = (held: Held): boolean => held.kind === 'RoleBinding' || held.kind === 'ClusterRoleBinding';

interface Page {
  readonly limit: number;
  readonly _continue?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}
interface List {
  readonly metadata?: { _continue?: string };
  readonly items: { metadata?: V1ObjectMeta }[];
}
type Lister = (apis: Apis, page: Page) => Promise<HttpInfo<List>>;

export interface Found {
  readonly held: readonly Held[];
  /** The API server's clock. */
  readonly at: Date | null;
}

/** Everything of this lease. Bindings are looked up by their name, which nobody can change, so that taking our label off hides none. */
export async function heldOf(door: Door, ref: Pick<LeaseRef, 'leaseId'>, signal: AbortSignal): Promise<Found> {
  const byName = { fieldSelector: `metadata.name=${nameOf(ref.leaseId)}` };
  const byLabel = { labelSelector: `${leaseLabel}=${ref.leaseId}` };
  return find(door, signal, byName, byLabel);
}

/** The Secrets and service accounts of this lease, which live in `tokenNamespace`; none where the target has no such. */
export async function tokensOf(door: Door, ref: Pick<LeaseRef, 'leaseId'>, signal: AbortSignal): Promise<readonly Held[]> {
  const found = await Promise.all(tokenJobs(door).map(([kind, list]) => listAll(door, signal, kind, list, { labelSelector: `${leaseLabel}=${ref.leaseId}` })));
  return found.flatMap(({ held }) => held);
}

/** Everything that bears our marker, of every lease. */
export async function everyHeld(door: Door, signal: AbortSignal): Promise<Found> {
  const { held, at } = await find(door, signal, { labelSelector: leaseLabel }, { labelSelector: leaseLabel });
  return { held: held.filter(({ leaseId }) => leaseId !== null), at };
}

type Selector = Omit<Page, 'limit' | '_continue'>;

function tokenJobs(door: Door): [HeldKind, Lister][] {
  const { tokenNamespace: namespace } = door.config;
  if (namespace === undefined) return [];
  return [
    ['Secret', (apis, page) => apis.core.listNamespacedSecretWithHttpInfo({ namespace, ...page })],
    ['ServiceAccount', (apis, page) => apis.core.listNamespacedServiceAccountWithHttpInfo({ namespace, ...page })],
  ];
}

async function find(door: Door, signal: AbortSignal, bindings: Selector, rest: Selector): Promise<Found> {
  const { namespaces } = door.config;
  const jobs: [HeldKind, Lister, Selector][] = [['ClusterRoleBinding', (apis, page) => apis.rbac.listClusterRoleBindingWithHttpInfo(page), bindings]];
  if (namespaces === undefined) jobs.push(['RoleBinding', (apis, page) => apis.rbac.listRoleBindingForAllNamespacesWithHttpInfo(page), bindings]);
  for (const namespace of new Set(namespaces ?? []))
    jobs.push(['RoleBinding', (apis, page) => apis.rbac.listNamespacedRoleBindingWithHttpInfo({ namespace, ...page }), bindings]);
  for (const [kind, list] of tokenJobs(door)) jobs.push([kind, list, rest]);
  const found = await Promise.all(jobs.map(([kind, list, selector]) => listAll(door, signal, kind, list, selector)));
  return { held: found.flatMap(({ held }) => held), at: found.reduce<Date | null>((latest, { at }) => (at && (!latest || at > latest) ? at : latest), null) };
}

/** All pages. When a page is no longer to be had (410), once more from the beginning. */
async function listAll(door: Door, signal: AbortSignal, kind: HeldKind, list: Lister, selector: Selector): Promise<Found> {
  for (let round = 1; ; round += 1) {
    try {
      const held: Held[] = [];
      let at: Date | null = null;
      for (let next: string | undefined = ''; next !== undefined; ) {
        const page: Page = { limit: 500, ...selector, ...(next === '' ? {} : { _continue: next }) };
        const answer: Answer<List> = await door.call(signal, `looking for ${plural[kind]}`, (apis) => list(apis, page));
        if (!Array.isArray(answer.data?.items)) throw new ProviderError('target_failed', `${door.name} gave a list of ${plural[kind]} that cannot be read.`);
        at = answer.at;
        held.push(...answer.data.items.map(({ metadata }) => heldFrom(kind, metadata ?? {})));
        next = answer.data.metadata?._continue || undefined;
      }
      return { held, at };
    } catch (error) {
      if (factsOf(error).status !== 410 || round >= 2) throw error;
    }
  }
}

const plural: Readonly<Record<HeldKind, string>> = {
  RoleBinding: 'role bindings',
  ClusterRoleBinding: 'cluster role bindings',
  Secret: 'Secrets',
  ServiceAccount: 'service accounts',
};

const heldFrom = (kind: HeldKind, meta: V1ObjectMeta): Held => ({
  kind,
  namespace: meta.namespace ?? '',
  name: meta.name ?? '',
  uid: meta.uid ?? '',
  leaseId: leaseIn(meta),
  until: untilOf(meta),
  finalizers: meta.finalizers ?? [],
  meta,
});

/** Deletes this very object, not another that has got its name meanwhile. Gone already is success. */
export async function remove(door: Door, held: Held, signal: AbortSignal): Promise<Removed> {
  const { kind, namespace, name, uid } = held;
  const body: V1DeleteOptions = { preconditions: { uid } };
  const send = (apis: Apis): Promise<HttpInfo<{ status?: unknown }>> => {
    if (kind === 'ClusterRoleBinding') return apis.rbac.deleteClusterRoleBindingWithHttpInfo({ name, body });
    if (kind === 'RoleBinding') return apis.rbac.deleteNamespacedRoleBindingWithHttpInfo({ name, namespace, body });
    if (kind === 'Secret') return apis.core.deleteNamespacedSecretWithHttpInfo({ name, namespace, body });
    return apis.core.deleteNamespacedServiceAccountWithHttpInfo({ name, namespace, body }) as Promise<HttpInfo<{ status?: unknown }>>;
  };
  try {
    const { at, data } = await door.call(signal, `removing the ${kind} ${name}`, send);
    // What a finalizer holds back is answered with the object itself.
    return { at, gone: data.status === 'Success' };
  } catch (error) {
    const { status } = factsOf(error);
    if (status === 404) return { at: null, gone: true };
    // Another object has the name now. Whoever reads back will see it.
    if (status === 409) return { at: null, gone: false };
    throw error;
  }
}

export interface Removed {
  /** The API server's clock. */
  readonly at: Date | null;
  /** False when the object is still there, told to go. */
  readonly gone: boolean;
}
