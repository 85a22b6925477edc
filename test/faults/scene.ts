/** One case's house with its processes, and what people do in it, over HTTP. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Api, apiOf, type House, startTestHouse, until } from '../support/house.ts';
import { type Receiver, startReceiver } from '../support/post.ts';
import { type Arm, type Member, type Mode, type Role, startMember } from './processes.ts';
import type { CaseTarget, Claim, Kind, Servers } from './targets.ts';

export interface SceneOptions {
  readonly kind: Kind;
  readonly redis: boolean;
  readonly tells: boolean;
  readonly mode: Mode;
  /** From 0 to 1, out of the seed. */
  readonly random: () => number;
}

export interface Answered {
  readonly claim: Claim;
  readonly session: Awaited<ReturnType<CaseTarget['session']>>;
}

export interface Scene {
  readonly house: House;
  readonly target: CaseTarget;
  readonly mode: Mode;
  readonly random: () => number;
  /** Where the messages arrive, in a house that tells anybody. */
  readonly receiver: Receiver | undefined;
  /** Every process that was started, in order. */
  readonly members: Member[];
  /** Every claim that was answered with a credential. */
  readonly answered: Answered[];
  /** Secrets of the run that may stand nowhere, whoever they were given to. */
  readonly canaries: Set<string>;
  query<T extends object>(sql: string, ...values: unknown[]): Promise<T[]>;
  start(role: Role, arms?: readonly Arm[]): Member;
  api(subject: 'oncall' | 'lead'): Promise<Api>;
  ask(duration: string): Promise<{ id: string; seen: string }>;
  approve(request: { id: string; seen: string }): Promise<string>;
  granted(duration: string): Promise<string>;
  /** Claims; throws with the answer when nothing is given. */
  claim(grant: string): Promise<Claim>;
  giveBack(grant: string): Promise<void>;
  close(): Promise<void>;
}

const entitlementOf = ({ entitlement, target, grant }: CaseTarget, groupRole: string): string => `
  ${entitlement}:
    opens: ${entitlement} in production
    target: ${target}
    grant: ${JSON.stringify(target === 'orders-db' ? { role: groupRole } : grant)}
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads] }, count: 1 } ]
    maxDuration: 1h`;

const hookSecret = 'HALLIGAN_FAULTS_HOOK_SECRET';
process.env[hookSecret] = `whsec_${randomBytes(24).toString('base64')}`;

/** Makes the house; no process runs yet. */
export async function openScene(servers: Servers, { kind, redis, tells, mode, random }: SceneOptions): Promise<Scene> {
  const undo: (() => Promise<unknown>)[] = [];
  const target = await servers.target(kind);
  undo.push(() => target.close());
  const receiver = tells ? await startReceiver() : undefined;
  if (receiver) undo.push(() => receiver.close());
  const queue = redis ? await servers.redis() : undefined;
  const blocks = [
    ...(queue ? [`redis: { url: '${queue.url}', passwordFile: redis-password, prefix: 'faults-${randomBytes(6).toString('hex')}' }`] : []),
    ...(receiver ? [`webhooks: { pager: { url: '${receiver.url}', secretEnv: ${hookSecret}, allowPrivate: true } }`, 'notify: [ { webhooks: [pager] } ]'] : []),
  ];
  const house = await startTestHouse({
    server: 'none',
    logLevel: 'debug',
    tell: blocks.join('\n'),
    moreTargets: () => (target.block ? `  ${target.target}: ${JSON.stringify(target.block)}` : ''),
    entitlements: ({ groupRole }) => entitlementOf(target, groupRole),
  });
  undo.push(() => house.close());
  if (queue) await writeFile(join(house.folder, 'redis-password'), `${queue.password}\n`, { mode: 0o600 });
  const members: Member[] = [];
  const answered: Answered[] = [];
  return {
    house,
    target,
    mode,
    random,
    receiver,
    members,
    answered,
    canaries: new Set([...(queue ? [queue.password] : []), process.env[hookSecret] ?? '']),
    query: async <T extends object>(sql: string, ...values: unknown[]) => (await house.database.superuser.query<T>(sql, values)).rows,
    start(role, arms = []) {
      const member = startMember(house.configFile, role, arms);
      members.push(member);
      return member;
    },
    ...verbsOf(house, target, answered),
    async close() {
      for (const member of members) if (member.isAlive()) await member.kill();
      for (const { session } of answered) await session?.close();
      const faults: Error[] = [];
      for (const step of undo.splice(0).reverse()) await step().catch((error: Error) => faults.push(error));
      if (faults[0]) throw faults[0];
    },
  };
}

type Verbs = Pick<Scene, 'api' | 'ask' | 'approve' | 'granted' | 'claim' | 'giveBack'>;

function verbsOf(house: House, target: CaseTarget, answered: Answered[]): Verbs {
  const api: Verbs['api'] = async (subject) => apiOf(house.url, await house.tokenOf(subject));
  const ask: Verbs['ask'] = async (duration) => {
    const wish = { entitlements: [target.entitlement], duration, reason: 'the payments queue grows' };
    const answer = await (await api('oncall')).post<{ id: string; seen: string }>('/requests', wish);
    if (answer.status !== 201) throw new Error(`asking was answered ${answer.status} ${answer.text}`);
    return answer.body;
  };
  const approve: Verbs['approve'] = async ({ id, seen }) => {
    const answer = await (await api('lead')).post<{ grant: { id: string } | null }>(`/requests/${id}/decisions`, {
      decision: 'approve',
      reason: 'go on',
      seen,
    });
    if (!answer.body.grant) throw new Error(`approving was answered ${answer.status} ${answer.text}`);
    return answer.body.grant.id;
  };
  return {
    api,
    ask,
    approve,
    granted: async (duration) => approve(await ask(duration)),
    async claim(grant) {
      const answer = await (await api('oncall')).post<Claim>(`/grants/${grant}/leases`, { entitlement: target.entitlement });
      if (answer.status !== 201) throw new Error(`claiming was answered ${answer.status} ${answer.text}`);
      const claim = answer.body;
      answered.push({ claim, session: (await target.letsIn(claim)) ? await target.session(claim) : undefined });
      return claim;
    },
    async giveBack(grant) {
      const answer = await (await api('oncall')).post(`/grants/${grant}/return`);
      if (answer.status !== 200 && answer.body.code !== 'grant_not_active') throw new Error(`giving back was answered ${answer.status} ${answer.text}`);
    },
  };
}

export { until };
