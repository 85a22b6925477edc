/**
 * The least that Halligan's own service account needs in a cluster, for the loaded entitlements and no others; and what
 * the cluster itself should refuse it beyond that. One list feeds the check, and the manifest that an administrator applies.
 */
import { stringify } from 'yaml';
import { type Grant, roleOf, type TargetConfig } from './config.ts';
import { admissionPolicies } from './policy.ts';

export interface Right {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource?: string;
  /** This one object only. */
  readonly name?: string;
  /** Empty: in the whole cluster, or of something that has no namespace. */
  readonly namespace: string;
}

const rbac = 'rbac.authorization.k8s.io';

/** Every right that Halligan needs for these grants, each once. */
export function rightsFor(config: TargetConfig, grants: readonly Grant[]): Right[] {
  const right = (namespace: string, group: string, resource: string, verb: string, more: { name?: string; subresource?: string } = {}): Right => ({
    verb,
    group,
    resource,
    namespace,
    ...more,
  });
  const rights: Right[] = [right('', rbac, 'clusterrolebindings', 'list')];
  for (const namespace of config.namespaces ?? ['']) rights.push(right(namespace, rbac, 'rolebindings', 'list'));
  for (const grant of grants) {
    const { kind, name } = roleOf(grant);
    const at = grant.namespace ?? '';
    const roles = kind === 'Role' ? 'roles' : 'clusterroles';
    if (at !== '') rights.push(right('', '', 'namespaces', 'get', { name: at }));
    rights.push(right(kind === 'Role' ? at : '', rbac, roles, 'get', { name }));
    rights.push(right(at, rbac, roles, 'bind', { name }));
    for (const verb of ['create', 'delete']) rights.push(right(at, rbac, at === '' ? 'clusterrolebindings' : 'rolebindings', verb));
    // Reading what is there when the name is taken.
    if (at !== '' && config.namespaces !== undefined) rights.push(right(at, rbac, 'rolebindings', 'list'));
  }
  if (config.tokenNamespace !== undefined) {
    for (const resource of ['secrets', 'serviceaccounts'])
      for (const verb of ['create', 'delete', 'list']) rights.push(right(config.tokenNamespace, '', resource, verb));
    if (grants.some(({ mode }) => mode === 'token')) rights.push(right(config.tokenNamespace, '', 'serviceaccounts', 'create', { subresource: 'token' }));
  }
  return distinct(rights);
}

/** What the reaper needs: to find what is ours and to remove it. */
export function reaperRightsFor(config: TargetConfig): Right[] {
  const rights: Right[] = [];
  const both = (namespace: string, group: string, resource: string) =>
    rights.push({ verb: 'list', group, resource, namespace }, { verb: 'delete', group, resource, namespace });
  both('', rbac, 'clusterrolebindings');
  for (const namespace of config.namespaces ?? ['']) both(namespace, rbac, 'rolebindings');
  if (config.tokenNamespace !== undefined) for (const resource of ['secrets', 'serviceaccounts']) both(config.tokenNamespace, '', resource);
  return distinct(rights);
}

const distinct = (rights: readonly Right[]): Right[] => [...new Map(rights.map((right) => [JSON.stringify(Object.entries(right).toSorted()), right])).values()];

/** `create serviceaccounts/token in the namespace halligan-leases`. */
export function rightInWords({ verb, group, resource, subresource, name, namespace }: Right): string {
  const what = `${resource}${subresource === undefined ? '' : `/${subresource}`}${group === '' ? '' : `.${group}`}`;
  return `${verb} ${what}${name === undefined ? '' : ` ${JSON.stringify(name)}`}${namespace === '' ? '' : ` in the namespace ${namespace}`}`;
}

interface Rule {
  readonly apiGroups: string[];
  readonly resources: string[];
  readonly resourceNames?: string[];
  readonly verbs: string[];
}

/** Rights of one place as rules: first those on the same thing are one, then the names that have the same verbs. */
function rulesOf(rights: readonly Right[]): Rule[] {
  const things = new Map<string, { right: Right; verbs: Set<string> }>();
  for (const right of rights) {
    const key = JSON.stringify([right.group, right.resource, right.subresource, right.name]);
    const thing = things.get(key) ?? { right, verbs: new Set() };
    things.set(key, thing);
    thing.verbs.add(right.verb);
  }
  const rules = new Map<string, Rule>();
  for (const { right, verbs } of things.values()) {
    const resource = right.subresource === undefined ? right.resource : `${right.resource}/${right.subresource}`;
    const key = JSON.stringify([right.group, resource, [...verbs].toSorted(), right.name === undefined]);
    const before = rules.get(key);
    rules.set(key, {
      apiGroups: [right.group],
      resources: [resource],
      ...(right.name === undefined ? {} : { resourceNames: [...(before?.resourceNames ?? []), right.name] }),
      verbs: [...verbs].toSorted(),
    });
  }
  return [...rules.values()];
}

/** Roles and their bindings for one service account: `what` names them. */
function manifestsFor(what: string, serviceAccount: string, rights: readonly Right[]): object[] {
  const [namespace = '', name = ''] = serviceAccount.split('/');
  const places = [...new Set(rights.map((right) => right.namespace))].toSorted();
  return places.flatMap((place) => {
    const [kind, meta] = place === '' ? ['ClusterRole', { name: what }] : ['Role', { name: what, namespace: place }];
    return [
      { apiVersion: `${rbac}/v1`, kind, metadata: meta, rules: rulesOf(rights.filter((right) => right.namespace === place)) },
      {
        apiVersion: `${rbac}/v1`,
        kind: `${kind}Binding`,
        metadata: meta,
        roleRef: { apiGroup: rbac, kind, name: what },
        subjects: [{ kind: 'ServiceAccount', name, namespace }],
      },
    ];
  });
}

const namespaceOf = (serviceAccount: string): string => serviceAccount.split('/')[0] ?? '';
const account = (serviceAccount: string): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name: serviceAccount.split('/')[1], namespace: namespaceOf(serviceAccount) },
});

/**
 * The manifest to apply, as YAML: Halligan's own service account with exactly its rights, the reaper's likewise when the
 * target declares one, and the admission policies that bind both. The roles and namespaces that entitlements name are not made here.
 */
export function leastRights(config: TargetConfig, grants: readonly Grant[]): string {
  const accounts = [config.serviceAccount, ...(config.reaper ? [config.reaperServiceAccount] : [])];
  const spaces = [...new Set([...accounts.map(namespaceOf), ...(config.tokenNamespace === undefined ? [] : [config.tokenNamespace])])];
  const documents = [
    ...spaces.map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } })),
    ...accounts.map(account),
    ...manifestsFor('halligan', config.serviceAccount, rightsFor(config, grants)),
    ...(config.reaper ? manifestsFor('halligan-reaper', config.reaperServiceAccount, reaperRightsFor(config)) : []),
    ...admissionPolicies(config, grants, accounts),
  ];
  return documents.map((one) => stringify(one, { lineWidth: 0 })).join('---\n');
}
