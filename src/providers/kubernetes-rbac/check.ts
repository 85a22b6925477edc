/** Everything that can be wrong with a cluster before anybody needs it, each with what mends it. */
import { ProviderError, type TargetFault } from '../../domain/provider.ts';
import { type Door, factsOf } from './api.ts';
import type { Grant } from './config.ts';
import { configFault } from './issue.ts';
import { leaseIn } from './marker.ts';
import { type Right, rightInWords, rightsFor } from './rights.ts';
import { mustBeGivable, readRole } from './roles.ts';

/** At most this far may the cluster's clock be from ours before grants end visibly early or late there. */
const mostSkewSeconds = 5;
const printed = 'Apply what halligan print k8s-rbac prints for this config.';

/** All faults at once. A cluster that cannot be reached, or does not know us, has one: that. */
export async function checkTarget(door: Door, grants: readonly Grant[], signal: AbortSignal): Promise<TargetFault[]> {
  try {
    const faults = await checkServer(door, signal);
    const usable: Grant[] = [];
    for (const grant of distinct(grants)) {
      const found = await checkGrant(door, grant, signal);
      faults.push(...found);
      if (found.length === 0) usable.push(grant);
    }
    const [rights, excess, limited, kept] = await Promise.all([
      checkRights(door, rightsFor(door.config, usable), signal),
      checkExcess(door, grants, signal),
      usable.length > 0 ? checkPolicy(door, usable, signal) : [],
      checkTokenNamespace(door, signal),
    ]);
    return [...faults, ...rights, ...excess, ...limited, ...kept];
  } catch (error) {
    if (error instanceof ProviderError) return [asFault(error)];
    throw error;
  }
}

const asFault = (error: ProviderError): TargetFault => ({ message: error.message, next: error.next ?? 'Try again; if it stays, look at the API server.' });
const distinct = (grants: readonly Grant[]): Grant[] => [...new Map(grants.map((grant) => [JSON.stringify(grant), grant])).values()];

/** Reachable, new enough, the right clock, and who it takes us for. */
async function checkServer(door: Door, signal: AbortSignal): Promise<TargetFault[]> {
  const { config, name } = door;
  const before = Date.now();
  const version = await door.call(signal, 'asking for its version', (apis) => apis.version.getCodeWithHttpInfo());
  const after = Date.now();
  const self = await door.call(signal, 'asking who we are', (apis) => apis.authentication.createSelfSubjectReviewWithHttpInfo({ body: {} }));
  const faults: TargetFault[] = [];
  const minor = Number.parseInt(version.data.minor, 10);
  if (config.requireAdmissionPolicy && version.data.major === '1' && minor < 30)
    faults.push({
      message: `${name} runs Kubernetes 1.${minor}, which has no admission policies; Halligan wants 1.30 or newer.`,
      next: 'Upgrade it, or say requireAdmissionPolicy: false.',
    });
  // The answer's clock has whole seconds.
  const at = version.at?.getTime();
  const skew = at === undefined ? 0 : Math.max(before - (at + 1_000), at - after, 0) / 1_000;
  if (skew > mostSkewSeconds)
    faults.push({ message: `${name}: its clock and this machine's are ${Math.round(skew)} s apart.`, next: 'Synchronise the clocks (NTP).' });
  const [me, wanted] = [self.data.status?.userInfo?.username ?? '', `system:serviceaccount:${config.serviceAccount.replace('/', ':')}`];
  if (me !== wanted)
    faults.push({
      message: `${name} knows Halligan as ${JSON.stringify(me)}, not as ${wanted}.`,
      next: 'Set serviceAccount to the account whose token Halligan uses: what is printed for the cluster, and what the cluster refuses, goes by that name.',
    });
  return faults;
}

async function checkGrant(door: Door, grant: Grant, signal: AbortSignal): Promise<TargetFault[]> {
  const half = configFault(door, grant);
  if (half) return [half];
  try {
    mustBeGivable(door, grant, await readRole(door, grant, signal));
    return [];
  } catch (error) {
    if (error instanceof ProviderError && ['target_missing_role', 'target_forbids'].includes(error.code)) return [asFault(error)];
    throw error;
  }
}

async function may(door: Door, right: Right, signal: AbortSignal): Promise<boolean> {
  const { namespace, name, subresource, ...rest } = right;
  const resourceAttributes = {
    ...rest,
    ...(namespace === '' ? {} : { namespace }),
    ...(name === undefined ? {} : { name }),
    ...(subresource === undefined ? {} : { subresource }),
  };
  const answer = await door.call(signal, 'asking what we may do', (apis) =>
    apis.authorization.createSelfSubjectAccessReviewWithHttpInfo({ body: { spec: { resourceAttributes } } }),
  );
  return answer.data.status?.allowed ?? false;
}

