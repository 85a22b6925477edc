/** `kubernetes-rbac` behind faults: a process that dies between any two of its calls, answers that are lost, throttling, stumbling and silence. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ProviderError, type Target } from '../../src/domain/provider.ts';
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

const status = (code: number, reason: string, headers: Record<string, string> = {}): HttpFault => ({
  status: code,
  headers,
  body: { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, message: `the double says ${reason}`, code },
});
const pass = (): HttpFault => 'pass';
const configMaps = '/api/v1/namespaces/shop/configmaps';
const writes = (calls: readonly string[]): string[] => calls.filter((call) => !call.startsWith('GET'));

/** The calls that this takes when nothing is wrong. */
async function nominal(work: () => Promise<unknown>): Promise<number> {
  double.set(pass);
  await work();
  return double.calls().length;
}

describe.each([
  ['user', grants.user],
  ['token', grants.token],
  ['cluster', grants.cluster],
] as const)('mode %s', (_, grant) => {
  test('invariants 4 and 5: dead between any two calls of issuing, what is there is found by its name and by a sweep, and ends', async () => {
    const calls = await nominal(async () => {
      const lease = leaseFor(grant, 60);
      await faulty.issue(lease, within(8));
      await whole.revoke(lease, within(20));
    });
    expect(calls).toBeGreaterThanOrEqual(2);
    const seen: string[] = [];
    for (let dies = 0; ; dies += 1) {
      const lease = leaseFor(grant, 60);
      double.set(({ number }) => (number > dies ? 'refuse' : 'pass'));
      const error = await faulty.issue(lease, within(8)).then(
        () => null,
        (thrown: unknown) => thrown as ProviderError,
      );
      const there = await cluster.ours();
      seen.push(there.map((one) => one.split(' ')[0]).join('+'));
      if (error) {
        expect(error).toMatchObject({ code: 'target_unreachable' });
        // What is said to be certain is certain.
        if (error.nothingMade) expect(there).toEqual([]);
      }
      const { state } = await whole.inspect(lease, within(10));
      expect(state).toBe(there.length > 0 ? 'present' : 'absent');
      expect(await whole.sweep(within(10))).toEqual(there.length > 0 ? [{ leaseId: lease.leaseId, externalName: lease.externalName }] : []);
      await whole.revoke(lease, within(20));
      expect(await cluster.ours()).toEqual([]);
      if (!error) break;
    }
    if (grant === grants.token)
      expect(seen).toEqual(expect.arrayContaining(['', 'ServiceAccount', 'Secret+ServiceAccount', 'RoleBinding+Secret+ServiceAccount']));
    else expect(seen).toEqual(expect.arrayContaining(['', grant === grants.cluster ? 'ClusterRoleBinding' : 'RoleBinding']));
  });

  test('any one answer that is lost: one credential, or none and in words', async () => {
    for (let lost = 1; ; lost += 1) {
      const lease = leaseFor(grant, 60);
      let hit = false;
      double.set(({ number }) => {
        if (number !== lost) return 'pass';
        hit = true;
        return 'reset-after-send';
      });
      const made = await faulty.issue(lease, within(8));
      expect((await cluster.asHolder(made, 'GET', grant === grants.cluster ? '/api/v1/namespaces' : configMaps)).status).toBe(200);
      expect((await cluster.ours()).filter((one) => one.includes('Binding'))).toHaveLength(1);
      await whole.revoke(lease, within(20));
      expect(await cluster.ours()).toEqual([]);
      if (!hit) break;
    }
  });

  test('invariants 6 and 7: dead between any two calls of revoking, access is cut before anything else, and trying again ends it', async () => {
    for (let dies = 0; ; dies += 1) {
      const lease = leaseFor(grant, 60);
      const made = await whole.issue(lease, within(8));
      double.set(({ number }) => (number > dies ? 'refuse' : 'pass'));
      const error = await faulty.revoke(lease, within(20)).then(
        () => null,
        (thrown: unknown) => thrown as ProviderError,
      );
      const there = await cluster.ours();
      const bound = there.some((one) => one.includes('Binding'));
      // The binding goes first: nothing else is missing while it is there.
      if (bound) expect(there).toHaveLength(grant === grants.token ? 3 : 1);
      if (error) {
        expect(error).toMatchObject({ code: 'target_unreachable' });
        if (error.cut) expect(bound).toBe(false);
      } else expect(there).toEqual([]);
      await whole.revoke(lease, within(20));
      expect(await cluster.ours()).toEqual([]);
      expect((await cluster.asHolder(made, 'GET', configMaps)).status).not.toBe(200);
      if (!error) break;
    }
  });
});

