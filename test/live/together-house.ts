/**
 * One Halligan with all three kinds of target: OpenBao with PostgreSQL behind it, moto behind its gate, and a Kubernetes API
 * server. Halligan runs as a process of its own, and its rights at each target are what `halligan print` prints for its config.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { newSeat, type Ran, type Seat } from '../cli/run-cli.ts';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { type Answer, type House, startTestHouse, until } from '../support/house.ts';
import { type TcpProxyDouble, tcpProxyDouble } from '../support/tcp-proxy-double.ts';
import { type AwsAccount, account, openAccount, ownRole } from './aws-account.ts';
import { type HttpFaultDouble, httpFaultDouble } from './http-fault-double.ts';
import { type KubeAnswer, type Kubernetes, startKubernetes } from './servers/kubernetes.ts';
import { type VaultFixture, vaultFixture, grant as vaultGrant, targetName as vaultTarget } from './vault-fixture.ts';

export const three = ['orders-vault', 'orders-aws', 'orders-kube'] as const;
export const targets = { vault: vaultTarget, aws: 'aws-prod', kube: 'kube-prod' };
export const awsRole = 'orders-ops';

/** What the owners of the cluster's namespace have prepared. */
const prepared = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: shop-reader, namespace: shop }
rules:
  - { apiGroups: [""], resources: [configmaps], verbs: [get, list] }
`;

export interface Claim {
  readonly lease: string;
  readonly grant: string;
  readonly entitlement: string;
  readonly kind: string;
  readonly target: string;
  readonly handle: string;
  readonly expiresAt: string;
  readonly connection: Readonly<Record<string, string>>;
  readonly secret: Readonly<Record<string, string>>;
}

export interface Lease {
  readonly id: string;
  readonly entitlement: string;
  readonly target: string;
  readonly state: string;
  readonly handle: string | null;
  readonly external_name: string;
  readonly end_reason: string | null;
  readonly cut_at: Date | null;
  readonly read_back_at: Date | null;
  readonly expires_at: Date;
}

export interface Together {
  readonly house: House;
  readonly vault: VaultFixture;
  readonly aws: AwsAccount;
  readonly gate: Awaited<ReturnType<AwsAccount['open']>>['gate'];
  readonly kubernetes: Kubernetes;
  /** Between Halligan and its targets; they pass everything on unless a test says otherwise. */
  readonly vaultProxy: HttpFaultDouble;
  readonly kubeProxy: TcpProxyDouble;
  server(): ChildServer;
  /** SIGKILL, and a new process. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** The command line as this person, or without a login. */
  seat(person?: string): Promise<Seat>;
  print(what: string): Promise<string>;
  doctor(...more: string[]): Promise<Ran>;
  ask(entitlements: readonly string[], more?: { duration?: string; incident?: string }): Promise<{ id: string; seen: string }>;
  granted(entitlements: readonly string[], more?: { duration?: string; incident?: string }): Promise<{ request: string; grant: string }>;
  claim(grant: string, entitlement: string, by?: string): Promise<Answer<Claim>>;
  claimed(grant: string, entitlement: string): Promise<Claim>;
  /** Whether the target itself lets the holder in, asked by the test and not by Halligan. */
  letsIn(claim: Claim): Promise<boolean>;
  leases(grant: string): Promise<Lease[]>;
  ended(grant: string, withinMs?: number): Promise<void>;
  /** Everything at the targets that bears our marker or was made for a lease. Sessions cannot be listed at AWS. */
  residue(): Promise<{ users: string[]; records: string[]; objects: string[] }>;
  close(): Promise<void>;
}

const entitlement = (name: string, target: string, grant: object): string => `
  ${name}:
    opens: ${name} in production
    target: ${target}
    grant: ${JSON.stringify(grant)}
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h`;

export async function startTogether(): Promise<Together> {
  const undo: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    const faults: unknown[] = [];
    for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => faults.push(error));
    if (faults.length > 0) throw faults[0];
  };
  try {
    return await start(undo, close);
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

/** The three servers, as their owners prepare them; Halligan may nothing there yet. */
async function startTargets(undo: (() => Promise<unknown>)[]) {
  const vault = await vaultFixture();
  undo.push(() => vault.close());
  const vaultProxy = await httpFaultDouble(vault.bao.port);
  undo.push(() => vaultProxy.close());
  const aws = await openAccount();
  undo.push(() => aws.close());
  const policy: Record<string, unknown> = {};
  const { gate, holderMay } = await aws.open({ roles: [awsRole] }, { policy });
  const kubernetes = await startKubernetes();
  undo.push(() => kubernetes.stop());
  await kubernetes.apply(prepared);
  const kubeProxy = await tcpProxyDouble(kubernetes.port);
  undo.push(() => kubeProxy.close());
  return { vault, vaultProxy, aws, policy, gate, holderMay, kubernetes, kubeProxy };
}

type Targets = Awaited<ReturnType<typeof startTargets>>;

const targetBlocks = ({ vault, vaultProxy, aws, gate, kubernetes, kubeProxy }: Targets): string =>
  Object.entries({
    [targets.vault]: { kind: 'vault-database', ...vault.block({ address: `http://127.0.0.1:${vaultProxy.port}` }) },
    [targets.aws]: {
      kind: 'aws-sts',
      account,
      region: 'eu-central-1',
      propagationSeconds: 1,
      roles: [awsRole],
      webIdentity: { role: ownRole, tokenFile: aws.tokenFile },
      endpoint: gate.url,
      iamEndpoint: gate.url,
    },
    [targets.kube]: {
      kind: 'kubernetes-rbac',
      server: `https://127.0.0.1:${kubeProxy.port}`,
      publicServer: kubernetes.address,
      publicCaFile: kubernetes.caFile,
      caFile: kubernetes.caFile,
      tokenFile: join(kubernetes.folder, 'halligan.token'),
      tokenNamespace: 'halligan-leases',
    },
  })
    .map(([name, block]) => `  ${name}: ${JSON.stringify(block)}`)
    .join('\n');

