/** For the live tests of `kubernetes-rbac`: a cluster that an administrator has prepared, with the least rights exactly as they are printed. */
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as dialTls } from 'node:tls';
import { readSecret } from '../../src/config/secrets.ts';
import type { Issued, LeaseSpec, Target } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/kubernetes-rbac/config.ts';
import { kubernetesRbac, leastRights } from '../../src/providers/kubernetes-rbac.ts';
import { reapKubernetes } from '../../src/reap/kubernetes.ts';
import type { Reaped } from '../../src/reap/reaped.ts';
import { newLease } from '../support/provider-contract.ts';
import { type KubeAnswer, type Kubernetes, startKubernetes } from './servers/kubernetes.ts';

/** What the owners of the namespaces have prepared: namespaces and roles. */
const prepared = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Namespace
metadata: { name: other }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: shop-reader, namespace: shop }
rules:
  - { apiGroups: [""], resources: [configmaps, pods, pods/log], verbs: [get, list, watch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: shop-binder, namespace: shop }
rules:
  - { apiGroups: [""], resources: [configmaps], verbs: [get, list] }
  - { apiGroups: [rbac.authorization.k8s.io], resources: [rolebindings], verbs: [get, list, create, patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: space-viewer }
rules:
  - { apiGroups: [""], resources: [namespaces, configmaps], verbs: [get, list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: everything-of-a-kind }
rules:
  - { apiGroups: [apps], resources: ["*"], verbs: ["*"] }
`;

export const grants = {
  user: { role: 'shop-reader', namespace: 'shop' },
  token: { role: 'shop-reader', namespace: 'shop', mode: 'token' },
  cluster: { clusterRole: 'space-viewer' },
  clusterInShop: { clusterRole: 'space-viewer', namespace: 'shop' },
  binder: { role: 'shop-binder', namespace: 'shop', allowLastingAccess: true },
  wild: { clusterRole: 'everything-of-a-kind', namespace: 'shop' },
  missing: { role: 'shop-missing', namespace: 'shop' },
} as const;

/** A grant block as the config's schema parses it. */
export const parsed = (grant: unknown): unknown => kubernetesRbac.grantSchema.parse(grant);

export interface Cluster {
  readonly kubernetes: Kubernetes;
  /** The target's block, without `kind`. */
  readonly config: Record<string, unknown>;
  /** What was applied, exactly as it is printed. */
  readonly rights: string;
  readonly halliganToken: string;
  readonly reaperConfig: Record<string, unknown>;
  /** The provider at this cluster, as the config's block would connect it. */
  connect(more?: Record<string, unknown>): Target;
  /** A call as the holder. A person's login at the cluster is stood for by an administrator who impersonates them: what decides is RBAC on that name. */
  asHolder(issued: Issued, method: string, path: string, body?: unknown): Promise<KubeAnswer>;
  /** Every object in the cluster that bears our label, as `Kind namespace/name`. */
  ours(): Promise<string[]>;
  close(): Promise<void>;
}

/** Starts a cluster, prepares it, applies what `leastRights` prints, and waits until the cluster enforces it. */
export async function preparedCluster(): Promise<Cluster> {
  const kubernetes = await startKubernetes();
  try {
    return await prepare(kubernetes);
  } catch (error) {
    await kubernetes.stop();
    throw error;
  }
}

async function prepare(kubernetes: Kubernetes): Promise<Cluster> {
  await kubernetes.apply(prepared);
  const tokenFile = join(kubernetes.folder, 'halligan.token');
  const config = { server: kubernetes.address, caFile: kubernetes.caFile, tokenFile, tokenNamespace: 'halligan-leases', reaper: true };
  const rights = leastRights(kubernetesRbac.targetSchema.parse(config), Object.values(grants).map(parsed));
  await kubernetes.apply(rights);
  const halliganToken = await kubernetes.tokenFor('halligan', 'halligan');
  await writeFile(tokenFile, `${halliganToken}\n`, { mode: 0o600 });
  const reaperTokenFile = join(kubernetes.folder, 'reaper.token');
  await writeFile(reaperTokenFile, `${await kubernetes.tokenFor('halligan', 'halligan-reaper')}\n`, { mode: 0o600 });
  const connect = (more: Record<string, unknown> = {}): Target =>
    kubernetesRbac.connect('prod', kubernetesRbac.targetSchema.parse({ ...config, ...more }), { readSecret });
  const cluster: Cluster = {
    kubernetes,
    config,
    rights,
    halliganToken,
    reaperConfig: { ...config, tokenFile: reaperTokenFile },
    connect,
    asHolder: (issued, method, path, body) =>
      issued.connection['mode'] === 'token'
        ? kubernetes.api(issued.secret['token'] ?? '', method, path, body)
        : kubernetes.api(kubernetes.adminToken, method, path, body, { 'Impersonate-User': issued.connection['user'] ?? '' }),
    async ours() {
      const lines = await kubernetes.kubectl([
        'get',
        'rolebindings,clusterrolebindings,secrets,serviceaccounts',
        '--all-namespaces',
        '--selector=halligan/lease',
        '--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\\n"}{end}',
      ]);
      return lines.split('\n').filter(Boolean).toSorted();
    },
    close: () => kubernetes.stop(),
  };
  await enforced(cluster);
  return cluster;
}

/** Admission policies are felt some moments after they were applied. */
async function enforced({ connect }: Cluster): Promise<void> {
  const target = connect();
  try {
    for (let tries = 0; ; tries += 1) {
      const faults = await target.check([parsed(grants.user)], AbortSignal.timeout(10_000));
      if (faults.length === 0) return;
      if (tries > 100) throw new Error(`the cluster is not ready: ${faults.map(({ message }) => message).join(' ')}`);
      await sleep(100);
    }
  } finally {
    await target.close();
  }
}

/** One round of the reaper, with its own account and its own rights. */
export const reapCluster = (cluster: Cluster, more: Record<string, unknown> = {}): Promise<Reaped> =>
  reapKubernetes('prod', targetSchema.parse({ ...cluster.reaperConfig, ...more }), { readSecret }, AbortSignal.timeout(20_000));

/** A port that speaks plain HTTP and passes it on to the API server by TLS, so that the fault double can stand in between. */
export async function plainPort(kubernetes: Kubernetes): Promise<{ port: number; close(): Promise<void> }> {
  const open = new Set<{ destroy(): unknown }>();
  const server = createServer((near) => {
    const far = dialTls({ host: '127.0.0.1', port: kubernetes.port, ca: kubernetes.ca });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    async close() {
      for (const one of open) one.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** A lease for this grant, under a fresh name, that ends so many seconds from now. */
export const leaseFor = (grant: unknown, seconds: number, more: Partial<LeaseSpec> = {}): LeaseSpec => ({ ...newLease(parsed(grant), seconds), ...more });
