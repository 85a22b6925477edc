/** `kubernetes-rbac` on a real API server, with the rights that are printed and nothing more. */
import { afterAll, beforeAll } from 'vitest';
import { type ContractSubject, describeProviderContract } from '../support/provider-contract.ts';
import { type Cluster, grants, parsed, preparedCluster, reapCluster } from './kubernetes-cluster.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await preparedCluster();
});
afterAll(async () => {
  await cluster?.close();
});

const configMaps = '/api/v1/namespaces/shop/configmaps';

/** A holder who reads config maps, by what was issued. */
const subjectOf = (grant: unknown, path: string, more: Partial<ContractSubject>): ContractSubject => ({
  connect: () => cluster.connect(),
  grant: parsed(grant),
  missingGrant: parsed(grants.missing),
  sessions: 'none',
  another: true,
  async login(issued) {
    const call = () => cluster.asHolder(issued, 'GET', path);
    const answer = await call();
    if (answer.status !== 200) throw Object.assign(new Error(`${answer.status} ${answer.text}`), { status: answer.status });
    return { works: async () => (await call()).status === 200, close: async () => undefined };
  },
  isRefusal: (error) => [401, 403].includes((error as { status?: number }).status ?? 0),
  reap: async () => {
    const { faults } = await reapCluster(cluster);
    if (faults.length > 0) throw new Error(faults.join(' '));
  },
  close: async () => undefined,
  ...more,
});

describeProviderContract('kubernetes-rbac, a Role for the person', async () => subjectOf(grants.user, configMaps, { secretless: true }));
describeProviderContract('kubernetes-rbac, a Role by a token', async () => subjectOf(grants.token, configMaps, {}));
describeProviderContract('kubernetes-rbac, a ClusterRole for the person', async () => subjectOf(grants.cluster, '/api/v1/namespaces', { secretless: true }));