async function start(undo: (() => Promise<unknown>)[], close: () => Promise<void>): Promise<Together> {
  const parts = await startTargets(undo);
  const { vault, aws, policy, kubernetes } = parts;
  const house = await startTestHouse({
    server: 'none',
    logLevel: 'debug',
    moreTargets: () => targetBlocks(parts),
    entitlements: () =>
      [
        entitlement('orders-vault', targets.vault, vaultGrant),
        entitlement('orders-aws', targets.aws, { role: awsRole }),
        entitlement('orders-kube', targets.kube, { role: 'shop-reader', namespace: 'shop', mode: 'token' }),
        entitlement('orders-kube-own', targets.kube, { role: 'shop-reader', namespace: 'shop' }),
      ].join(''),
  });
  undo.push(() => house.close());
  const nobody = await newSeat();
  undo.push(() => nobody.close());
  const print = async (what: string): Promise<string> => {
    const { code, out, err } = await nobody.run('print', what, '--config', house.configFile);
    if (code !== 0) throw new Error(`halligan print ${what}: ${code} ${err}`);
    return out;
  };
  const doctor = (...more: string[]): Promise<Ran> => nobody.run('doctor', '--config', house.configFile, ...more);

  // The least rights, exactly as they are printed, and nothing else.
  // The fixture has prepared Vault for another config: its index is taken away, and everything else is written over.
  await vault.bao.root('DELETE', 'sys/mounts/halligan');
  await vault.bao.script(await print('vault-setup'));
  Object.assign(policy, JSON.parse(await print('aws-policy')));
  await aws.makeRole(awsRole, '/', await print('aws-trust'));
  await kubernetes.apply(await print('k8s-rbac'));
  await writeFile(join(kubernetes.folder, 'halligan.token'), `${await kubernetes.tokenFor('halligan', 'halligan')}\n`, { mode: 0o600 });
  // The API server enforces a new admission policy some moments after it was applied.
  await until('the doctor finds every target well', async () => (await doctor()).code === 0, 30_000).catch(async () => {
    throw new Error(`the doctor finds faults: ${(await doctor()).out}`);
  });

  let child = await startChild(house);
  const superuser = house.database.superuser;
  undo.push(async () => {
    await superuser.query(`UPDATE access_grant SET ends_at = greatest(starts_at + interval '1 ms', now()) WHERE state = 'active' AND ends_at > now()`);
    const open = () => superuser.query(`SELECT FROM lease WHERE state NOT IN ('revoked', 'void')`);
    await until('every lease has ended', async () => (await open()).rowCount === 0, 30_000)
      .catch(async (error: Error) => {
        const { rows } = await superuser.query(`SELECT target, state, end_reason, last_error, next_try_at FROM lease WHERE state NOT IN ('revoked', 'void')`);
        throw new Error(`${error.message}: ${JSON.stringify(rows)} ${child.output().slice(-3_000)}`);
      })
      .finally(() => child.stop());
  });
  return { ...parts, house, print, doctor, close, ...verbsOf(parts, house, undo), ...processOf(house, { get: () => child, set: (next) => (child = next) }) };
}

