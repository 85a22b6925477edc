import { expect, test } from 'vitest';
import { grantInWords, grantSchema, targetSchema } from '../../../src/providers/kubernetes-rbac/config.ts';

const target = { server: 'https://kube.example.com:6443', tokenFile: 'token' };
const faultsOf = (schema: typeof targetSchema | typeof grantSchema, block: unknown): string[] =>
  schema.safeParse(block).error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) ?? [];

test.each([target, { inCluster: true }, { kubeconfigFile: 'config', context: 'prod' }, { ...target, server: 'http://127.0.0.1:8001' }])(
  'a target can be %j',
  (block) => {
    expect(faultsOf(targetSchema, block)).toEqual([]);
  },
);

test.each([
  [{}, 'server: say how to reach the cluster'],
  [{ inCluster: true, ...target }, 'server: say how to reach the cluster'],
  [{ server: target.server }, 'tokenFile: is missing'],
  [{ inCluster: true, tokenFile: 'x' }, 'tokenFile: belongs to server'],
  [{ inCluster: true, caFile: 'x' }, 'caFile: belongs to server'],
  [{ ...target, context: 'x' }, 'context: belongs to kubeconfigFile'],
  [{ ...target, server: 'http://kube.example.com' }, 'server: must be https'],
  [{ ...target, server: 'https://user:secret@kube.example.com' }, 'server: must be a plain address'],
  [{ ...target, server: 'ftp://kube.example.com' }, 'server: '],
  [{ ...target, usernamePrefix: 'system:x:' }, 'usernamePrefix: must not begin with system:'],
  [{ ...target, namespaces: ['../kube-system'] }, 'namespaces.0: is not a name'],
  [{ ...target, tokenNamespace: 'Shop' }, 'tokenNamespace: is not a name'],
  [{ ...target, tokenNamespace: 'halligan' }, 'tokenNamespace: must be another namespace'],
  [{ ...target, serviceAccount: 'halligan' }, 'serviceAccount: is written namespace/name'],
  [{ ...target, insecure: true }, 'Unrecognized key'],
])('a target cannot be %j', (block, words) => {
  const faults = faultsOf(targetSchema, block);
  expect(faults.join('\n')).toContain(words);
  expect(faults.join('\n')).not.toContain('secret');
});

test.each([
  [{ role: 'reader', namespace: 'shop' }, 'Role reader in the namespace shop, as the person'],
  [{ clusterRole: 'view', namespace: 'shop', mode: 'token' }, 'ClusterRole view in the namespace shop, by a token of its own'],
  [{ clusterRole: 'view' }, 'ClusterRole view in the whole cluster, as the person'],
  [{ clusterRole: 'cluster-admin', allowWildcards: true }, 'ClusterRole cluster-admin in the whole cluster, as the person'],
  [{ clusterRole: 'system:node-problem-detector', allowSystemRole: true }, 'ClusterRole system:node-problem-detector in the whole cluster, as the person'],
])('a grant can be %j', (block, words) => {
  expect(grantInWords(grantSchema.parse(block))).toBe(words);
});

test.each([
  [{}, 'role: say role or clusterRole'],
  [{ role: 'a', clusterRole: 'b', namespace: 'shop' }, 'role: say role or clusterRole'],
  [{ role: 'reader' }, 'namespace: is missing'],
  [{ role: '..', namespace: 'shop' }, 'role: is not a name'],
  [{ role: '../../secrets', namespace: 'shop' }, 'role: is not a name'],
  [{ clusterRole: 'a%2fb' }, 'clusterRole: is not a name'],
  [{ role: 'reader', namespace: '../kube-system' }, 'namespace: is not a name'],
  [{ clusterRole: 'cluster-admin' }, 'clusterRole: opens everything'],
  [{ clusterRole: 'system:masters' }, "clusterRole: is one of Kubernetes' own roles"],
  [{ role: 'system:controller', namespace: 'kube-system' }, "role: is one of Kubernetes' own roles"],
  [{ clusterRole: 'cluster-admin', allowWildcards: false }, 'allowWildcards'],
  [{ clusterRole: 'view', mode: 'group' }, 'mode'],
])('a grant cannot be %j', (block, words) => {
  expect(faultsOf(grantSchema, block).join('\n')).toContain(words);
});
