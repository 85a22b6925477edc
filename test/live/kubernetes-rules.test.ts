/** What must not be possible in a cluster: for Halligan's own account, for the holder, for the reaper; and what the check of a target says of a cluster that is not as it should be. */
import { writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { execCredential, kubeconfigFor } from '../../src/cli/exec-credential.ts';
import type { Issued, LeaseSpec, Target } from '../../src/domain/provider.ts';
import { leaseLabel, markerOf, nameOf } from '../../src/providers/kubernetes-rbac/marker.ts';
import { reapCommand } from '../../src/reap/reap.ts';
import { refusalOf, within } from '../support/provider-contract.ts';
import { type Cluster, grants, leaseFor, parsed, preparedCluster, reapCluster } from './kubernetes-cluster.ts';
import type { KubeAnswer } from './servers/kubernetes.ts';

let cluster: Cluster;
let target: Target;
const undo: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  cluster = await preparedCluster();
  target = cluster.connect();
});
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
  expect(await cluster.ours()).toEqual([]);
});
afterAll(async () => {
  await target?.close();
  await cluster?.close();
});

const rbac = '/apis/rbac.authorization.k8s.io/v1';
const group = 'rbac.authorization.k8s.io';
const configMaps = '/api/v1/namespaces/shop/configmaps';
const bindingsOf = (namespace: string): string => `${rbac}/namespaces/${namespace}/rolebindings`;
const asHalligan = (method: string, path: string, body?: unknown): Promise<KubeAnswer> => cluster.kubernetes.api(cluster.halliganToken, method, path, body);
const asAdmin = (method: string, path: string, body?: unknown): Promise<KubeAnswer> =>
  cluster.kubernetes.api(cluster.kubernetes.adminToken, method, path, body);

/** Issues, and ends when the test is over. */
async function issued(spec: LeaseSpec) {
  undo.push(() => target.revoke(spec, within(20)));
  return target.issue(spec, within(8));
}
/** Makes something as the administrator, and takes it away when the test is over. */
async function made(path: string, body: { metadata: { name: string } }): Promise<void> {
  const answer = await asAdmin('POST', path, body);
  expect(answer.status, answer.text).toBe(201);
  undo.push(() => asAdmin('DELETE', `${path}/${body.metadata.name}`));
}
async function until(what: string, done: () => Promise<boolean>, seconds = 10): Promise<void> {
  for (const end = Date.now() + seconds * 1_000; !(await done()); await sleep(50)) if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
}

/** The binding that Halligan would make for this lease. */
const bindingFor = (spec: LeaseSpec, more: Record<string, unknown> = {}) => ({
  metadata: { name: nameOf(spec.leaseId), ...markerOf(spec) },
  roleRef: { apiGroup: group, kind: 'Role', name: 'shop-reader' },
  subjects: [{ kind: 'User', apiGroup: group, name: `oidc:${spec.subject}` }],
  ...more,
});

describe("Halligan's own account", () => {
  test.each([
    ['read what the roles open', 'GET', configMaps],
    ['read a Secret of a namespace', 'GET', '/api/v1/namespaces/shop/secrets'],
    ['change a binding', 'PATCH', `${bindingsOf('shop')}/some`],
    ['make a role', 'POST', `${rbac}/namespaces/shop/roles`],
    ['read a role that no entitlement names', 'GET', `${rbac}/clusterroles/cluster-admin`],
    ['bind in a namespace that no entitlement names', 'POST', bindingsOf('other')],
    ['mint a token of its own account', 'POST', '/api/v1/namespaces/halligan/serviceaccounts/halligan/token'],
  ])('may not %s', async (_, method, path) => {
    expect((await asHalligan(method, path, method === 'GET' ? undefined : {})).status).toBe(403);
  });

  test('may not bind a role that no entitlement names, nor speak as another', async () => {
    const spec = leaseFor(grants.user, 60);
    const answer = await asHalligan('POST', bindingsOf('shop'), bindingFor(spec, { roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'cluster-admin' } }));
    expect(answer.status).toBe(403);
    expect((await cluster.kubernetes.api(cluster.halliganToken, 'GET', configMaps, undefined, { 'Impersonate-User': 'oidc:oncall' })).status).toBe(403);
  });

  test('the printed rights and policies are whole and no more: the check finds nothing missing and nothing excessive', async () => {
    expect(await target.check([grants.user, grants.token, grants.cluster, grants.clusterInShop, grants.binder].map(parsed), within(10))).toEqual([]);
    expect(cluster.rights).not.toMatch(/escalate|impersonate|verbs:\n +- "\*"/);
  });
});