function processOf(house: House, child: { get(): ChildServer; set(next: ChildServer): unknown }) {
  const kill = () => child.get().kill();
  const restart = async (): Promise<void> => void child.set(await startChild(house));
  return { server: () => child.get(), kill, restart };
}

/** What people do, and what the targets say. */
function verbsOf({ vault, holderMay, kubernetes }: Targets, house: House, undo: (() => Promise<unknown>)[]) {
  const ask: Together['ask'] = async (entitlements, more = {}) => {
    const answer = await (await house.apiAs('oncall')).post<{ id: string; seen: string }>('/requests', {
      entitlements,
      duration: more.duration ?? '20m',
      reason: 'the payments queue grows',
      ...(more.incident ? { incident: more.incident } : {}),
    });
    if (answer.status !== 201) throw new Error(`asking was refused: ${answer.text}`);
    return answer.body;
  };
  const granted: Together['granted'] = async (entitlements, more) => {
    const request = await ask(entitlements, more);
    const decision = { decision: 'approve', reason: 'go on', seen: request.seen };
    const answer = await (await house.apiAs('lead')).post<{ grant: { id: string } | null }>(`/requests/${request.id}/decisions`, decision);
    if (!answer.body.grant) throw new Error(`the approval was refused: ${answer.text}`);
    return { request: request.id, grant: answer.body.grant.id };
  };
  const claim: Together['claim'] = async (grant, name, by = 'oncall') => (await house.apiAs(by)).post<Claim>(`/grants/${grant}/leases`, { entitlement: name });
  const claimed: Together['claimed'] = async (grant, name) => {
    const answer = await claim(grant, name);
    if (answer.status !== 201) throw new Error(`the claim of ${name} was refused: ${answer.text}`);
    return answer.body;
  };
  const leases: Together['leases'] = async (grant) =>
    (await house.database.superuser.query<Lease>('SELECT * FROM lease WHERE grant_id = $1 ORDER BY created_at, id', [grant])).rows;
  const ended: Together['ended'] = async (grant, withinMs = 30_000) => {
    const state = 'SELECT FROM access_grant WHERE id = $1 AND state = $2';
    await until('the grant has ended', async () => (await house.database.superuser.query(state, [grant, 'ended'])).rowCount === 1, withinMs);
  };
  const letsIn: Together['letsIn'] = (one) => {
    if (one.kind === 'vault-database') return opensDatabase(one);
    if (one.kind === 'aws-sts') return holderMay({ handle: one.handle, expiresAt: new Date(one.expiresAt), connection: one.connection, secret: one.secret });
    return readsShop(kubernetes, one).then((answer) => answer.status === 200);
  };
  const seat: Together['seat'] = async (person) => {
    const made = await newSeat(person === undefined ? {} : { HALLIGAN_SERVER: house.url, HALLIGAN_TOKEN: await house.tokenOf(person) });
    undo.push(() => made.close());
    return made;
  };
  const residue: Together['residue'] = async () => {
    const kinds = 'rolebindings,clusterrolebindings,secrets,serviceaccounts';
    const form = '--output=jsonpath={range .items[*]}{.kind} {.metadata.name}{"\\n"}{end}';
    const lines = await kubernetes.kubectl(['get', kinds, '--all-namespaces', '--selector=halligan/lease', form]);
    const listed = (await vault.bao.root('LIST', `halligan/leases/${targets.vault}`).catch(() => null)) as { data: { keys: string[] } } | null;
    return { users: await vault.users(), records: listed?.data.keys ?? [], objects: lines.split('\n').filter(Boolean) };
  };
  return { ask, granted, claim, claimed, leases, ended, letsIn, seat, residue };
}

async function opensDatabase({ connection, secret }: Claim): Promise<boolean> {
  const { host = '', port, database = '', user = '' } = connection;
  const client = new pg.Client({ host, port: Number(port), database, user, password: secret['password'], connectionTimeoutMillis: 5_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query('SELECT FROM orders')).rowCount === 40;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === '28P01' || code === '28000') return false;
    throw error;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** A call as the holder: by the token, or in `mode: user` by the person's own login at the cluster. */
export const readsShop = (kubernetes: Kubernetes, { connection, secret }: Claim): Promise<KubeAnswer> =>
  kubernetes.api(connection['mode'] === 'token' ? (secret['token'] ?? '') : kubernetes.personToken('oncall'), 'GET', '/api/v1/namespaces/shop/configmaps');
