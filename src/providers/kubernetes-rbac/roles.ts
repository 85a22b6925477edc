/** The role that an entitlement opens: whether it is there, whether it may be given, and what it opens in words. */
import type { V1ClusterRole, V1PolicyRule } from '@kubernetes/client-node';
import { type Description, ProviderError } from '../../domain/provider.ts';
import { type Door, factsOf } from './api.ts';
import { type Grant, grantInWords, roleOf } from './config.ts';
import { oneLine } from './marker.ts';

export interface FoundRole {
  readonly rules: readonly V1PolicyRule[];
  /** The labels that its rules are gathered by, when it is put together from other roles. */
  readonly gathered: readonly string[];
  /** The API server's clock. */
  readonly at: Date | null;
}

/** Reads the role, and that its namespace is there. Throws `target_missing_role` with what would mend it. */
export async function readRole(door: Door, grant: Grant, signal: AbortSignal): Promise<FoundRole> {
  const { kind, name } = roleOf(grant);
  const { namespace } = grant;
  const missing = (what: string, next: string) => (error: unknown) => {
    if (factsOf(error).status !== 404) throw error;
    throw new ProviderError('target_missing_role', `${door.name} has no ${what}.`, { next, nothingMade: true });
  };
  const reading =
    kind === 'Role'
      ? door.call(signal, `reading the Role ${name}`, (apis) => apis.rbac.readNamespacedRoleWithHttpInfo({ name, namespace: namespace ?? '' }))
      : door.call(signal, `reading the ClusterRole ${name}`, (apis) => apis.rbac.readClusterRoleWithHttpInfo({ name }));
  const where = kind === 'Role' ? ` in the namespace ${namespace}` : '';
  const [role] = await Promise.all([
    reading.catch(missing(`${kind} ${JSON.stringify(name)}${where}`, `Create it there, or correct the entitlement's grant.`)),
    namespace === undefined
      ? undefined
      : door
          .call(signal, `reading the namespace ${namespace}`, (apis) => apis.core.readNamespaceWithHttpInfo({ name: namespace }))
          .catch(missing(`namespace ${JSON.stringify(namespace)}`, `Create it there, or correct the entitlement's grant.`)),
  ]);
  const selectors = (role.data as V1ClusterRole).aggregationRule?.clusterRoleSelectors ?? [];
  const gathered = selectors.flatMap(({ matchLabels }) => Object.entries(matchLabels ?? {}).map(([key, value]) => `${key}=${value}`));
  return { rules: role.data.rules ?? [], gathered, at: role.at };
}

/** Throws `target_forbids` when the role holds more than the entitlement says in as many words. */
export function mustBeGivable(door: Door, grant: Grant, { rules }: FoundRole): void {
  const { kind, name } = roleOf(grant);
  const never = (why: string, key: string): ProviderError =>
    new ProviderError('target_forbids', `${door.name}: the ${kind} ${JSON.stringify(name)} is not given to anybody, because ${why}.`, {
      next: `Give the entitlement a narrower role; or, if that is meant, say ${key}: true in its grant.`,
      nothingMade: true,
    });
  const wild = rules.find(isWild);
  if (wild && !grant.allowWildcards) throw never(`it opens by wildcard: ${ruleInWords(wild)}`, 'allowWildcards');
  const lasting = lastingAccess(rules);
  if (lasting.length > 0 && !grant.allowLastingAccess)
    throw never(`its holder could make access that outlives the grant (${lasting.slice(0, 3).join(', ')})`, 'allowLastingAccess');
}

const isWild = (rule: V1PolicyRule): boolean =>
  rule.verbs.includes('*') ||
  (rule.resources ?? []).some((one) => one === '*' || one.startsWith('*/')) ||
  (rule.nonResourceURLs ?? []).some((url) => url === '*' || url === '/*');