describe('the admission policies hold even when somebody has made Halligan an administrator', () => {
  // Made before the servers are, which take minutes to build the first time.
  const spec = leaseFor(grants.user, 6 * 3_600);
  const name = nameOf(spec.leaseId);
  beforeAll(async () => {
    await cluster.kubernetes.kubectl(['create', 'clusterrolebinding', 'a-mistake', '--clusterrole=cluster-admin', '--serviceaccount=halligan:halligan']);
    await until('the mistake is felt', async () => (await asHalligan('GET', configMaps)).status === 200);
  });
  afterAll(async () => {
    await cluster.kubernetes.kubectl(['delete', 'clusterrolebinding', 'a-mistake']);
    await until('the mistake is mended', async () => (await asHalligan('GET', configMaps)).status === 403);
  });
  const refusedByPolicy = (answer: KubeAnswer): void => {
    expect(answer.text).toContain('denied request');
    expect(answer.status).toBeGreaterThanOrEqual(400);
  };
  const marker = markerOf(spec);
  const subjects = (...list: unknown[]) => ({ subjects: list });
  const user = (who: string) => ({ kind: 'User', apiGroup: group, name: who });

  test('what Halligan makes itself passes', async () => {
    const answer = await asHalligan('POST', `${bindingsOf('shop')}?dryRun=All`, bindingFor(spec));
    expect(answer.status, answer.text).toBe(201);
  });

  test.each<[string, string, Record<string, unknown>]>([
    ['another name', 'shop', { metadata: { ...marker, name: 'innocent' } }],
    ['the name of another lease', 'shop', { metadata: { ...marker, name: nameOf(`lse_${'0'.repeat(32)}`) } }],
    ['no labels', 'shop', { metadata: { name, annotations: marker.annotations } }],
    ['a label that is no lease', 'shop', { metadata: { name: 'hg-x', labels: { [leaseLabel]: 'x' }, annotations: marker.annotations } }],
    ['no end', 'shop', { metadata: { name, labels: marker.labels } }],
    ['an end that is no time', 'shop', { metadata: { name, labels: marker.labels, annotations: { 'halligan/until': 'never' } } }],
    ['an end that is past', 'shop', { metadata: { name, labels: marker.labels, annotations: { 'halligan/until': '2020-01-01T00:00:00Z' } } }],
    ['a role that is not listed', 'shop', { roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'cluster-admin' } }],
    ['a listed role in another namespace', 'other', { roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'space-viewer' } }],
    ['a listed role as another kind', 'shop', { roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'shop-reader' } }],
    ['a group', 'shop', subjects({ kind: 'Group', apiGroup: group, name: 'oidc:everybody' })],
    ["one of the cluster's own users", 'shop', subjects(user('system:anonymous'))],
    ['a user of another kind', 'shop', subjects(user('admin'))],
    ['two people', 'shop', subjects(user('oidc:one'), user('oidc:two'))],
    ['nobody', 'shop', subjects()],
    ["somebody else's service account", 'shop', subjects({ kind: 'ServiceAccount', namespace: 'kube-system', name: 'default' })],
    ['a service account of another lease', 'shop', subjects({ kind: 'ServiceAccount', namespace: 'halligan-leases', name: 'hg-lse-other-12345678' })],
  ])('refuses a binding with %s', async (_, namespace, more) => {
    refusedByPolicy(await asHalligan('POST', bindingsOf(namespace), bindingFor(spec, more)));
  });

  test('refuses a cluster-wide binding of a role that is listed for a namespace', async () => {
    const roleRef = { apiGroup: group, kind: 'ClusterRole', name: 'everything-of-a-kind' };
    refusedByPolicy(await asHalligan('POST', `${rbac}/clusterrolebindings`, bindingFor(spec, { roleRef })));
  });

  test('refuses to change a binding of ours, and to remove one that is not', async () => {
    await issued(spec);
    const there = (await asAdmin('GET', `${bindingsOf('shop')}/${name}`)).body;
    refusedByPolicy(await asHalligan('PUT', `${bindingsOf('shop')}/${name}`, { ...there, subjects: [user('oidc:another')] }));
    await made(bindingsOf('shop'), { ...bindingFor(spec), metadata: { name: 'the-teams-own' } });
    refusedByPolicy(await asHalligan('DELETE', `${bindingsOf('shop')}/the-teams-own`));
  });

  test('refuses tokens of others, Secrets that hold something, and service accounts elsewhere', async () => {
    const at = (namespace: string, what: string) => `/api/v1/namespaces/${namespace}/${what}`;
    const tokenRequest = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { audiences: [], expirationSeconds: 600 } };
    await made(at('halligan-leases', 'serviceaccounts'), { metadata: { name: 'default' } });
    refusedByPolicy(await asHalligan('POST', at('halligan', 'serviceaccounts/halligan/token'), tokenRequest));
    refusedByPolicy(await asHalligan('POST', at('halligan-leases', 'serviceaccounts/default/token'), tokenRequest));
    const own = { ...marker, name: `${name}-12345678` };
    const withAccount = { ...own, annotations: { ...own.annotations, 'kubernetes.io/service-account.name': 'default' } };
    refusedByPolicy(await asHalligan('POST', at('shop', 'serviceaccounts'), { metadata: own }));
    refusedByPolicy(await asHalligan('POST', at('halligan-leases', 'serviceaccounts'), { metadata: { ...own, name: 'admin' } }));
    refusedByPolicy(await asHalligan('POST', at('halligan-leases', 'secrets'), { metadata: own, type: 'Opaque', data: { a: 'YQ==' } }));
    refusedByPolicy(await asHalligan('POST', at('halligan-leases', 'secrets'), { metadata: withAccount, type: 'kubernetes.io/service-account-token' }));
    refusedByPolicy(await asHalligan('DELETE', at('halligan-leases', 'serviceaccounts/default')));
  });

  test('the check says that Halligan may far more than it needs', async () => {
    const faults = await target.check([parsed(grants.user)], within(10));
    expect(faults.map(({ message }) => message).join(' ')).toMatch(/far more than it needs/);
  });
});