async function checkRights(door: Door, rights: readonly Right[], signal: AbortSignal): Promise<TargetFault[]> {
  const missing: Right[] = [];
  for (let from = 0; from < rights.length; from += 10) {
    const some = rights.slice(from, from + 10);
    const answers = await Promise.all(some.map((right) => may(door, right, signal)));
    missing.push(...some.filter((_, index) => !answers[index]));
  }
  return missing.map((right) => ({ message: `${door.name}: Halligan may not ${rightInWords(right)}.`, next: printed }));
}

const rbac = 'rbac.authorization.k8s.io';
/** Rights that Halligan never needs; holding one of them, it could become anybody. */
const excessive: readonly Right[] = [
  { verb: '*', group: '*', resource: '*', namespace: '' },
  { verb: 'escalate', group: rbac, resource: 'clusterroles', namespace: '' },
  { verb: 'escalate', group: rbac, resource: 'roles', namespace: '' },
  { verb: 'bind', group: rbac, resource: 'clusterroles', namespace: '' },
  { verb: 'bind', group: rbac, resource: 'roles', namespace: '' },
  { verb: 'update', group: rbac, resource: 'clusterroles', namespace: '' },
  { verb: 'impersonate', group: '', resource: 'users', namespace: '' },
  { verb: 'impersonate', group: '', resource: 'groups', namespace: '' },
  { verb: 'impersonate', group: '', resource: 'serviceaccounts', namespace: '' },
  { verb: 'create', group: '', resource: 'serviceaccounts', subresource: 'token', namespace: '' },
  { verb: 'get', group: '', resource: 'secrets', namespace: '' },
];

async function checkExcess(door: Door, grants: readonly Grant[], signal: AbortSignal): Promise<TargetFault[]> {
  const spaces = [...new Set(grants.flatMap(({ namespace }) => namespace ?? []))].slice(0, 10);
  const inSpaces: Right[] = spaces.flatMap((namespace) =>
    [
      ['escalate', rbac, 'roles'],
      ['bind', rbac, 'clusterroles'],
      ['bind', rbac, 'roles'],
      ['impersonate', '', 'serviceaccounts'],
      ['get', '', 'secrets'],
    ].map(([verb = '', group = '', resource = '']) => ({ verb, group, resource, namespace })),
  );
  const asked = [...excessive, ...inSpaces];
  const answers = await Promise.all(asked.map((right) => may(door, right, signal)));
  const [first, ...others] = asked.filter((_, index) => answers[index]);
  if (!first) return [];
  const more = others.length > 0 ? `, and ${others.length} more like it` : '';
  return [{ message: `${door.name}: Halligan may ${rightInWords(first)}${more}, which is far more than it needs.`, next: `Take it back. ${printed}` }];
}

/** Tries, without effect (`dryRun`), to bind under a name that is not ours: the cluster must refuse it. */
async function checkPolicy(door: Door, grants: readonly Grant[], signal: AbortSignal): Promise<TargetFault[]> {
  const [grant] = grants;
  if (!door.config.requireAdmissionPolicy || !grant) return [];
  const { role, clusterRole = '', namespace } = grant;
  const roleRef = { apiGroup: rbac, kind: role === undefined ? 'ClusterRole' : 'Role', name: role ?? clusterRole };
  const body = {
    metadata: { name: 'halligan-check' },
    roleRef,
    subjects: [{ kind: 'User', apiGroup: rbac, name: `${door.config.usernamePrefix}halligan-check` }],
  };
  try {
    await door.call(signal, 'trying what the cluster must refuse', (apis) =>
      namespace === undefined
        ? apis.rbac.createClusterRoleBindingWithHttpInfo({ body, dryRun: 'All' })
        : apis.rbac.createNamespacedRoleBindingWithHttpInfo({ namespace, body, dryRun: 'All' }),
    );
  } catch (error) {
    const { status, message } = factsOf(error);
    // Without the right to bind at all there is nothing to limit, and the missing right is named already.
    if (status === 403 || (status === 422 && message.includes('denied request'))) return [];
    throw error;
  }
  return [
    {
      message: `${door.name}: nothing in the cluster limits what Halligan's own account may bind there.`,
      next: `${printed} If you will not have it, say requireAdmissionPolicy: false.`,
    },
  ];
}

/** Whoever may mint tokens in a namespace may become every service account of it. */
async function checkTokenNamespace(door: Door, signal: AbortSignal): Promise<TargetFault[]> {
  const { tokenNamespace: namespace } = door.config;
  if (namespace === undefined) return [];
  try {
    const { data } = await door.call(signal, `looking into ${namespace}`, (apis) =>
      apis.core.listNamespacedServiceAccountWithHttpInfo({ namespace, limit: 500 }),
    );
    const foreign = data.items.find(({ metadata }) => metadata?.name !== 'default' && leaseIn(metadata) === null)?.metadata?.name;
    if (foreign === undefined) return [];
    return [
      {
        message: `${door.name}: the namespace ${namespace} holds a service account ${JSON.stringify(foreign)} that is not Halligan's, whose tokens Halligan could mint.`,
        next: 'Keep tokenNamespace for Halligan alone.',
      },
    ];
  } catch (error) {
    // The missing right is named already.
    if (factsOf(error).status === 403) return [];
    throw error;
  }
}
