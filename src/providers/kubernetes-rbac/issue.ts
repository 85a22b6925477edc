/**
 * Making a lease in a cluster. What gives access is one binding, made last and at once whole: its role, its subject, its
 * end and our marker. In token mode a service account, a Secret and a token bound to the Secret come before it, which open
 * nothing yet.
 */
import { randomBytes } from 'node:crypto';
import type { HttpInfo, V1ClusterRoleBinding, V1RoleBinding } from '@kubernetes/client-node';
import { failpoint } from '../../domain/failpoint.ts';
import { type Issued, type LeaseSpec, ProviderError } from '../../domain/provider.ts';
import { publicAuthority } from './access.ts';
import { type Answer, type Apis, type Door, factsOf } from './api.ts';
import { type Grant, roleOf } from './config.ts';
import { removeRest } from './end.ts';
import { type Held, heldOf, remove } from './held.ts';
import { leaseIn, markerOf, nameOf, untilOf } from './marker.ts';
import { mustBeGivable, readRole } from './roles.ts';

/** The API server grants no token for less (TokenRequest, `expirationSeconds`). */
export const shortestTokenSeconds = 600;

const group = 'rbac.authorization.k8s.io';
export type Binding = V1RoleBinding | V1ClusterRoleBinding;
export type Subject = { kind: 'User'; apiGroup: string; name: string } | { kind: 'ServiceAccount'; namespace: string; name: string };

/** Whether something may have been made: true from the first call whose outcome is not a plain refusal. */
export interface Trace {
  maybe: boolean;
}

/** Makes the credential, or adopts what an earlier try under this very name made. */
export const issue = (door: Door, spec: LeaseSpec, signal: AbortSignal): Promise<Issued> => tracing((trace) => make(door, spec, trace, signal));

/** Runs `work` and says of its failure whether anything can have been made. */
export async function tracing(work: (trace: Trace) => Promise<Issued>): Promise<Issued> {
  const trace: Trace = { maybe: false };
  try {
    return await work(trace);
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    throw new ProviderError(error.code as ConstructorParameters<typeof ProviderError>[0], error.message, {
      ...(error.next === undefined ? {} : { next: error.next }),
      ...(error.retryAt === undefined ? {} : { retryAt: error.retryAt }),
      nothingMade: !trace.maybe,
      leaseGone: error.leaseGone,
    });
  }
}

async function make(door: Door, spec: LeaseSpec, trace: Trace, signal: AbortSignal): Promise<Issued> {
  const { at, user } = await mayBeGiven(door, spec, signal);
  const token = user === undefined ? await makeToken(door, spec, trace, at, signal) : undefined;
  if (token) await failpoint('kubernetes.token-made');
  const { binding, first } = await bind(door, spec, subjectOf(door, user, token?.account), trace, signal);
  await failpoint('kubernetes.bound');
  if (token && !first) await removeEarlier(door, spec, token.account, signal);
  return issuedBy(door, spec, binding, user, token);
}

/** Throws when the target's block, the role as it is now or the clock speaks against it. `user`: the name of the person at the cluster, in `mode: user`. */
export async function mayBeGiven(door: Door, spec: LeaseSpec, signal: AbortSignal): Promise<{ at: Date | null; user: string | undefined }> {
  const grant = spec.grant as Grant;
  mustBeConfigured(door, grant);
  const user = grant.mode === 'user' ? userOf(door, spec) : undefined;
  const role = await readRole(door, grant, signal);
  mustBeGivable(door, grant, role);
  if (role.at && role.at >= spec.endsAt)
    throw new ProviderError('target_failed', `${door.name}: by the API server's clock (${role.at.toISOString()}) the grant is already over.`);
  return { at: role.at, user };
}

/** Who is bound: the person, or the lease's service account. */
export const subjectOf = (door: Door, user: string | undefined, account = ''): Subject =>
  user === undefined ? { kind: 'ServiceAccount', namespace: door.config.tokenNamespace ?? '', name: account } : { kind: 'User', apiGroup: group, name: user };

/** What the holder is told: the earlier end of the binding's and the token's counts. */
export async function issuedBy(door: Door, spec: LeaseSpec, binding: Binding, user: string | undefined, token: Token | undefined): Promise<Issued> {
  const grant = spec.grant as Grant;
  const until = untilOf(binding.metadata);
  if (!until) throw new ProviderError('target_failed', `${door.name} gave back a binding without an end.`);
  const expiresAt = token && token.expiresAt < until ? token.expiresAt : until;
  const access = await door.access();
  const authority = await publicAuthority(door.config, access, door.options);
  return {
    handle: nameOf(spec.leaseId),
    expiresAt,
    connection: {
      server: door.config.publicServer ?? access.cluster.server,
      user: user ?? `system:serviceaccount:${door.config.tokenNamespace}:${token?.account}`,
      mode: grant.mode,
      ...(grant.namespace === undefined ? {} : { namespace: grant.namespace }),
      ...(authority === undefined ? {} : { certificateAuthority: authority }),
    },
    secret: token ? { token: token.token } : {},
  };
}