const rbac = 'rbac.authorization.k8s.io';
const writes = ['create', 'update', 'patch'];
/** Rights by which a holder can give themselves, or somebody, access that no end of the lease takes back. */
const lastingRights: readonly { group: string; resources: readonly string[]; verbs: readonly string[] }[] = [
  { group: rbac, resources: ['roles', 'clusterroles'], verbs: [...writes, 'bind', 'escalate'] },
  { group: rbac, resources: ['rolebindings', 'clusterrolebindings'], verbs: writes },
  { group: '', resources: ['serviceaccounts/token'], verbs: ['create'] },
  { group: '', resources: ['serviceaccounts', 'users', 'groups'], verbs: ['impersonate'] },
  { group: '', resources: ['secrets'], verbs: ['create'] },
  { group: '', resources: ['nodes/proxy'], verbs: ['get', 'create'] },
  { group: 'certificates.k8s.io', resources: ['certificatesigningrequests'], verbs: ['create'] },
  { group: 'certificates.k8s.io', resources: ['certificatesigningrequests/approval'], verbs: ['update', 'patch'] },
  { group: 'admissionregistration.k8s.io', resources: ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'], verbs: writes },
  { group: 'apiregistration.k8s.io', resources: ['apiservices'], verbs: writes },
];

/** `create rolebindings.rbac.authorization.k8s.io`, one for each such right that the rules hold. */
function lastingAccess(rules: readonly V1PolicyRule[]): string[] {
  const holds = (list: readonly string[] | undefined, one: string): boolean => list?.includes(one) || list?.includes('*') || false;
  const found = lastingRights.flatMap(({ group, resources, verbs }) =>
    resources.flatMap((resource) =>
      verbs
        .filter((verb) => rules.some((rule) => holds(rule.apiGroups, group) && holdsResource(rule.resources, resource) && holds(rule.verbs, verb)))
        .map((verb) => `${verb} ${group === '' ? resource : `${resource}.${group}`}`),
    ),
  );
  return [...new Set(found)];
}

const holdsResource = (list: readonly string[] | undefined, resource: string): boolean => {
  const sub = resource.split('/')[1];
  return list?.some((one) => one === resource || one === '*' || (sub !== undefined && one === `*/${sub}`)) ?? false;
};

const namesOf = (rule: V1PolicyRule): string[] => {
  const groups = rule.apiGroups ?? [''];
  return (rule.resources ?? []).flatMap((resource) => groups.map((group) => (group === '' ? resource : `${resource}.${group}`)));
};

/** `get, list on pods, deployments.apps; only those named web`. */
function ruleInWords(rule: V1PolicyRule): string {
  const what = [...namesOf(rule), ...(rule.nonResourceURLs ?? []).map((url) => `the address ${url}`)].join(', ');
  const only = rule.resourceNames?.length ? `; only ${rule.resourceNames.length === 1 ? 'the one' : 'those'} named ${rule.resourceNames.join(', ')}` : '';
  return oneLine(`${rule.verbs.join(', ')} on ${what}${only}`);
}

const mostLines = 200;

/** The role's rules in one line and in full, what outlives the grant first. */
export function describeRole(grant: Grant, { rules, gathered }: FoundRole): Description {
  const byVerbs = new Map<string, string[]>();
  for (const rule of rules) {
    const key = rule.verbs.join(', ');
    byVerbs.set(key, [...(byVerbs.get(key) ?? []), ...namesOf(rule), ...(rule.nonResourceURLs ?? [])]);
  }
  const parts = [...byVerbs].map(([verbs, names]) => `${verbs} on ${names.length > 4 ? `${names.length} resources` : names.join(', ')}`);
  const shown = parts.length > 6 ? [...parts.slice(0, 5), `and ${parts.length - 5} more kinds of rights`] : parts;
  const lasting = lastingAccess(rules);
  const warning = lasting.length > 0 ? 'its holder can make access that outlives the grant; ' : '';
  const lines = [
    ...lasting.map((right) => `outlives the grant: ${right}`),
    ...(gathered.length > 0 ? [`put together from every ClusterRole labelled ${gathered.join(' or ')}`] : []),
    ...(rules.length > 0 ? rules.map(ruleInWords) : ['it has no rules']),
  ];
  const details = lines.length > mostLines ? [...lines.slice(0, mostLines - 1), `and ${lines.length - mostLines + 1} more`] : lines;
  return { summary: oneLine(`${grantInWords(grant)}: ${warning}${shown.join('; ') || 'no rights'}`), details };
}