describe('answers that are no answers', () => {
  test('429 with Retry-After is waited for, and the call is made once more', async () => {
    const lease = leaseFor(grants.user, 60);
    const calls = await nominal(() => faulty.issue(lease, within(8)));
    await whole.revoke(lease, within(20));
    const other = leaseFor(grants.user, 60);
    const first = new Map<string, number>();
    const early: number[] = [];
    double.set(({ method, path }) => {
      const key = `${method} ${path.split('?')[0]}`;
      const before = first.get(key);
      if (before !== undefined) {
        early.push(Date.now() - before);
        return 'pass';
      }
      first.set(key, Date.now());
      return status(429, 'TooManyRequests', { 'retry-after': '1' });
    });
    await faulty.issue(other, within(8));
    expect(double.calls().length).toBeLessThanOrEqual(2 * calls);
    expect(Math.min(...early)).toBeGreaterThanOrEqual(1_000);
    await whole.revoke(other, within(20));
  });

  test('429 that asks for a minute ends in words, at once, with the time to come back', async () => {
    double.set(() => status(429, 'TooManyRequests', { 'retry-after': '60' }));
    const began = Date.now();
    const refusal = await refusalOf(faulty.revoke(leaseFor(grants.user, 60), within(20)));
    expect(refusal).toMatchObject({ code: 'target_unreachable' });
    expect(Date.now() - began).toBeLessThan(1_000);
    expect((refusal.retryAt?.getTime() ?? 0) - began).toBeGreaterThan(58_000);
  });

  test.each([500, 502, 503, 504])('%i once is tried again; for ever ends in words, after no more than twice the calls', async (code) => {
    const lease = leaseFor(grants.user, 60);
    let stumbled = false;
    double.set(({ method }) => {
      if (method !== 'POST' || stumbled) return 'pass';
      stumbled = true;
      return status(code, 'InternalError');
    });
    await faulty.issue(lease, within(8));
    expect(writes(double.calls())).toHaveLength(2);
    double.set(({ method }) => (method === 'DELETE' ? status(code, 'InternalError') : 'pass'));
    expect(await refusalOf(faulty.revoke(lease, within(20)))).toMatchObject({ code: 'target_unreachable', cut: undefined });
    expect(writes(double.calls())).toHaveLength(2);
    await whole.revoke(lease, within(20));
  });

  test('404 while removing is success; 409 is tried again; 410 in the middle of a list begins it anew', async () => {
    const lease = leaseFor(grants.user, 60);
    await whole.issue(lease, within(8));
    const deletes = (): number => double.calls().filter((call) => call.startsWith('DELETE')).length;
    double.set(({ method }) => (method === 'DELETE' && deletes() === 1 ? status(409, 'Conflict') : 'pass'));
    expect((await faulty.revoke(lease, within(20))).cutAt).toBeInstanceOf(Date);
    expect(await cluster.ours()).toEqual([]);
    await whole.issue(lease, within(8));
    double.set(({ method }) => (method === 'DELETE' ? status(404, 'NotFound') : 'pass'));
    // The cluster says that it is gone and shows that it is there: what is read decides.
    expect(await refusalOf(faulty.revoke(lease, within(20)))).toMatchObject({ code: 'target_failed', cut: undefined });
    await whole.revoke(lease, within(20));
    let expired = false;
    double.set(({ path }) => {
      if (expired || !path.includes('/rolebindings')) return 'pass';
      expired = true;
      return status(410, 'Expired');
    });
    expect(await faulty.sweep(within(10))).toEqual([]);
    expect(expired).toBe(true);
  });

  test('silence ends by the signal, says so, and a cluster that answers again is used again', async () => {
    double.set(() => 'stall');
    const began = Date.now();
    expect(await refusalOf(faulty.issue(leaseFor(grants.user, 60), within(2)))).toMatchObject({ code: 'target_timeout', nothingMade: true });
    expect(Date.now() - began).toBeLessThan(3_000);
    double.set(({ method }) => (method === 'POST' ? 'stall' : 'pass'));
    expect(await refusalOf(faulty.issue(leaseFor(grants.user, 60), within(2)))).toMatchObject({ code: 'target_timeout', nothingMade: false });
    double.set(pass);
    expect(await faulty.check([leaseFor(grants.user, 60).grant], within(10))).toEqual([]);
  });

  test('one call that is swallowed does not eat the whole time', async () => {
    const lease = leaseFor(grants.user, 60);
    let swallowed = false;
    double.set(() => {
      if (swallowed) return 'pass';
      swallowed = true;
      return 'stall';
    });
    await faulty.issue(lease, within(8));
    await whole.revoke(lease, within(20));
  });

  test("invariant 22: no failure carries Halligan's own token or the holder's", async () => {
    const said: string[] = [];
    const faults: HttpFault[] = [
      'refuse',
      status(401, 'Unauthorized'),
      status(403, 'Forbidden'),
      status(422, 'Invalid'),
      status(500, 'InternalError'),
      { status: 200, body: 'not what belongs here' },
    ];
    for (const fault of faults) {
      double.set(() => fault);
      const calls = [
        () => faulty.issue(leaseFor(grants.token, 60), within(8)),
        () => faulty.sweep(within(10)),
        () => faulty.describe(leaseFor(grants.user, 60).grant, within(5)),
      ];
      for (const call of calls) {
        const error = await call().then(
          () => null,
          (thrown: unknown) => thrown,
        );
        if (error) said.push(`${JSON.stringify(error)} ${String(error)} ${(error as Error).stack} ${JSON.stringify((error as Error).cause)}`);
        if (error) expect(error).toBeInstanceOf(ProviderError);
      }
    }
    expect(said.length).toBeGreaterThan(12);
    for (const text of said) expect(text).not.toContain(cluster.halliganToken.slice(0, 40));
  });
});
