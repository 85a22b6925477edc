/** What a config may say about a cluster, and about what an entitlement opens there. What can be known to be wrong without asking the cluster is refused here. */
import { isIP } from 'node:net';
import { z } from 'zod';

const isLoopback = (host: string): boolean => host === 'localhost' || host === '[::1]' || (isIP(host) === 4 && host.startsWith('127.'));

/** A namespace or a service account: a DNS label (Kubernetes documentation, "Object Names and IDs", RFC 1123). */
const label = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'is not a name that Kubernetes takes here: a-z, 0-9 and -, at most 63');
/** Roles have path-segment names: nearly anything, but nothing that would leave the path. */
const roleName = z
  .string()
  .min(1)
  .max(253)
  .regex(/^(?!\.\.?$)[^/%\s\p{Cc}]+$/u, 'is not a name that a role can have');
const serviceAccount = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, 'is written namespace/name');

const webAddress = z.url({ protocol: /^https?$/ });

export const targetSchema = z
  .strictObject({
    inCluster: z.boolean().default(false).describe("Halligan runs in this cluster, and uses its pod's service account"),
    server: webAddress.optional().describe('the address of the API server, for a Halligan that runs elsewhere'),
    caFile: z.string().min(1).optional().describe("the authority that signed the API server's certificate (PEM), instead of the system's"),
    tokenFile: z.string().min(1).optional().describe("a file with the token of Halligan's own service account; read again at each call"),
    kubeconfigFile: z.string().min(1).optional().describe('a kubeconfig with a token or a client certificate, instead of server, caFile and tokenFile'),
    context: z.string().min(1).optional().describe('the context of that kubeconfig; its current one unless said'),
    publicServer: webAddress.optional().describe('the address that people use, when it is another than ours'),
    publicCaFile: z.string().min(1).optional().describe('the authority for that address'),
    usernamePrefix: z.string().max(200).default('oidc:').describe("what the API server puts before a person's subject (--oidc-username-prefix)"),
    namespaces: z.array(label).min(1).max(200).optional().describe('look for bindings in these namespaces only; in all of them unless said'),
    tokenNamespace: label.optional().describe('a namespace kept for this, where the service accounts of token mode are made'),
    serviceAccount: serviceAccount.default('halligan/halligan').describe("Halligan's own service account there, namespace/name"),
    reaper: z.boolean().default(false).describe('halligan reap runs in the cluster at least once a minute'),
    reaperServiceAccount: serviceAccount.default('halligan/halligan-reaper').describe("the reaper's service account, namespace/name"),
    requireAdmissionPolicy: z.boolean().default(true).describe('the check insists that the cluster itself limits what Halligan may bind'),
  })
  .superRefine((block, ctx) => {
    const fault = (path: string, message: string) => ctx.addIssue({ code: 'custom', path: [path], message });
    const ways = [block.inCluster, block.server !== undefined, block.kubeconfigFile !== undefined].filter(Boolean).length;
    if (ways !== 1) fault('server', 'say how to reach the cluster: inCluster: true, or server with tokenFile, or kubeconfigFile');
    if (block.server !== undefined && block.tokenFile === undefined) fault('tokenFile', 'is missing: a server needs the file of a token');
    if (block.server === undefined && block.tokenFile !== undefined) fault('tokenFile', 'belongs to server');
    if (block.server === undefined && block.caFile !== undefined) fault('caFile', 'belongs to server');
    if (block.context !== undefined && block.kubeconfigFile === undefined) fault('context', 'belongs to kubeconfigFile');
    for (const key of ['server', 'publicServer'] as const) {
      const url = block[key] === undefined ? undefined : new URL(block[key]);
      if (url?.protocol === 'http:' && !isLoopback(url.hostname)) fault(key, 'must be https, except on loopback');
      if (url && (url.username || url.password || url.search || url.hash)) fault(key, 'must be a plain address');
    }
    if (block.usernamePrefix.startsWith('system:')) fault('usernamePrefix', 'must not begin with system:, which is for the cluster itself');
    if (block.tokenNamespace !== undefined && [block.serviceAccount, block.reaperServiceAccount].some((name) => name.split('/')[0] === block.tokenNamespace))
      fault('tokenNamespace', 'must be another namespace than that of a service account of ours: whoever mints tokens there could mint theirs');
  });
export type TargetConfig = z.infer<typeof targetSchema>;

export const grantSchema = z
  .strictObject({
    role: roleName.optional().describe('a Role of the namespace'),
    clusterRole: roleName.optional().describe('a ClusterRole; in the namespace, or in the whole cluster when no namespace is said'),
    namespace: label.optional(),
    mode: z
      .enum(['user', 'token'])
      .default('user')
      .describe("user: the person's own login at the cluster; token: a service account and a token for this lease alone"),
    allowWildcards: z.literal(true).optional().describe('the role may hold * in what it opens'),
    allowSystemRole: z.literal(true).optional().describe("the role may be one of Kubernetes' own (system:…)"),
    allowLastingAccess: z.literal(true).optional().describe('the role may let its holder make access that outlives the grant'),
  })
  .superRefine((block, ctx) => {
    const fault = (path: string, message: string) => ctx.addIssue({ code: 'custom', path: [path], message });
    if ((block.role === undefined) === (block.clusterRole === undefined)) fault('role', 'say role or clusterRole, one of the two');
    if (block.role !== undefined && block.namespace === undefined) fault('namespace', 'is missing: a Role belongs to a namespace');
    const name = block.role ?? block.clusterRole ?? '';
    if (name.startsWith('system:') && !block.allowSystemRole)
      fault(block.role === undefined ? 'clusterRole' : 'role', "is one of Kubernetes' own roles; if that is meant, say allowSystemRole: true as well");
    if (block.clusterRole === 'cluster-admin' && !block.allowWildcards)
      fault('clusterRole', 'opens everything; if that is meant, say allowWildcards: true as well');
  });
export type Grant = z.infer<typeof grantSchema>;

/** The role that a grant names, in Kubernetes' words. */
export const roleOf = (grant: Grant): { kind: 'Role' | 'ClusterRole'; name: string } =>
  grant.role === undefined ? { kind: 'ClusterRole', name: grant.clusterRole ?? '' } : { kind: 'Role', name: grant.role };

/** `ClusterRole view in the namespace shop`. */
export function grantInWords(grant: Grant): string {
  const { kind, name } = roleOf(grant);
  const where = grant.namespace === undefined ? 'in the whole cluster' : `in the namespace ${grant.namespace}`;
  return `${kind} ${name} ${where}, ${grant.mode === 'user' ? 'as the person' : 'by a token of its own'}`;
}
