/**
 * A real kube-apiserver with etcd beside the test, built from Go modules whose hashes are committed. There is no controller
 * manager, scheduler or kubelet: namespaces, RBAC, service accounts, tokens and admission policies work; pods do not run.
 */
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { awaitReady, type Child, freePort, installed, runTool, startChild } from './install.ts';

const version = '1.37.2';
const commands = { etcd: 'go.etcd.io/etcd/server/v3', kubectl: 'k8s.io/kubernetes/cmd/kubectl', 'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver' };

export interface KubeAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly body: Record<string, unknown>;
}

export interface Kubernetes {
  readonly address: string;
  readonly port: number;
  /** The authority that signed the server's certificate. */
  readonly caFile: string;
  readonly ca: string;
  /** A folder for files of this server's tests; it goes with the server. */
  readonly folder: string;
  readonly adminToken: string;
  /** The person whom the API server knows as `oidc:<subject>`, by a token that stands for their login. */
  personToken(subject: string): string;
  /** Runs kubectl as the administrator. */
  kubectl(args: readonly string[], input?: string): Promise<string>;
  /** Runs kubectl by this kubeconfig alone. */
  kubectlBy(kubeconfig: string, args: readonly string[]): Promise<string>;
  /** `kubectl apply` of a manifest, as the administrator would. */
  apply(manifest: string): Promise<string>;
  /** A token of a service account, as a projected volume would hold it. */
  tokenFor(namespace: string, serviceAccount: string): Promise<string>;
  /** One call with this token. */
  api(token: string, method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<KubeAnswer>;
  readonly child: Child;
  stop(): Promise<void>;
}

/** Builds the three commands once. */
export async function install(): Promise<string> {
  return installed(`kubernetes-${version}`, async (making) => {
    console.log('live: the API server is built from source: about six minutes the first time');
    const source = join(making, 'source');
    await mkdir(source);
    for (const file of ['go.mod', 'go.sum']) await copyFile(resolve('test/live/tools/kubernetes', file), join(source, file));
    const [major, minor] = version.split('.');
    const facts = { gitVersion: `v${version}`, gitMajor: major, gitMinor: minor };
    const flags = Object.entries(facts).map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`);
    for (const [name, path] of Object.entries(commands)) {
      console.log(`live: building ${name} …`);
      await runTool('nice', ['-n', '10', 'go', 'build', '-mod=readonly', '-trimpath', '-o', join(making, name), `-ldflags=-s -w ${flags.join(' ')}`, path], {
        cwd: source,
      });
    }
    await rm(source, { recursive: true });
  });
}

const people = ['oncall', 'second'];

/**
 * Starts both, on free ports of loopback. The administrator's token is random, so a server that accepts it is our child. A port that was
 * free may be taken a moment later, by a connection that somebody opens: then it is tried again on others, twice.
 */
export async function startKubernetes(): Promise<Kubernetes> {
  const bin = await install();
  for (let tries = 1; ; tries++) {
    const folder = await mkdtemp(join(tmpdir(), 'halligan-kubernetes-'));
    try {
      return await startIn(folder, bin);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      if (tries >= 3 || !/address already in use/.test((error as Error).message)) throw error;
    }
  }
}

async function startIn(folder: string, bin: string): Promise<Kubernetes> {
  const env = { PATH: process.env['PATH'], HOME: folder, TMPDIR: folder };
  const [port, clientPort, peerPort] = [await freePort(), await freePort(), await freePort()];
  const tokens = new Map(['admin', ...people].map((who) => [who, randomBytes(18).toString('hex')]));
  const tokenOf = (who: string): string => tokens.get(who) ?? '';
  const tokenFile = join(folder, 'tokens.csv');
  await writeFile(
    tokenFile,
    [`${tokenOf('admin')},admin,1,"system:masters"`, ...people.map((who, i) => `${tokenOf(who)},oidc:${who},${i + 2}`), ''].join('\n'),
    { mode: 0o600 },
  );
  const key = join(folder, 'service-accounts.key');
  await runTool('openssl', ['genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', key]);
  const urls = { client: `http://127.0.0.1:${clientPort}`, peer: `http://127.0.0.1:${peerPort}` };
  const etcd = startChild(
    join(bin, 'etcd'),
    [
      '--name=test',
      `--data-dir=${join(folder, 'etcd')}`,
      '--unsafe-no-fsync',
      '--log-level=error',
      `--listen-client-urls=${urls.client}`,
      `--advertise-client-urls=${urls.client}`,
      `--listen-peer-urls=${urls.peer}`,
      `--initial-advertise-peer-urls=${urls.peer}`,
      `--initial-cluster=test=${urls.peer}`,
    ],
    env,
  );
  await awaitReady(etcd, 'etcd', 30, async () => (await fetch(`${urls.client}/health`, { signal: AbortSignal.timeout(2_000) })).ok);
  const child = startChild(
    join(bin, 'kube-apiserver'),
    [
      `--etcd-servers=${urls.client}`,
      '--bind-address=127.0.0.1',
      `--secure-port=${port}`,
      `--cert-dir=${folder}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${key}`,
      `--service-account-signing-key-file=${key}`,
      '--authorization-mode=RBAC',
      `--token-auth-file=${tokenFile}`,
      '--service-cluster-ip-range=10.0.0.0/24',
      '--disable-admission-plugins=ServiceAccount',
    ],
    env,
  );
  const address = `https://127.0.0.1:${port}`;
  const caFile = join(folder, 'apiserver.crt');
  const api: Kubernetes['api'] = async (token, method, path, body, headers = {}) =>
    send({ address, ca: await readFile(caFile, 'utf8') }, method, path, { ...headers, authorization: `Bearer ${token}` }, body);
  try {
    await awaitReady(child, 'kube-apiserver', 60, async () => (await api(tokenOf('admin'), 'GET', '/readyz')).status === 200);
  } catch (error) {
    await etcd.stop();
    throw error;
  }
  const kubectl = (args: readonly string[], input?: string): Promise<string> =>
    runTool(join(bin, 'kubectl'), [`--server=${address}`, `--certificate-authority=${caFile}`, `--token=${tokenOf('admin')}`, ...args], {
      env,
      ...(input === undefined ? {} : { input }),
    });
  return {
    address,
    port,
    caFile,
    ca: await readFile(caFile, 'utf8'),
    folder,
    adminToken: tokenOf('admin'),
    personToken: tokenOf,
    kubectl,
    kubectlBy: (kubeconfig, args) => runTool(join(bin, 'kubectl'), [`--kubeconfig=${kubeconfig}`, ...args], { env }),
    apply: (manifest) => kubectl(['apply', '-f', '-'], manifest),
    tokenFor: async (namespace, serviceAccount) => (await kubectl(['create', 'token', serviceAccount, '-n', namespace, '--duration=3h'])).trim(),
    api,
    child,
    async stop() {
      await child.stop();
      await etcd.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function send(server: { address: string; ca: string }, method: string, path: string, given: Record<string, string>, body?: unknown): Promise<KubeAnswer> {
  return new Promise((done, failed) => {
    const headers = { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...given };
    const call = request(`${server.address}${path}`, { method, headers, ca: server.ca, timeout: 15_000, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk: string) => {
        text += chunk;
      });
      answer.on('error', failed);
      answer.on('end', () => {
        const parsed = text.startsWith('{') ? (JSON.parse(text) as Record<string, unknown>) : {};
        done({ status: answer.statusCode ?? 0, headers: answer.headers, text, body: parsed });
      });
    });
    call.on('error', failed);
    call.on('timeout', () => call.destroy(new Error('no answer within 15 s')));
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
