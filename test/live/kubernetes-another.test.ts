/** Further credentials of one lease in a cluster: what makes the lease be over, what is only a failure, and that nothing is made but tokens. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LeaseSpec, Target } from '../../src/domain/provider.ts';
import { nameOf } from '../../src/providers/kubernetes-rbac/marker.ts';
import { refusalOf, within } from '../support/provider-contract.ts';
import { type HttpFault, type HttpFaultDouble, httpFaultDouble } from './http-fault-double.ts';
import { type Cluster, grants, leaseFor, plainPort, preparedCluster } from './kubernetes-cluster.ts';

let cluster: Cluster;
let plain: Awaited<ReturnType<typeof plainPort>>;
let double: HttpFaultDouble;
let faulty: Target;
let whole: Target;
beforeAll(async () => {
  cluster = await preparedCluster();
  plain = await plainPort(cluster.kubernetes);
  double = await httpFaultDouble(plain.port);
  faulty = cluster.connect({ server: `http://127.0.0.1:${double.port}`, caFile: undefined });
  whole = cluster.connect();
});
afterAll(async () => {
  await whole?.close();
  await faulty?.close();
  await double?.close();
  await plain?.close();
  await cluster?.close();
});

const configMaps = '/api/v1/namespaces/shop/configmaps';
const reads = async (issued: Awaited<ReturnType<Target['issue']>>): Promise<number> => (await cluster.asHolder(issued, 'GET', configMaps)).status;
const again = (lease: LeaseSpec, target = whole) => target.another!(lease, within(8));
const remove = (kind: string, namespace: string, name: string) => cluster.kubernetes.kubectl(['delete', kind, name, `--namespace=${namespace}`]);
const accountOf = async (): Promise<string> => (await cluster.ours()).find((one) => one.startsWith('ServiceAccount '))!.split('/')[1]!;

test('twenty credentials by token: one binding, one service account, one Secret, every token works, and one revocation refuses all at once', async () => {
  const lease = leaseFor(grants.token, 300);
  const made = [await whole.issue(lease, within(8))];
  const before = await cluster.ours();
  const began = performance.now();
  for (let n = 1; n < 20; n += 1) made.push(await again(lease));
  console.log(`kubernetes-rbac, one more token: ${((performance.now() - began) / 19).toFixed(1)} ms`);
  expect(await cluster.ours()).toEqual(before);
  expect(before.map((one) => one.split(' ')[0])).toEqual(['RoleBinding', 'Secret', 'ServiceAccount']);
  expect(new Set(made.map(({ secret }) => secret['token'])).size).toBe(20);
  expect(await Promise.all(made.map(reads))).toEqual(made.map(() => 200));
  const cut = performance.now();
  await whole.revoke(lease, within(20));
  expect(new Set(await Promise.all(made.map(reads)))).toEqual(new Set([403]));
  console.log(`kubernetes-rbac, from the start of the revocation until twenty tokens were refused: ${((performance.now() - cut) / 1_000).toFixed(2)} s`);
  expect(await cluster.ours()).toEqual([]);
});

describe('the lease is over, which the code says', () => {
  const gone = { code: 'target_failed', leaseGone: true, nothingMade: true };
  test.each(['RoleBinding', 'Secret', 'ServiceAccount'] as const)('without its %s', async (kind) => {
    const lease = leaseFor(grants.token, 60);
    await whole.issue(lease, within(8));
    if (kind === 'RoleBinding') await remove('rolebinding', 'shop', nameOf(lease.leaseId));
    else await remove(kind.toLowerCase(), 'halligan-leases', await accountOf());
    expect(await refusalOf(again(lease))).toMatchObject(gone);
    await whole.revoke(lease, within(20));
    expect(await cluster.ours()).toEqual([]);
  });

  test('and for the person: without the binding, or with one that somebody changed', async () => {
    const lease = leaseFor(grants.user, 60);
    const first = await whole.issue(lease, within(8));
    expect(await again(lease)).toEqual(first);
    await cluster.kubernetes.kubectl(['set', 'subject', 'rolebinding', nameOf(lease.leaseId), '--namespace=shop', '--user=oidc:mallory']);
    expect(await refusalOf(again(lease))).toMatchObject(gone);
    await remove('rolebinding', 'shop', nameOf(lease.leaseId));
    expect(await refusalOf(again(lease))).toMatchObject(gone);
    expect(await cluster.ours()).toEqual([]);
  });

  test('also when its binding no longer bears our label, which is then not ours to end', async () => {
    const lease = leaseFor(grants.user, 60);
    await whole.issue(lease, within(8));
    await cluster.kubernetes.kubectl(['label', 'rolebinding', nameOf(lease.leaseId), '--namespace=shop', 'halligan/lease-']);
    expect(await refusalOf(again(lease))).toMatchObject(gone);
    expect(await refusalOf(whole.revoke(lease, within(20)))).toMatchObject({ code: 'target_forbids' });
    await remove('rolebinding', 'shop', nameOf(lease.leaseId));
  });
});

describe('a failure is not taken for the end of the lease', () => {
  const answer = (status: number): HttpFault => ({
    status,
    body: { kind: 'Status', apiVersion: 'v1', status: 'Failure', message: 'the double said so', code: status },
  });
  test.each([404, 409, 429, 500, 503] as const)('the request for the token is answered with %i', async (status) => {
    const lease = leaseFor(grants.token, 60);
    const first = await whole.issue(lease, within(8));
    double.set(({ path, method }) => (method === 'POST' && path.includes('/token') ? answer(status) : 'pass'));
    expect(await refusalOf(again(lease, faulty))).toMatchObject({ leaseGone: false });
    double.set(() => 'pass');
    expect(await Promise.all([reads(first), reads(await again(lease, faulty))])).toEqual([200, 200]);
    await whole.revoke(lease, within(20));
  });

  test('any one call that is refused, or whose answer is lost: a token that works, or words; the lease goes on', async () => {
    const lease = leaseFor(grants.token, 60);
    const first = await whole.issue(lease, within(8));
    const held = await cluster.ours();
    for (const fault of ['refuse', 'reset-after-send'] as const) {
      for (let at = 1; ; at += 1) {
        let hit = false;
        double.set(({ number }) => {
          if (number < at) return 'pass';
          hit = true;
          return number === at || fault === 'refuse' ? fault : 'pass';
        });
        const made = await again(lease, faulty).catch((error: unknown) => error);
        if (made instanceof Error) expect(made).toMatchObject({ code: 'target_unreachable', leaseGone: false });
        else expect(await reads(made as typeof first)).toBe(200);
        expect(await cluster.ours()).toEqual(held);
        if (!hit) break;
      }
    }
    double.set(() => 'pass');
    expect(await reads(first)).toBe(200);
    await whole.revoke(lease, within(20));
    expect(await cluster.ours()).toEqual([]);
  });
});