describe('who is let in', () => {
  test('user mode: the person, by their own login, and nobody else', async () => {
    const { personToken, api } = cluster.kubernetes;
    const read = async (who: string) => (await api(personToken(who), 'GET', configMaps)).status;
    expect(await read('oncall')).toBe(403);
    const made = await issued(leaseFor(grants.user, 60, { subject: 'oncall' }));
    expect(made).toMatchObject({ secret: {}, connection: { user: 'oidc:oncall', namespace: 'shop', server: cluster.kubernetes.address } });
    await until('the person may', async () => (await read('oncall')) === 200, 1);
    expect(await read('second')).toBe(403);
  });

  test("a name of the cluster's own is never bound, nor nobody", async () => {
    const open = cluster.connect({ usernamePrefix: '' });
    expect(await refusalOf(open.issue(leaseFor(grants.user, 60, { subject: 'system:admin' }), within(8)))).toMatchObject({
      code: 'target_forbids',
      nothingMade: true,
    });
    for (const subject of ['', 'a\nb'])
      expect(await refusalOf(open.issue(leaseFor(grants.user, 60, { subject }), within(8)))).toMatchObject({ code: 'target_failed', nothingMade: true });
    await open.close();
  });

  test('a ClusterRole in a namespace opens that namespace only', async () => {
    const made = await issued(leaseFor(grants.clusterInShop, 60));
    await until('the holder may', async () => (await cluster.asHolder(made, 'GET', configMaps)).status === 200, 1);
    expect((await cluster.asHolder(made, 'GET', '/api/v1/namespaces/other/configmaps')).status).toBe(403);
    expect((await cluster.asHolder(made, 'GET', '/api/v1/namespaces')).status).toBe(403);
  });

  test('invariant 3: in token mode the earlier of the two ends is shown, and the token outlives a short grant by no more than it must', async () => {
    const short = await issued(leaseFor(grants.token, 60));
    const claims = JSON.parse(Buffer.from(short.secret['token']?.split('.')[1] ?? '', 'base64url').toString()) as { exp: number; iat: number };
    expect(short.expiresAt.getTime()).toBeLessThan(Date.now() + 61_000);
    expect(claims.exp - claims.iat).toBe(600);
    const long = leaseFor(grants.token, 1_800);
    const made = await issued(long);
    expect(Math.abs(made.expiresAt.getTime() - long.endsAt.getTime())).toBeLessThan(1_000);
  });
});