function mustBeConfigured(door: Door, grant: Grant): void {
  const fault = configFault(door, grant);
  if (fault) throw new ProviderError('target_failed', fault.message, { next: fault.next, nothingMade: true });
}

/** What the target's block does not say although this grant needs it, or null. */
export function configFault(door: Door, grant: Grant): { message: string; next: string } | null {
  const { namespaces, tokenNamespace } = door.config;
  if (grant.mode === 'token' && tokenNamespace === undefined)
    return { message: `${door.name}: mode: token needs a namespace for its service accounts.`, next: "Set tokenNamespace in the target's config." };
  if (grant.namespace !== undefined && namespaces !== undefined && !namespaces.includes(grant.namespace))
    return {
      message: `${door.name}: the namespace ${grant.namespace} is not among those that the target looks into.`,
      next: "Add it to namespaces in the target's config.",
    };
  return null;
}

/** The name that the API server knows the person by. A name of the cluster's own is never bound, whatever the identity provider says. */
function userOf(door: Door, spec: LeaseSpec): string {
  const { subject } = spec;
  if (subject === undefined || subject === '' || /\p{Cc}/u.test(subject))
    throw new ProviderError('target_failed', `${door.name}: it is not known by what name the cluster knows this person.`, {
      next: 'Use mode: token.',
      nothingMade: true,
    });
  const name = `${door.config.usernamePrefix}${subject}`;
  if (name.startsWith('system:'))
    throw new ProviderError('target_forbids', `${door.name}: the user name ${JSON.stringify(name)} is one of the cluster's own.`, {
      next: 'Set usernamePrefix in the target.',
      nothingMade: true,
    });
  return name;
}

export interface Token {
  readonly account: string;
  readonly token: string;
  readonly expiresAt: Date;
}

/** Once more under another name when the first is taken: that is our own try, whose answer was lost. */
async function makeToken(door: Door, spec: LeaseSpec, trace: Trace, at: Date | null, signal: AbortSignal): Promise<Token> {
  try {
    return await makeTokenOnce(door, spec, trace, at, signal);
  } catch (error) {
    if (factsOf(error).status !== 409) throw error;
    return makeTokenOnce(door, spec, trace, at, signal);
  }
}

/** A service account for this try alone, with a token bound to a Secret: one of an earlier try gets no rights from the new binding. */
async function makeTokenOnce(door: Door, spec: LeaseSpec, trace: Trace, at: Date | null, signal: AbortSignal): Promise<Token> {
  const namespace = door.config.tokenNamespace ?? '';
  const name = `${nameOf(spec.leaseId)}-${randomBytes(4).toString('hex')}`;
  const metadata = { name, namespace, ...markerOf(spec) };
  await create(door, trace, 'making the service account', signal, (apis) =>
    apis.core.createNamespacedServiceAccountWithHttpInfo({ namespace, body: { metadata, automountServiceAccountToken: false } }),
  );
  await failpoint('kubernetes.account-made');
  const secret = await create(door, trace, 'making the Secret', signal, (apis) =>
    apis.core.createNamespacedSecretWithHttpInfo({ namespace, body: { metadata, type: 'Opaque' } }),
  );
  await failpoint('kubernetes.secret-made');
  return askForToken(door, spec, { name, uid: secret.data.metadata?.uid ?? '' }, trace, at, signal);
}

/** A token of the service account that is called like this Secret, bound to it. */
export async function askForToken(
  door: Door,
  spec: LeaseSpec,
  { name, uid }: { name: string; uid: string },
  trace: Trace,
  at: Date | null,
  signal: AbortSignal,
): Promise<Token> {
  const namespace = door.config.tokenNamespace ?? '';
  const seconds = Math.ceil((spec.endsAt.getTime() - (at ?? new Date()).getTime()) / 1_000);
  const boundObjectRef = { kind: 'Secret', apiVersion: 'v1', name, uid };
  const body = { spec: { audiences: [], expirationSeconds: Math.max(shortestTokenSeconds, seconds), boundObjectRef } };
  const { data } = await create(door, trace, 'asking for a token', signal, (apis) =>
    apis.core.createNamespacedServiceAccountTokenWithHttpInfo({ name, namespace, body }),
  );
  const { token, expirationTimestamp } = data.status ?? {};
  if (!token || !expirationTimestamp) throw new ProviderError('target_failed', `${door.name} gave back no token, or one without an end.`);
  return { account: name, token, expiresAt: new Date(expirationTimestamp) };
}

