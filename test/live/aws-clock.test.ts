/**
 * That a session really ends by the clock in its session policy: sessions that the aws-sts provider made are used on MinIO,
 * which enforces the policy on each S3 call, until they are refused. MinIO stands for AWS's STS and S3; IAM is moto.
 */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Issued, Target } from '../../src/domain/provider.ts';
import { grantSchema, targetSchema } from '../../src/providers/aws-sts/config.ts';
import { awsSts } from '../../src/providers/aws-sts.ts';
import { newLease, within } from '../support/provider-contract.ts';
import { type AwsAccount, account, openAccount } from './aws-account.ts';
import { type Minio, startMinio } from './servers/minio.ts';
import { signedCall } from './sigv4.ts';

/** MinIO knows no actions of IAM, so the grant names S3's alone. */
const statement = { Effect: 'Allow', Action: ['s3:ListBucket', 's3:GetObject'], Resource: ['arn:aws:s3:::orders', 'arn:aws:s3:::orders/*'] };
const grant = grantSchema.parse({ role: 'orders-ops', policy: { Statement: statement } });

let aws: AwsAccount;
let minio: Minio;
let block: Record<string, unknown>;
const environment = { ...process.env };

beforeAll(async () => {
  [aws, minio] = await Promise.all([openAccount(), startMinio()]);
  await aws.makeRole('orders-ops');
  const { gate } = await aws.open({ roles: ['orders-ops'] });
  expect((await signedCall(`${minio.url}/orders`, minio, 'PUT')).status).toBe(200);
  expect((await signedCall(`${minio.url}/orders/1`, minio, 'PUT', 'an order')).status).toBe(200);
  block = { account, region: 'us-east-1', roles: ['orders-ops'], allowStaticKeys: true, endpoint: minio.url, iamEndpoint: gate.url };
  process.env['AWS_ACCESS_KEY_ID'] = minio.accessKeyId;
  process.env['AWS_SECRET_ACCESS_KEY'] = minio.secretAccessKey;
}, 1_800_000);

afterAll(async () => {
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) {
    if (environment[name] === undefined) delete process.env[name];
    else process.env[name] = environment[name];
  }
  await Promise.all([minio?.stop(), aws?.close()]);
});

const connect = (): Target => awsSts.connect('orders-aws', targetSchema.parse(block), { readSecret: () => Promise.reject(new Error('no secret is needed')) });
const use = (issued: Pick<Issued, 'handle' | 'secret'>, path = '/orders') =>
  signedCall(`${minio.url}${path}`, { accessKeyId: issued.handle, ...(issued.secret as { secretAccessKey: string; sessionToken: string }) });

/** Uses the credential ten times a second until it has been refused for two seconds. Gives when it last worked and was first refused, in seconds after the end. */
async function probe(issued: Pick<Issued, 'handle' | 'secret'>, endsAt: Date): Promise<{ worked: number; refused: number; codes: Set<string> }> {
  let [worked, refused] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  const codes = new Set<string>();
  while (Date.now() < endsAt.getTime() + 2_000) {
    const began = (Date.now() - endsAt.getTime()) / 1_000;
    const { status, text } = await use(issued);
    if (status === 200) worked = Math.max(worked, began);
    else {
      refused = Math.min(refused, began);
      codes.add(/<Code>(\w+)<\/Code>/.exec(text)?.[1] ?? String(status));
    }
    await sleep(100);
  }
  return { worked, refused, codes };
}

describe('a session on a server that enforces its policy', () => {
  test('invariant 1: calls pass until the second of the end and are denied from it on, although the keys have minutes left', async () => {
    const target = connect();
    const lease = newLease(grant, 4);
    const issued = await target.issue(lease, within(8));
    expect(issued.expiresAt.getTime()).toBe(Math.floor(lease.endsAt.getTime() / 1_000) * 1_000);
    expect((await use(issued, '/orders/1')).text).toBe('an order');
    const { worked, refused, codes } = await probe(issued, lease.endsAt);
    expect([...codes]).toEqual(['AccessDenied']);
    expect(worked).toBeLessThanOrEqual(target.limits.newLogin.dead ?? 0);
    // AWS's instants are whole seconds: never late, and at most a second early.
    expect(worked).toBeGreaterThan(-1.3);
    expect(refused).toBeGreaterThan(-1.3);
    await target.close();
  });

  test('invariant 1: with whoever issued it killed at once, the session ends at the same second', async () => {
    const lease = newLease(grant, 5);
    const script = `
      import { awsSts } from './src/providers/aws-sts.ts';
      import { targetSchema } from './src/providers/aws-sts/config.ts';
      const lease = JSON.parse(process.argv[1]);
      const target = awsSts.connect('orders-aws', targetSchema.parse(${JSON.stringify(block)}), { readSecret: async () => '' });
      const issued = await target.issue({ ...lease, endsAt: new Date(lease.endsAt) }, AbortSignal.timeout(8000));
      console.log(JSON.stringify(issued));
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, JSON.stringify(lease)], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    for await (const chunk of child.stdout) {
      out += chunk;
      if (out.includes('\n')) break;
    }
    child.kill('SIGKILL');
    const issued = JSON.parse(out) as Issued;
    expect((await use(issued)).status).toBe(200);
    const { worked, codes } = await probe(issued, lease.endsAt);
    console.log(`aws-sts, X_new and X_live with Halligan dead: the last call that worked began ${worked.toFixed(2)} s from the end`);
    expect([...codes]).toEqual(['AccessDenied']);
    expect(worked).toBeLessThanOrEqual(1);
  });

  test('the narrower policy of the entitlement is enforced', async () => {
    const target = connect();
    const part = grantSchema.parse({ role: 'orders-ops', policy: { Statement: { ...statement, Action: 's3:GetObject' } } });
    const issued = await target.issue(newLease(part, 60), within(8));
    expect([(await use(issued, '/orders/1')).status, (await use(issued)).status]).toEqual([200, 403]);
    await target.close();
  });
});