describe('kubectl', () => {
  const claimOf = (made: Issued, grant: string) => ({
    kind: 'kubernetes-rbac',
    target: 'prod',
    entitlement: grant,
    expiresAt: made.expiresAt.toISOString(),
    connection: made.connection,
    secret: made.secret,
  });
  const write = async (name: string, text: string): Promise<string> => {
    const path = join(cluster.kubernetes.folder, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  };

  test('token mode: takes the kubeconfig and what the exec plugin prints', async () => {
    const claim = claimOf(await issued(leaseFor(grants.token, 60)), 'shop-token');
    const printed = await write('credential.json', execCredential(claim));
    const kubeconfig = await write('by-token', kubeconfigFor(claim, { command: ['cat', printed] }));
    await made(configMaps, { metadata: { name: 'shown-to-kubectl' } });
    expect(await cluster.kubernetes.kubectlBy(kubeconfig, ['get', 'configmaps', '--output=name'])).toContain('configmap/shown-to-kubectl');
    expect(await cluster.kubernetes.kubectlBy(kubeconfig, ['auth', 'can-i', 'list', 'pods'])).toContain('yes');
    await expect(cluster.kubernetes.kubectlBy(kubeconfig, ['get', 'secrets'])).rejects.toThrow('Forbidden');
  });

  test('user mode: the entry beside one that knows how the person logs in', async () => {
    const claim = claimOf(await issued(leaseFor(grants.user, 60, { subject: 'second' })), 'shop-user');
    const entry = JSON.parse(kubeconfigFor(claim, { command: ['halligan'], ownUser: 'me' })) as object;
    const kubeconfig = await write('by-user', JSON.stringify({ ...entry, users: [{ name: 'me', user: { token: cluster.kubernetes.personToken('second') } }] }));
    expect(await cluster.kubernetes.kubectlBy(kubeconfig, ['auth', 'can-i', 'list', 'configmaps'])).toContain('yes');
  });
});

describe('roles that are not given', () => {
  test('wildcards and lasting access: not unless the entitlement says so in as many words, and nothing is left behind', async () => {
    const without = (grant: object, ...keys: string[]) => Object.fromEntries(Object.entries(grant).filter(([key]) => !keys.includes(key)));
    for (const grant of [grants.wild, without(grants.binder, 'allowLastingAccess')]) {
      expect(await refusalOf(target.issue(leaseFor(grant, 60), within(8)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
      expect(await refusalOf(target.describe(parsed(grant), within(5)))).toMatchObject({ code: 'target_forbids' });
      expect(await target.check([parsed(grant)], within(10))).toHaveLength(1);
    }
    const { summary, details } = await target.describe(parsed(grants.binder), within(5));
    expect(summary).toContain('can make access that outlives the grant');
    expect(details[0]).toBe('outlives the grant: create rolebindings.rbac.authorization.k8s.io');
    await issued(leaseFor({ ...grants.wild, allowWildcards: true }, 60));
  });

  test('describe says the rules in words', async () => {
    expect(await target.describe(parsed(grants.user), within(5))).toEqual({
      summary: 'Role shop-reader in the namespace shop, as the person: get, list, watch on configmaps, pods, pods/log',
      details: ['get, list, watch on configmaps, pods, pods/log'],
    });
  });
});

describe('hostile holders and names', () => {
  test("a binding that has a lease's name but not its marker is neither taken over nor removed", async () => {
    const spec = leaseFor(grants.user, 60);
    await made(bindingsOf('shop'), bindingFor(spec, { metadata: { name: nameOf(spec.leaseId) } }));
    expect(await refusalOf(target.issue(spec, within(8)))).toMatchObject({ code: 'target_forbids' });
    expect(await refusalOf(target.revoke(spec, within(20)))).toMatchObject({ code: 'target_forbids', cut: undefined });
    expect((await asAdmin('GET', `${bindingsOf('shop')}/${nameOf(spec.leaseId)}`)).status).toBe(200);
    expect(await target.inspect(spec, within(10))).toMatchObject({ state: 'present', usable: true });
  });

  test('a holder who takes our label off is not believed gone', async () => {
    const spec = leaseFor(grants.binder, 60);
    const made = await issued(spec);
    const path = `${bindingsOf('shop')}/${nameOf(spec.leaseId)}`;
    const patch = (labels: Record<string, string | null>) =>
      cluster.kubernetes.api(
        cluster.kubernetes.adminToken,
        'PATCH',
        path,
        { metadata: { labels } },
        { 'Impersonate-User': made.connection['user'] ?? '', 'content-type': 'application/merge-patch+json' },
      );
    expect((await patch({ [leaseLabel]: null })).status).toBe(200);
    const refusal = await refusalOf(target.revoke(spec, within(20)));
    expect(refusal).toMatchObject({ code: 'target_forbids', cut: undefined });
    expect(refusal.message).toContain('does not bear the marker');
    expect((await cluster.asHolder(made, 'GET', configMaps)).status).toBe(200);
    await asAdmin('GET', path);
    expect((await patch({ [leaseLabel]: spec.leaseId })).status).toBe(200);
  });

  test('a holder who puts a finalizer on the binding keeps it, and the revocation says so instead of success', async () => {
    const spec = leaseFor(grants.binder, 60);
    const made = await issued(spec);
    const path = `${bindingsOf('shop')}/${nameOf(spec.leaseId)}`;
    const patch = (token: string, who: string, finalizers: string[] | null) =>
      cluster.kubernetes.api(
        token,
        'PATCH',
        path,
        { metadata: { finalizers } },
        { ...(who ? { 'Impersonate-User': who } : {}), 'content-type': 'application/merge-patch+json' },
      );
    expect((await patch(cluster.kubernetes.adminToken, made.connection['user'] ?? '', ['example.com/mine'])).status).toBe(200);
    const refusal = await refusalOf(target.revoke(spec, within(20)));
    expect(refusal).toMatchObject({ code: 'target_failed', cut: undefined });
    expect(refusal.message).toContain('held by the finalizer "example.com/mine"');
    expect(refusal.next).toContain('kubectl patch rolebinding');
    await patch(cluster.kubernetes.adminToken, '', null);
  });
});

describe('what is open already', () => {
  test('a watch that is open when access is cut goes on, as the limits say; the next call is refused', async () => {
    const spec = leaseFor(grants.user, 60);
    const holder = await issued(spec);
    await until('the holder may', async () => (await cluster.asHolder(holder, 'GET', configMaps)).status === 200, 1);
    await made(configMaps, { metadata: { name: 'made-before-the-cut' } });
    let events = '';
    const headers = { authorization: `Bearer ${cluster.kubernetes.adminToken}`, 'Impersonate-User': holder.connection['user'] ?? '' };
    const watch = request(`${cluster.kubernetes.address}${configMaps}?watch=1`, { ca: cluster.kubernetes.ca, headers, agent: false }, (answer) =>
      answer.on('data', (chunk: Buffer) => {
        events += chunk;
      }),
    );
    watch.on('error', () => undefined);
    watch.end();
    undo.push(async () => void watch.destroy());
    await until('the watch is open', async () => events !== '');
    await target.revoke(spec, within(20));
    await made(configMaps, { metadata: { name: 'made-after-the-cut' } });
    await until('the watch shows it', async () => events.includes('made-after-the-cut'));
    expect((await cluster.asHolder(holder, 'GET', configMaps)).status).toBe(403);
    expect(target.limits.staysOpen).toContain('a watch');
  });
});

describe('the reaper, with its own account', () => {
  test('ends what is over and nothing else, within the second, and knows the cluster’s clock only', async () => {
    const [over, overToken, live] = [leaseFor(grants.user, 2), leaseFor(grants.token, 2), leaseFor(grants.token, 60)];
    for (const spec of [over, overToken, live]) await issued(spec);
    await made(
      bindingsOf('shop'),
      bindingFor(leaseFor(grants.user, 60), { metadata: { name: 'the-teams-own', annotations: { 'halligan/until': '2020-01-01T00:00:00Z' } } }),
    );
    expect(await reapCluster(cluster)).toEqual({ ended: [], sessionsCut: 0, notes: [], faults: [] });
    await sleep(Math.max(over.endsAt.getTime(), overToken.endsAt.getTime()) - Date.now() + 1_000);
    const { ended, faults } = await reapCluster(cluster);
    expect(faults).toEqual([]);
    expect(ended.map((one) => one.split(' ')[0]).toSorted()).toEqual(['RoleBinding', 'RoleBinding', 'Secret', 'ServiceAccount']);
    expect(await target.inspect(over, within(10))).toEqual({ state: 'absent' });
    expect(await target.inspect(live, within(10))).toMatchObject({ state: 'present', usable: true });
    expect((await asAdmin('GET', `${bindingsOf('shop')}/the-teams-own`)).status).toBe(200);
  });

  test('the command reads its file, and leaves with 0 when all is well', async () => {
    const spec = leaseFor(grants.user, 1);
    await issued(spec);
    await sleep(spec.endsAt.getTime() - Date.now() + 1_000);
    const file = join(cluster.kubernetes.folder, 'targets.yaml');
    await writeFile(file, JSON.stringify({ targets: { prod: { kind: 'kubernetes-rbac', ...cluster.reaperConfig } } }));
    const lines: string[] = [];
    expect(await reapCommand({ targets: file, once: true, say: (line) => void lines.push(line) })).toBe(0);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      expect.objectContaining({ target: 'prod', kind: 'kubernetes-rbac', ended: [`RoleBinding shop/${nameOf(spec.leaseId)}`], faults: [] }),
    ]);
  });

  test('leaves alone what has no end that can be read, and says so', async () => {
    const spec = leaseFor(grants.user, 60);
    await made(bindingsOf('shop'), bindingFor(spec, { metadata: { name: nameOf(spec.leaseId), labels: markerOf(spec).labels } }));
    const { ended, faults } = await reapCluster(cluster);
    expect(ended).toEqual([]);
    expect(faults).toEqual([expect.stringContaining('no end that can be read')]);
  });

  test('has no right to make anything, nor to remove what is not ours', async () => {
    const token = await cluster.kubernetes.tokenFor('halligan', 'halligan-reaper');
    const spec = leaseFor(grants.user, 60);
    expect((await cluster.kubernetes.api(token, 'POST', bindingsOf('shop'), bindingFor(spec))).status).toBe(403);
    await made(bindingsOf('shop'), { ...bindingFor(spec), metadata: { name: 'the-teams-own' } });
    expect((await cluster.kubernetes.api(token, 'DELETE', `${bindingsOf('shop')}/the-teams-own`)).text).toContain('denied request');
    expect((await cluster.kubernetes.api(token, 'GET', '/api/v1/namespaces/shop/secrets')).status).toBe(403);
  });

  test('five hundred and more that are over: all pages are read, and all are ended', async () => {
    const specs = Array.from({ length: 520 }, () => leaseFor(grants.user, 1));
    const until = new Date(Date.now() - 5_000).toISOString();
    for (let from = 0; from < specs.length; from += 20) {
      await Promise.all(
        specs.slice(from, from + 20).map(async (spec) => {
          const { labels, annotations } = markerOf(spec);
          const metadata = { name: nameOf(spec.leaseId), labels, annotations: { ...annotations, 'halligan/until': until } };
          expect((await asAdmin('POST', bindingsOf('shop'), bindingFor(spec, { metadata }))).status).toBe(201);
        }),
      );
    }
    expect(await target.sweep(within(10))).toHaveLength(520);
    const began = Date.now();
    const { ended, faults } = await reapCluster(cluster);
    expect(faults).toEqual([]);
    expect(ended).toHaveLength(520);
    console.log(`live: the reaper ended 520 bindings in ${Date.now() - began} ms`);
  });
});

describe('a cluster that is not as it should be: the check says so in one sentence each', () => {
  const faultsOf = async (more: Record<string, unknown>, grant: unknown = grants.user): Promise<string[]> => {
    const other = cluster.connect(more);
    const faults = await other.check([parsed(grant)], within(10));
    await other.close();
    for (const { next } of faults) expect(next.length).toBeGreaterThan(10);
    return faults.map(({ message }) => message);
  };
  const file = async (name: string, text: string): Promise<string> => {
    const path = join(cluster.kubernetes.folder, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  };

  test.each([
    ['a token file that is empty', async () => ({ tokenFile: await file('empty', '\n') }), 'is empty'],
    ['a token file that is not there', async () => ({ tokenFile: join(cluster.kubernetes.folder, 'nowhere') }), 'cannot be read (ENOENT)'],
    ['a token that nobody knows', async () => ({ tokenFile: await file('wrong', 'wrong') }), "does not know Halligan's own token"],
    ['an authority of somebody else', async () => ({ caFile: undefined }), 'could not prove who it is'],
    ['an authority file that is none', async () => ({ caFile: await file('no-ca', 'hello') }), 'holds no certificate'],
    ['a server that is not there', async () => ({ server: 'https://127.0.0.1:1' }), 'could not be reached'],
    ['a service account of another name', async () => ({ serviceAccount: 'halligan/another' }), 'knows Halligan as "system:serviceaccount:halligan:halligan"'],
    ['namespaces without the one that is opened', async () => ({ namespaces: ['other'] }), 'is not among those'],
  ])('%s', async (_, block, words) => {
    const faults = await faultsOf(await block());
    expect(faults.join(' ')).toContain(words);
  });

  test('token mode without a namespace for it', async () => {
    expect(await faultsOf({ tokenNamespace: undefined }, grants.token)).toEqual(['prod: mode: token needs a namespace for its service accounts.']);
  });

  test('a namespace that is not there', async () => {
    await cluster.kubernetes.kubectl(['create', 'clusterrole', 'sees-nowhere', '--verb=get', '--resource=namespaces', '--resource-name=nowhere']);
    await cluster.kubernetes.kubectl(['create', 'clusterrolebinding', 'sees-nowhere', '--clusterrole=sees-nowhere', '--serviceaccount=halligan:halligan']);
    undo.push(() => cluster.kubernetes.kubectl(['delete', 'clusterrole,clusterrolebinding', 'sees-nowhere']));
    const grant = { clusterRole: 'space-viewer', namespace: 'nowhere' };
    await until('the right is felt', async () => (await faultsOf({}, grant)).join().includes('has no namespace "nowhere"'));
    expect(await faultsOf({}, grant)).toEqual(['prod has no namespace "nowhere".']);
    expect(await refusalOf(target.issue(leaseFor({ ...grant, mode: 'token' }, 60), within(8)))).toMatchObject({
      code: 'target_missing_role',
      nothingMade: true,
    });
  });

  test('a right that was taken away, by name', async () => {
    await cluster.kubernetes.kubectl(['delete', 'rolebinding', 'halligan', '-n', 'shop']);
    undo.push(() => cluster.kubernetes.apply(cluster.rights));
    await until('it is felt', async () => (await faultsOf({})).length > 0);
    expect(await faultsOf({}, grants.clusterInShop)).toEqual(
      ['create', 'delete'].map((verb) => `prod: Halligan may not ${verb} rolebindings.rbac.authorization.k8s.io in the namespace shop.`),
    );
    expect(await refusalOf(target.issue(leaseFor(grants.clusterInShop, 60), within(8)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
  });

  test('a cluster that limits nothing, and a namespace for tokens that holds more than ours', async () => {
    await cluster.kubernetes.kubectl(['delete', 'validatingadmissionpolicybinding', 'halligan-bindings']);
    undo.push(async () => {
      await cluster.kubernetes.apply(cluster.rights);
      await until('the policy is back', async () => (await faultsOf({})).length === 0);
    });
    await made('/api/v1/namespaces/halligan-leases/serviceaccounts', { metadata: { name: 'somebody' } });
    await until('it is felt', async () => (await faultsOf({})).length === 2);
    const faults = (await faultsOf({})).join(' ');
    expect(faults).toContain("nothing in the cluster limits what Halligan's own account may bind there");
    expect(faults).toContain('holds a service account "somebody" that is not Halligan\'s');
    expect((await faultsOf({ requireAdmissionPolicy: false })).join(' ')).not.toContain('nothing in the cluster limits');
  });

  test('a token that is replaced in its file is used from then on', async () => {
    const path = await file('rotated', cluster.halliganToken);
    const other = cluster.connect({ tokenFile: path });
    expect(await other.sweep(within(10))).toEqual([]);
    await writeFile(path, 'worn out');
    expect(await refusalOf(other.sweep(within(10)))).toMatchObject({ code: 'target_forbids' });
    await writeFile(path, await cluster.kubernetes.tokenFor('halligan', 'halligan'));
    expect(await other.sweep(within(10))).toEqual([]);
    await other.close();
  });

  test('a kubeconfig will do as well, with its files beside it; one that runs a program or turns TLS off will not', async () => {
    const { address, ca } = cluster.kubernetes;
    const of = (user: object, clusterMore: object = {}) =>
      JSON.stringify({
        clusters: [{ name: 'c', cluster: { server: address, 'certificate-authority': 'ca.pem', ...clusterMore } }],
        users: [{ name: 'u', user }],
        contexts: [{ name: 'one', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'one',
      });
    await file('ca.pem', ca);
    const own = { server: undefined, caFile: undefined, tokenFile: undefined };
    const good = { ...own, kubeconfigFile: await file('good', of({ token: cluster.halliganToken })) };
    expect(await faultsOf(good)).toEqual([]);
    expect((await faultsOf({ ...good, context: 'two' })).join()).toContain('has no context "two"');
    const bad: [string, string][] = [
      [of({ exec: { apiVersion: 'client.authentication.k8s.io/v1', command: 'true' } }), 'neither a token nor a client certificate'],
      [of({ token: 'x', as: 'admin' }), 'impersonates another'],
      [of({ token: 'x' }, { 'insecure-skip-tls-verify': true }), "turns the check of the server's certificate off"],
      [`token: "sekret\n  - {`, 'is not a kubeconfig'],
    ];
    for (const [text, words] of bad) {
      const said = (await faultsOf({ ...own, kubeconfigFile: await file('bad', text) })).join();
      expect(said).toContain(words);
      expect(said).not.toContain('sekret');
    }
  });
});
