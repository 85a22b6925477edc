/** Halligan's own way into a cluster: which server, whom to trust, which token. Read again at each call, so that a rotated file is picked up; kept nowhere. */
import { dirname, isAbsolute, join } from 'node:path';
import { type Cluster, KubeConfig, type User } from '@kubernetes/client-node';
import { ProviderError, type TargetOptions } from '../../domain/provider.ts';
import type { TargetConfig } from './config.ts';

/** Where and as whom, for one call. The token and the key are secret. */
export interface Access {
  readonly cluster: Cluster;
  readonly user: User;
}

/** The files that a pod finds its own service account in. */
const podFolder = '/var/run/secrets/kubernetes.io/serviceaccount';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** Reads the access that the config names. Throws `target_failed` with what is wrong, and never with what was read. */
export async function readAccess(name: string, config: TargetConfig, options: TargetOptions): Promise<Access> {
  try {
    if (config.kubeconfigFile !== undefined) return await fromKubeconfig(config.kubeconfigFile, config.context, options);
    const files = config.inCluster ? { ca: `${podFolder}/ca.crt`, token: `${podFolder}/token` } : { ca: config.caFile, token: config.tokenFile ?? '' };
    const token = (await options.readSecret({ file: files.token })).trim();
    if (token === '') throw new Error(`the file ${files.token} holds no token`);
    const ca = files.ca === undefined ? undefined : await readAuthority(files.ca, options);
    return { cluster: clusterAt(config.inCluster ? inClusterServer() : (config.server ?? ''), ca), user: { name: 'halligan', token } };
  } catch (error) {
    if (error instanceof ProviderError) throw error;
    throw new ProviderError('target_failed', `${name}: Halligan's own access to the cluster cannot be read: ${(error as Error).message}.`, {
      next: 'Correct the files that the target names in the config.',
      nothingMade: true,
    });
  }
}

const clusterAt = (server: string, ca: string | undefined): Cluster => ({
  name: 'target',
  server,
  // The schema lets plain http through on loopback only, where there is nothing to verify; the library wants it said.
  skipTLSVerify: server.startsWith('http:'),
  ...(ca === undefined ? {} : { caData: base64(ca) }),
});

function inClusterServer(): string {
  const pod = new KubeConfig();
  pod.loadFromCluster();
  const server = pod.getCurrentCluster()?.server ?? '';
  if (!URL.canParse(server) || server.includes('undefined')) throw new Error('inCluster is set, but this process does not run in a pod');
  return server;
}

async function readAuthority(file: string, options: TargetOptions): Promise<string> {
  const text = await options.readSecret({ file });
  if (!text.includes('-----BEGIN CERTIFICATE-----')) throw new Error(`the file ${file} holds no certificate (PEM)`);
  return `${text}\n`;
}

/** The authority that people need for the address they are told, in PEM; undefined where the system's will do. */
export async function publicAuthority(config: TargetConfig, access: Access, options: TargetOptions): Promise<string | undefined> {
  if (config.publicCaFile !== undefined) return readAuthority(config.publicCaFile, options);
  if (config.publicServer !== undefined || access.cluster.caData === undefined) return undefined;
  return Buffer.from(access.cluster.caData, 'base64').toString('utf8');
}

async function fromKubeconfig(file: string, context: string | undefined, options: TargetOptions): Promise<Access> {
  const text = await options.readSecret({ file });
  const config = new KubeConfig();
  try {
    config.loadFromString(text);
  } catch {
    // The parser's own words quote the text, and the text holds a secret.
    throw new Error(`${file} is not a kubeconfig`);
  }
  if (context !== undefined) config.setCurrentContext(context);
  const [cluster, user] = [config.getCurrentCluster(), config.getCurrentUser()];
  if (!cluster || !user) throw new Error(`${file} has no context ${JSON.stringify(config.getCurrentContext() ?? '')} with a cluster and a user`);
  if (user.exec || user.authProvider || user.username)
    throw new Error(`the user in ${file} has neither a token nor a client certificate, the two that are taken`);
  if (user.impersonateUser) throw new Error(`the user in ${file} impersonates another, which Halligan never does`);
  if (cluster.skipTLSVerify && !cluster.server.startsWith('http://127.')) throw new Error(`${file} turns the check of the server's certificate off`);
  const data = async (given: string | undefined, path: string | undefined): Promise<string | undefined> =>
    path === undefined ? given : base64(await options.readSecret({ file: isAbsolute(path) ? path : join(dirname(file), path) }));
  const [caData, certData, keyData] = await Promise.all([
    data(cluster.caData, cluster.caFile),
    data(user.certData, user.certFile),
    data(user.keyData, user.keyFile),
  ]);
  return {
    cluster: {
      name: 'target',
      server: cluster.server,
      skipTLSVerify: cluster.skipTLSVerify,
      ...(caData === undefined ? {} : { caData }),
      ...(cluster.tlsServerName === undefined ? {} : { tlsServerName: cluster.tlsServerName }),
      ...(cluster.proxyUrl === undefined ? {} : { proxyUrl: cluster.proxyUrl }),
    },
    user: {
      name: 'halligan',
      ...(user.token === undefined ? {} : { token: user.token }),
      ...(certData === undefined ? {} : { certData }),
      ...(keyData === undefined ? {} : { keyData }),
    },
  };
}
