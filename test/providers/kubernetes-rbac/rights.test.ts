import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { grantSchema, targetSchema } from '../../../src/providers/kubernetes-rbac/config.ts';
import { leastRights, reaperRightsFor, rightInWords, rightsFor } from '../../../src/providers/kubernetes-rbac/rights.ts';

const config = targetSchema.parse({ inCluster: true, tokenNamespace: 'halligan-leases', reaper: true });
const grants = [
  { role: 'shop-reader', namespace: 'shop' },
  { clusterRole: 'view', namespace: 'shop', mode: 'token' },
].map((grant) => grantSchema.parse(grant));

test('no right that could become another: nothing by wildcard, no escalate, no impersonate, bind by name only', () => {
  const all = [...rightsFor(config, grants), ...reaperRightsFor(config)];
  for (const right of all) {
    expect(['escalate', 'impersonate', '*', 'update', 'patch', 'watch']).not.toContain(right.verb);
    expect([right.group, right.resource]).not.toContain('*');
    if (right.verb === 'bind') expect(right.name).toBeDefined();
    if (right.resource === 'secrets' || right.resource === 'serviceaccounts') expect(right.namespace).toBe('halligan-leases');
  }
  expect(new Set(all.map(rightInWords)).size).toBeGreaterThan(10);
});

test('nothing in the cluster as a whole but looking, when nothing is opened there', () => {
  const wide = rightsFor(config, grants).filter(({ namespace, name }) => namespace === '' && name === undefined);
  expect(wide.map(({ verb }) => verb)).toEqual(['list', 'list']);
});

test('without token mode nothing about service accounts and Secrets', () => {
  const plain = targetSchema.parse({ inCluster: true });
  expect(rightsFor(plain, grants.slice(0, 1)).some(({ resource }) => ['secrets', 'serviceaccounts'].includes(resource))).toBe(false);
});

test('what is printed is YAML, for these entitlements only, and the policies name each role with its place', () => {
  const text = leastRights(config, grants);
  const documents = parseAllDocuments(text).map((one) => one.toJS() as { kind: string; metadata: { name: string; namespace?: string } });
  expect(documents.map(({ kind, metadata }) => `${kind} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`)).toEqual([
    'Namespace halligan',
    'Namespace halligan-leases',
    'ServiceAccount halligan/halligan',
    'ServiceAccount halligan/halligan-reaper',
    'ClusterRole halligan',
    'ClusterRoleBinding halligan',
    'Role halligan-leases/halligan',
    'RoleBinding halligan-leases/halligan',
    'Role shop/halligan',
    'RoleBinding shop/halligan',
    'ClusterRole halligan-reaper',
    'ClusterRoleBinding halligan-reaper',
    'Role halligan-leases/halligan-reaper',
    'RoleBinding halligan-leases/halligan-reaper',
    'ValidatingAdmissionPolicy halligan-bindings',
    'ValidatingAdmissionPolicyBinding halligan-bindings',
    'ValidatingAdmissionPolicy halligan-tokens',
    'ValidatingAdmissionPolicyBinding halligan-tokens',
  ]);
  expect(text).toContain("['shop/Role/shop-reader/User', 'shop/ClusterRole/view/ServiceAccount']");
});

test('names go into the policies as text, whatever they hold', () => {
  const hostile = [grantSchema.parse({ clusterRole: `x'||true||'\\`, namespace: 'shop' })];
  const policies = parseAllDocuments(leastRights(config, hostile)).map((one) => JSON.stringify(one.toJS()));
  // CEL takes a backslash before a quote or a backslash in a text (its language definition, "String and Bytes Values").
  expect(policies.join()).toContain(JSON.stringify(String.raw`['shop/ClusterRole/x\'||true||\'\\/User']`).slice(1, -1));
});

test('deploy/kubernetes/halligan.yaml is what is printed for the example', async () => {
  const text = await readFile('deploy/kubernetes/halligan.yaml', 'utf8');
  expect(
    text
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .join('\n'),
  ).toBe(leastRights(config, grants));
});
