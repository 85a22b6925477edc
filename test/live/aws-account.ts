/** An AWS account for the tests: moto behind the gate, roles set up as docs/providers.md says, Halligan's own access by web identity with its least rights, and holders whose calls are judged by the evaluator. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AttachRolePolicyCommand,
  CreatePolicyCommand,
  CreateRoleCommand,
  DeleteRoleCommand,
  DeleteRolePolicyCommand,
  DetachRolePolicyCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  IAMClient,
  ListAttachedRolePoliciesCommand,
  ListRolePoliciesCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam';
import type { Issued, Target } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/aws-sts/config.ts';
import { awsSts } from '../../src/providers/aws-sts.ts';
import { type AwsGateDouble, awsGateDouble, type Call } from './aws-gate-double.ts';
import { openEvaluator } from './iam-evaluator/evaluator.ts';
import { startMoto } from './servers/moto.ts';

export const account = '123456789012';
export const ownRole = `arn:aws:iam::${account}:role/halligan`;
/** What `halligan print` prints for a target: what the tests apply. */
const printed = (what: string, config: unknown): string => awsSts.prints?.[what]?.([{ name: 'orders-aws', config, grants: [] }]) ?? '';
const ownSession = `arn:aws:sts::${account}:assumed-role/halligan/halligan`;

/** What the role opens: one managed policy and one inline policy. */
const managed = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: ['s3:GetObject', 's3:ListBucket'], Resource: ['arn:aws:s3:::orders', 'arn:aws:s3:::orders/*'] }],
};
const inline = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: ['ec2:DescribeInstances', 'iam:CreateUser', 'sts:AssumeRole'], Resource: '*' }],
};

export type AwsAccount = Awaited<ReturnType<typeof openAccount>>;

export async function openAccount() {
  const evaluator = await openEvaluator();
  const moto = await startMoto(account);
  const folder = await mkdtemp(join(tmpdir(), 'halligan-aws-'));
  const tokenFile = join(folder, 'token');
  await writeFile(tokenFile, 'a.projected.token\n');
  const iam = new IAMClient({ region: 'us-east-1', endpoint: moto.url, credentials: { accessKeyId: 'AKIAADMINISTRATOR', secretAccessKey: 'of-the-test' } });
  const { Policy: made } = await iam.send(new CreatePolicyCommand({ PolicyName: 'orders-data', PolicyDocument: JSON.stringify(managed) }));
  const targets: Target[] = [];
  const gates: AwsGateDouble[] = [];

  const block = (more: object) =>
    targetSchema.parse({ account, region: 'eu-central-1', propagationSeconds: 1, webIdentity: { role: ownRole, tokenFile }, ...more });
  const inlineOf = async (name: string): Promise<Map<string, string>> => {
    const { PolicyNames: names = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName: name }));
    const read = async (one: string): Promise<[string, string]> => {
      const { PolicyDocument: text = '' } = await iam.send(new GetRolePolicyCommand({ RoleName: name, PolicyName: one }));
      return [one, decodeURIComponent(text)];
    };
    return new Map(await Promise.all(names.map(read)));
  };
  const readRole = async (name: string) => {
    const { Role: role } = await iam.send(new GetRoleCommand({ RoleName: name })).catch(() => ({ Role: undefined }));
    if (!role) return null;
    return {
      trust: JSON.parse(decodeURIComponent(role.AssumeRolePolicyDocument ?? '{}')),
      arn: role.Arn ?? '',
      id: role.RoleId ?? '',
      inline: await inlineOf(name),
    };
  };
  const house = {
    iam,
    tokenFile,
    inlineOf,
    readRole,
    /** The denials on a role, by name. */
    denials: async (name: string) => new Map([...(await inlineOf(name))].filter(([one]) => one.startsWith('halligan-revoked'))),
    async makeRole(name: string, path = '/', trust?: string): Promise<string> {
      const { Role: role } = await iam.send(
        new CreateRoleCommand({ RoleName: name, Path: path, AssumeRolePolicyDocument: trust ?? printed('aws-trust', block({ roles: [name] })) }),
      );
      await iam.send(new AttachRolePolicyCommand({ RoleName: name, PolicyArn: made?.Arn }));
      await iam.send(new PutRolePolicyCommand({ RoleName: name, PolicyName: 'machines', PolicyDocument: JSON.stringify(inline) }));
      return role?.Arn ?? '';
    },
    async dropRole(name: string): Promise<void> {
      const { AttachedPolicies: attached = [] } = await iam.send(new ListAttachedRolePoliciesCommand({ RoleName: name }));
      for (const { PolicyArn } of attached) await iam.send(new DetachRolePolicyCommand({ RoleName: name, PolicyArn }));
      for (const one of (await inlineOf(name)).keys()) await iam.send(new DeleteRolePolicyCommand({ RoleName: name, PolicyName: one }));
      await iam.send(new DeleteRoleCommand({ RoleName: name }));
    },
    /** A gate of its own, and a way to connect Halligan through it. `policy` stands in for the least rights that the config needs. */
    async open(more: { roles: string[]; [key: string]: unknown }, options: { policy?: unknown } = {}) {
      const config = block(more);
      const policy = options.policy ?? JSON.parse(printed('aws-policy', config));
      const gate = await awsGateDouble(moto.url, { account, evaluator, identity: { arn: ownSession, policy: () => policy }, role: readRole, inline: inlineOf });
      gates.push(gate);
      const connect = (other: object = {}): Target => {
        const whole = targetSchema.parse({ ...config, endpoint: gate.url, iamEndpoint: gate.url, ...other });
        const readSecret = async (ref: { file: string } | { env: string }): Promise<string> => {
          const text = 'file' in ref ? (await readFile(ref.file, 'utf8')).trim() : '';
          if (text === '') throw new Error('the secret file is empty');
          return text;
        };
        const target = awsSts.connect('orders-aws', whole, { readSecret });
        targets.push(target);
        return target;
      };
      const asked = (action: string): Call[] => gate.calls.filter((call) => call.action === action);
      /** Whether AWS would let the holder of this credential do that, at this time, with the role's policies as they are now. */
      const holderMay = async (
        issued: Issued,
        action = 's3:ListBucket',
        resource = 'arn:aws:s3:::orders',
        now = new Date(),
        onResource?: unknown,
      ): Promise<boolean> => {
        const { sessionName = '', role = '' } = issued.connection;
        const name = role.split('/').at(-1) ?? '';
        const call = asked('AssumeRole').findLast(({ params, keyId }) => params.get('RoleSessionName') === sessionName && keyId === issued.handle);
        const found = await readRole(name);
        if (!call || !found) return false;
        return evaluator({
          principal: `arn:aws:sts::${account}:assumed-role/${name}/${sessionName}`,
          account,
          action,
          resource,
          context: {
            'aws:userid': `${found.id}:${sessionName}`,
            'aws:TokenIssueTime': new Date(call.at).toISOString(),
            'aws:CurrentTime': now.toISOString(),
          },
          identity: [managed, ...[...(await inlineOf(name)).values()].map((text) => JSON.parse(text) as unknown)],
          session: JSON.parse(call.params.get('Policy') ?? 'null'),
          ...(onResource === undefined ? {} : { onResource }),
        });
      };
      return { gate, connect, asked, holderMay };
    },
    async close(): Promise<void> {
      for (const target of targets) await target.close();
      for (const gate of gates) await gate.close();
      iam.destroy();
      await moto.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return house;
}