/** Sends something that makes something. A conflict with our own first try, whose answer was lost, is not told apart here. */
async function create<T>(door: Door, trace: Trace, doing: string, signal: AbortSignal, send: (apis: Apis) => Promise<HttpInfo<T>>): Promise<Answer<T>> {
  try {
    const answer = await door.call(signal, doing, send);
    trace.maybe = true;
    return answer;
  } catch (error) {
    if (![400, 401, 403, 404, 405, 413, 422].includes(factsOf(error).status)) trace.maybe = true;
    throw error;
  }
}

/** The binding of this lease, to this role and for this subject. One that an earlier try left is taken over when it is the same, otherwise replaced. */
async function bind(door: Door, spec: LeaseSpec, subject: Subject, trace: Trace, signal: AbortSignal): Promise<{ binding: Binding; first: boolean }> {
  const { namespace } = spec.grant as Grant;
  const body = bindingOf(spec, subject);
  const send = (apis: Apis): Promise<HttpInfo<Binding>> =>
    namespace === undefined ? apis.rbac.createClusterRoleBindingWithHttpInfo({ body }) : apis.rbac.createNamespacedRoleBindingWithHttpInfo({ namespace, body });
  for (let tries = 1; ; tries += 1) {
    try {
      return { binding: (await create(door, trace, 'making the binding', signal, send)).data, first: tries === 1 };
    } catch (error) {
      if (factsOf(error).status !== 409 || tries >= 3) throw error;
    }
    const there = await readBinding(door, spec, signal);
    if (!there) continue;
    if (leaseIn(there.metadata) !== spec.leaseId)
      throw new ProviderError('target_forbids', `${door.name} already has a binding ${nameOf(spec.leaseId)} that is not this lease's.`);
    if (there.metadata?.deletionTimestamp)
      throw new ProviderError('target_failed', `${door.name}: the binding ${nameOf(spec.leaseId)} is already being ended.`);
    if (same(there, body)) return { binding: there, first: false };
    await remove(door, asHeld(there, namespace), signal);
  }
}

function bindingOf(spec: LeaseSpec, subject: Subject) {
  const grant = spec.grant as Grant;
  return {
    metadata: { name: nameOf(spec.leaseId), ...(grant.namespace === undefined ? {} : { namespace: grant.namespace }), ...markerOf(spec) },
    roleRef: { apiGroup: group, ...roleOf(grant) },
    subjects: [subject],
  };
}

/** The binding under the lease's name, whosever it is. */
export async function readBinding(door: Door, spec: LeaseSpec, signal: AbortSignal): Promise<Binding | undefined> {
  const { namespace } = spec.grant as Grant;
  const fieldSelector = `metadata.name=${nameOf(spec.leaseId)}`;
  const list = (apis: Apis): Promise<HttpInfo<{ items: Binding[] }>> =>
    namespace === undefined
      ? apis.rbac.listClusterRoleBindingWithHttpInfo({ fieldSelector })
      : apis.rbac.listNamespacedRoleBindingWithHttpInfo({ namespace, fieldSelector });
  return (await door.call(signal, 'reading the binding that is there', list)).data.items[0];
}

const asHeld = ({ metadata = {} }: Binding, namespace: string | undefined): Held => ({
  kind: namespace === undefined ? 'ClusterRoleBinding' : 'RoleBinding',
  namespace: namespace ?? '',
  name: metadata.name ?? '',
  uid: metadata.uid ?? '',
  leaseId: leaseIn(metadata),
  until: untilOf(metadata),
  finalizers: metadata.finalizers ?? [],
  meta: metadata,
});

/** Whether the binding is this lease's, is not going, and gives exactly what it was made for to this subject. */
export const isWhole = (there: Binding, spec: LeaseSpec, subject: Subject): boolean =>
  leaseIn(there.metadata) === spec.leaseId && !there.metadata?.deletionTimestamp && same(there, bindingOf(spec, subject));

/** Whether the binding gives exactly this: one subject, this role, this end. */
function same(
  there: Binding,
  wanted: { metadata: { annotations: Record<string, string> }; roleRef: { kind: string; name: string }; subjects: Subject[] },
): boolean {
  const [subject, ...others] = there.subjects ?? [];
  const [want] = wanted.subjects;
  return (
    others.length === 0 &&
    subject?.kind === want?.kind &&
    subject?.name === want?.name &&
    there.roleRef.kind === wanted.roleRef.kind &&
    there.roleRef.name === wanted.roleRef.name &&
    untilOf(there.metadata)?.getTime() === untilOf(wanted.metadata)?.getTime()
  );
}

/** Service accounts and Secrets of an earlier try under this name. */
async function removeEarlier(door: Door, spec: LeaseSpec, account: string, signal: AbortSignal): Promise<void> {
  const { held } = await heldOf(door, spec, signal);
  await removeRest(
    door,
    held.filter(({ name }) => name !== account),
    signal,
  );
}
