/** Several credentials of one lease, through a whole Halligan: a second kubectl does not end the first, one lease and one binding whatever the number of claims, and one end for all. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../support/house.ts';
import { endsIn, eventsOf } from '../support/house-verbs.ts';
import { install } from './servers/kubernetes.ts';
import { type Claim, startTogether, type Together } from './together-house.ts';

let all: Together;
beforeAll(async () => {
  all = await startTogether();
});
afterAll(() => all?.close());

const letIn = (claims: readonly Claim[]): Promise<boolean[]> => Promise.all(claims.map((claim) => all.letsIn(claim)));
const giveBack = async (grant: string): Promise<void> => void (await (await all.house.apiAs('oncall')).post(`/grants/${grant}/return`));
const count = (types: readonly string[], type: string): number => types.filter((one) => one === type).length;

/** Claims side by side, each after the other, and gives when each was refused, in seconds after the grant was given back. */
async function refusedAfter(grant: string, claims: readonly Claim[]): Promise<number> {
  const began = performance.now();
  await giveBack(grant);
  await until('every credential is refused', async () => (await letIn(claims)).every((one) => !one), 20_000);
  return (performance.now() - began) / 1_000;
}

test.each([
  // The limits that the targets declare: a second for the cluster, the time for a denial to spread and five more for AWS.
  ['orders-kube', 1],
  ['orders-aws', 6],
] as const)(
  '%s: twenty claims make one lease and twenty witnesses; all work side by side, and the end refuses all in the declared bound',
  async (name, bound) => {
    const { grant } = await all.granted([name]);
    const claims: Claim[] = [];
    for (let n = 0; n < 20; n += 1) claims.push(await all.claimed(grant, name));
    expect(new Set(claims.map(({ lease }) => lease)).size).toBe(1);
    expect(new Set(claims.map(({ secret }) => JSON.stringify(secret))).size).toBe(20);
    expect((await all.leases(grant)).map(({ state, end_reason }) => [state, end_reason])).toEqual([['live', null]]);
    const events = await eventsOf(all.house, 'lease_id', claims[0]!.lease);
    expect([count(events, 'lease.intended'), count(events, 'lease.again'), count(events, 'lease.revealed')]).toEqual([1, 19, 20]);
    const objects = (await all.residue()).objects.map((one) => one.split(' ')[0]);
    expect(objects).toEqual(name === 'orders-kube' ? ['RoleBinding', 'Secret', 'ServiceAccount'] : []);
    expect(await letIn(claims)).toEqual(claims.map(() => true));
    const seconds = await refusedAfter(grant, [claims[0]!, claims[10]!, claims[19]!]);
    console.log(`${name}: given back, three of twenty credentials of one lease refused after ${seconds.toFixed(2)} s (bound ${bound} s)`);
    expect(seconds).toBeLessThanOrEqual(bound);
    await all.ended(grant);
    expect(await letIn(claims)).toEqual(claims.map(() => false));
    expect(await all.residue()).toEqual({ users: [], records: [], objects: [] });
  },
);

test('two kubectl by one kubeconfig: the token of the first still works after the second has got its own; nothing is replaced', async () => {
  const { grant } = await all.granted(['orders-kube']);
  const seat = await all.seat('oncall');
  const config = await seat.run('kube', 'orders-kube');
  expect(config.code).toBe(0);
  const kubeconfig = join(seat.home, 'kubeconfig');
  const bin = join(seat.home, 'bin');
  await mkdir(bin);
  const main = `exec ${JSON.stringify(process.execPath)} ${JSON.stringify(`${process.cwd()}/src/main.ts`)}`;
  await writeFile(join(bin, 'halligan'), `#!/bin/sh\n${main} "$@"\n`, { mode: 0o755 });
  await writeFile(kubeconfig, config.out);
  const first = await seat.run('kube', '--exec', grant, '--entitlement', 'orders-kube');
  expect([first.code, first.err]).toEqual([0, '']);
  const { status } = JSON.parse(first.out) as { status: { token: string; expirationTimestamp: string } };
  const env = { PATH: `${bin}:${process.env['PATH']}` };
  const command = [join(await install(), 'kubectl')];
  const both = await Promise.all([1, 2].map(() => seat.start([`--kubeconfig=${kubeconfig}`, 'get', 'configmaps'], { command, env }).done));
  expect(both.map(({ code, err }) => [code, /rror/.test(err)])).toEqual([
    [0, false],
    [0, false],
  ]);
  expect((await all.kubernetes.api(status.token, 'GET', '/api/v1/namespaces/shop/configmaps')).status).toBe(200);
  expect(await all.leases(grant)).toMatchObject([{ state: 'live', end_reason: null }]);
  await giveBack(grant);
  await all.ended(grant);
  expect((await all.kubernetes.api(status.token, 'GET', '/api/v1/namespaces/shop/configmaps')).status).not.toBe(200);
});

test('an administrator removes the binding: the next claim ends that lease as vanished and makes one that works', async () => {
  const { grant } = await all.granted(['orders-kube']);
  const first = await all.claimed(grant, 'orders-kube');
  const [object] = (await all.residue()).objects.filter((one) => one.startsWith('RoleBinding '));
  await all.kubernetes.kubectl(['delete', 'rolebinding', object!.split(' ')[1]!, '--namespace=shop']);
  const second = await all.claimed(grant, 'orders-kube');
  expect(second.lease).not.toBe(first.lease);
  expect(await letIn([first, second])).toEqual([false, true]);
  expect((await all.leases(grant)).map(({ end_reason }) => end_reason)).toEqual(['vanished', null]);
  await giveBack(grant);
  await all.ended(grant);
});

test('a grant whose end has come gives no further credential of a lease that is still there', async () => {
  const { grant } = await all.granted(['orders-kube', 'orders-aws']);
  for (const name of ['orders-kube', 'orders-aws']) await all.claimed(grant, name);
  await endsIn(all.house, grant, 0);
  for (const name of ['orders-kube', 'orders-aws']) {
    const { status, body } = await all.claim(grant, name);
    expect([status, body.code]).toEqual([409, 'grant_not_active']);
  }
  await all.ended(grant);
});

test('killed between making a further credential and showing it: the lease goes on, and its end covers what nobody saw', async () => {
  const { grant } = await all.granted(['orders-aws']);
  const first = await all.claimed(grant, 'orders-aws');
  all.gate.delay('AssumeRole', 1_500);
  const lost = all.claim(grant, 'orders-aws').then(
    () => 'answered',
    () => 'no answer',
  );
  await until('the witness is there', async () => (await eventsOf(all.house, 'lease_id', first.lease)).includes('lease.again'));
  await all.kill();
  expect(await lost).toBe('no answer');
  all.gate.heal();
  await all.restart();
  expect(await all.leases(grant)).toMatchObject([{ state: 'live', end_reason: null }]);
  const next = await all.claimed(grant, 'orders-aws');
  expect(next.lease).toBe(first.lease);
  expect(await letIn([first, next])).toEqual([true, true]);
  await giveBack(grant);
  await all.ended(grant);
  expect(await letIn([first, next])).toEqual([false, false]);
});
