/**
 * The aws-sts provider on moto, for the shape of its calls, with what moto leaves out put in front (aws-gate-double.ts): every
 * call of Halligan's is judged by the very text that `halligan print aws-policy` and `aws-trust` print, and every call of a holder
 * by a policy evaluator. That AWS's clock really ends a session is shown on MinIO, in aws-clock.test.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type LeaseSpec, ProviderError, type Target } from '../../src/domain/provider.ts';
import { grantSchema, targetSchema } from '../../src/providers/aws-sts/config.ts';
import { longestInlinePolicies } from '../../src/providers/aws-sts/deny.ts';
import { awsPolicy } from '../../src/providers/aws-sts/least-rights.ts';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { type AwsAccount, account, openAccount } from './aws-account.ts';

const role = 'ops/orders-ops';
const grant = grantSchema.parse({ role });
const refOf = ({ leaseId, externalName, endsAt, grant }: LeaseSpec) => ({ leaseId, externalName, endsAt, grant });

let aws: AwsAccount;
beforeAll(async () => {
  aws = await openAccount();
  await aws.makeRole('orders-ops', '/ops/');
}, 600_000);
afterAll(() => aws.close());

/** Tries again when the target says so, as the worker does, until the lease is gone. */
async function revokeFully(target: Target, ref: Parameters<Target['revoke']>[0]) {
  for (let tries = 0; tries < 10; tries += 1) {
    try {
      return await target.revoke(ref, within(20));
    } catch (error) {
      const mayPass = error instanceof ProviderError && (error.retryAt || error.code === 'target_timeout' || error.code === 'target_unreachable');
      if (!mayPass) throw error;
      await sleep(Math.max(100, (error.retryAt?.getTime() ?? 0) - Date.now()));
    }
  }
  throw new Error('never gone');
}

describe('issuing', () => {
  test('check finds nothing wrong with the least rights and the printed trust, and describe shows what the grant opens', async () => {
    const { connect } = await aws.open({ roles: [role] });
    const target = connect();
    expect(await target.check([grant], within(10))).toEqual([]);
    const { summary, details } = await target.describe(grant, within(5));
    expect(summary).toContain(`a session of arn:aws:iam::${account}:role/ops/orders-ops: everything that it may do; the role has orders-data, machines`);
    expect(details).toContain('orders-data (v1): Allow s3:GetObject, s3:ListBucket on arn:aws:s3:::orders, arn:aws:s3:::orders/*');
    expect(details).toContainEqual(expect.stringMatching(/^session policy: Deny .*iam:Create\*.*sts:AssumeRole/));
    expect(details).toContainEqual(expect.stringContaining('trust: Allow {"AWS":"arn:aws:iam::123456789012:role/halligan"}'));
  });

  test('invariants 3 and 22: the call carries the lease, the person, our tags and the end, and only `secret` a secret', async () => {
    const { connect, asked, holderMay } = await aws.open({ roles: [role] });
    const lease = newLease(grantSchema.parse({ role, tags: { team: 'orders' } }), 300);
    const issued = await connect().issue(lease, within(8));
    const [call, ...others] = asked('AssumeRole');
    expect(others).toEqual([]);
    const { Policy: policy, ...sent } = Object.fromEntries(call!.params);
    expect(sent).toMatchObject({
      RoleArn: `arn:aws:iam::${account}:role/ops/orders-ops`,
      RoleSessionName: lease.leaseId,
      SourceIdentity: 'per_test',
      DurationSeconds: '900',
      'Tags.member.1.Key': 'halligan',
      'Tags.member.1.Value': 'lease',
      'Tags.member.2.Value': lease.leaseId,
      'Tags.member.3.Value': lease.grantId,
      'Tags.member.4.Key': 'team',
    });
    expect(policy).toContain(`"DateLessThan":{"aws:CurrentTime":"${lease.endsAt.toISOString().slice(0, 19)}Z"}`);
    expect(issued.expiresAt.toISOString()).toBe(`${lease.endsAt.toISOString().slice(0, 19)}.000Z`);
    const { secret, ...rest } = issued;
    expect(Object.keys(secret)).toEqual(['secretAccessKey', 'sessionToken']);
    for (const value of Object.values(secret)) expect(JSON.stringify(rest)).not.toContain(value);
    expect(await holderMay(issued)).toBe(true);
  });

  test('invariants 1 and 10: the holder may until the second of the end and not from it on', async () => {
    const { connect, holderMay } = await aws.open({ roles: [role] });
    const lease = newLease(grant, 300);
    const issued = await connect().issue(lease, within(8));
    const end = Math.floor(lease.endsAt.getTime() / 1_000) * 1_000;
    const at = (seconds: number) => holderMay(issued, undefined, undefined, new Date(end + seconds * 1_000));
    expect([await at(-1), await at(0), await at(1), await at(500)]).toEqual([true, false, false, false]);
  });

  test('invariant 1: a holder who lets a resource name the session gains nothing after the end', async () => {
    const { connect, holderMay } = await aws.open({ roles: [role] });
    const target = connect();
    const lease = newLease(grantSchema.parse({ role, policy: { Statement: { Effect: 'Allow', Action: 's3:*', Resource: '*' } } }), 300);
    const issued = await target.issue(lease, within(8));
    const bucketPolicy = {
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Principal: { AWS: `arn:aws:sts::${account}:assumed-role/orders-ops/${lease.leaseId}` },
          Action: 's3:DeleteObject',
          Resource: 'arn:aws:s3:::orders/*',
        },
      ],
    };
    const may = (seconds: number) =>
      holderMay(issued, 's3:DeleteObject', 'arn:aws:s3:::orders/1', new Date(lease.endsAt.getTime() + seconds * 1_000), bucketPolicy);
    expect([await may(-10), await may(1)]).toEqual([true, false]);
    await revokeFully(target, refOf(lease));
    expect(await may(-10)).toBe(false);
  });

  test('a narrower policy is an intersection, and persistence is refused unless the entitlement says otherwise', async () => {
    const { connect, holderMay } = await aws.open({ roles: [role] });
    const target = connect();
    const narrow = grantSchema.parse({ role, policy: { Statement: { Effect: 'Allow', Action: ['s3:GetObject', 'sqs:SendMessage'], Resource: '*' } } });
    const [whole, part, free] = await Promise.all(
      [grant, narrow, grantSchema.parse({ role, persistence: 'allowed' })].map((one) => target.issue(newLease(one, 300), within(8))),
    );
    expect(await holderMay(part!, 's3:GetObject', 'arn:aws:s3:::orders/1')).toBe(true);
    expect(await holderMay(part!, 's3:ListBucket')).toBe(false);
    expect(await holderMay(part!, 'sqs:SendMessage', `arn:aws:sqs:eu-central-1:${account}:q`)).toBe(false);
    const user = `arn:aws:iam::${account}:user/mallory`;
    expect([await holderMay(whole!, 'iam:CreateUser', user), await holderMay(free!, 'iam:CreateUser', user)]).toEqual([false, true]);
    expect(await holderMay(whole!, 'sts:AssumeRole', `arn:aws:iam::${account}:role/other`)).toBe(false);
  });

  test('a grant that is longer than a chained session gets an hour, and says so in `expiresAt`', async () => {
    const { connect, asked } = await aws.open({ roles: [role] });
    const target = connect();
    const issued = await target.issue(newLease(grant, 3 * 3_600), within(8));
    expect(asked('AssumeRole')[0]!.params.get('DurationSeconds')).toBe('3600');
    expect(Math.abs(issued.expiresAt.getTime() - Date.now() - 3_600_000)).toBeLessThan(5_000);
  });

  test("a grant whose end has passed, by AWS's clock, makes nothing", async () => {
    const { connect, asked, gate } = await aws.open({ roles: [role] });
    const target = connect();
    expect(await refusalOf(target.issue(newLease(grant, -1), within(8)))).toMatchObject({ code: 'target_failed', nothingMade: true });
    gate.clockAheadSeconds = 600;
    await refusalOf(target.check([grant], within(8)).then((faults) => Promise.reject(new ProviderError('target_failed', faults[0]!.message))));
    expect(await refusalOf(target.issue(newLease(grant, 300), within(8)))).toMatchObject({ code: 'target_failed', nothingMade: true });
    expect(asked('AssumeRole')).toEqual([]);
  });
});

describe('ending early', () => {
  test('invariants 5 and 6: the denial stops that session and no other; revoking lasts until AWS has had its time', async () => {
    const { connect, asked, holderMay } = await aws.open({ roles: [role] });
    const target = connect();
    const [one, two] = [newLease(grant, 300), newLease(grant, 300)];
    const [ended, kept] = [await target.issue(one, within(8)), await target.issue(two, within(8))];
    const pending = await refusalOf(target.revoke(refOf(one), within(20)));
    expect(pending).toMatchObject({ code: 'target_failed', cut: undefined });
    expect(pending.retryAt!.getTime()).toBeGreaterThan(Date.now());
    expect([await holderMay(ended), await holderMay(kept)]).toEqual([false, true]);
    expect(await target.inspect(refOf(one), within(8))).toMatchObject({ state: 'present' });
    const writes = asked('PutRolePolicy').length;
    const gone = await revokeFully(target, refOf(one));
    expect(gone).toMatchObject({ sessionsCut: 1, notes: [] });
    expect(gone.cutAt!.getTime()).toBeLessThanOrEqual(Date.now());
    expect(asked('PutRolePolicy')).toHaveLength(writes);
    expect(await target.inspect(refOf(one), within(8))).toEqual({ state: 'absent' });
    expect(await target.inspect(refOf(two), within(8))).toEqual({ state: 'present', usable: true, expiresAt: two.endsAt, openSessions: null });
    expect(await holderMay(kept)).toBe(true);
    expect(await revokeFully(connect(), refOf(one))).toMatchObject({ sessionsCut: 1 });
  });

  test('a session that a claim makes a moment after the denial is denied too', async () => {
    const { connect, holderMay } = await aws.open({ roles: [role] });
    const lease = newLease(grant, 300);
    await revokeFully(connect(), refOf(lease));
    expect(await holderMay(await connect().issue(lease, within(8)))).toBe(false);
  });

  test('invariant 6: two processes at once, and many leases at once, lose none', async () => {
    await aws.makeRole('busy');
    const busy = grantSchema.parse({ role: 'busy' });
    const { connect, asked, holderMay } = await aws.open({ roles: ['busy'] });
    const [one, two] = [connect(), connect()];
    const leases = Array.from({ length: 24 }, () => newLease(busy, 300));
    const issued = await Promise.all(leases.map((lease) => one.issue(lease, within(20))));
    await Promise.all(leases.map((lease, at) => revokeFully(at % 2 === 0 ? one : two, refOf(lease))));
    expect((await Promise.all(issued.map((each) => holderMay(each)))).filter(Boolean)).toEqual([]);
    // Whoever held the pen wrote for all who waited.
    expect(asked('PutRolePolicy').length).toBeLessThan(leases.length);
    await Promise.all(leases.flatMap((lease) => [revokeFully(one, refOf(lease)), revokeFully(two, refOf(lease))]));
    await aws.dropRole('busy');
  });

  test('invariant 9: a writer that slept in the middle of a revocation takes nothing back from another', async () => {
    const { connect, gate, holderMay } = await aws.open({ roles: [role] });
    const other = await aws.open({ roles: [role] });
    const [first, second] = [newLease(grant, 300), newLease(grant, 300)];
    const target = connect();
    const issued = [await target.issue(first, within(8)), await target.issue(second, within(8))];
    gate.delay('PutRolePolicy', 2_000);
    const slept = revokeFully(target, refOf(first));
    await sleep(500);
    await revokeFully(other.connect(), refOf(second));
    gate.heal();
    await slept;
    expect(await Promise.all(issued.map((each) => holderMay(each)))).toEqual([false, false]);
    expect(await revokeFully(connect(), refOf(second))).toMatchObject({ sessionsCut: 1 });
  });

  test('a lease whose end has come needs no denial, and its end is the cut', async () => {
    const { connect, asked } = await aws.open({ roles: [role] });
    const target = connect();
    const lease = newLease(grant, 3);
    await target.issue(lease, within(8));
    await sleep(lease.endsAt.getTime() - Date.now() + 1_200);
    expect(await target.revoke(refOf(lease), within(20))).toEqual({ cutAt: lease.endsAt, sessionsCut: 0, notes: [] });
    expect(asked('PutRolePolicy')).toEqual([]);
    expect(await target.inspect(refOf(lease), within(8))).toEqual({ state: 'absent' });
  });

  test("without the lease's role and end, every role of the target is closed to it", async () => {
    await aws.makeRole('reports');
    const { connect, holderMay } = await aws.open({ roles: [role, 'reports'] });
    const target = connect();
    const lease = newLease(grantSchema.parse({ role: 'reports' }), 300);
    const issued = await target.issue(lease, within(8));
    const { leaseId, externalName } = lease;
    expect(await revokeFully(target, { leaseId, externalName })).toMatchObject({ sessionsCut: 1 });
    expect(await holderMay(issued)).toBe(false);
    expect(await target.inspect({ leaseId, externalName }, within(8))).toEqual({ state: 'absent' });
    await aws.dropRole('reports');
  });

  test('a role that is gone has no sessions left', async () => {
    await aws.makeRole('short-lived');
    const { connect } = await aws.open({ roles: ['short-lived'] });
    const target = connect();
    const lease = newLease(grantSchema.parse({ role: 'short-lived' }), 300);
    await target.issue(lease, within(8));
    await aws.dropRole('short-lived');
    expect(await target.revoke(refOf(lease), within(20))).toEqual({ cutAt: null, sessionsCut: 0, notes: [] });
  });

  test('denials are deleted when no session can be left, other policies never', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    const target = connect();
    await revokeFully(target, refOf(newLease(grant, 300)));
    expect((await aws.denials('orders-ops')).size).toBeGreaterThan(0);
    expect(await target.sweep(within(15))).toEqual([]);
    expect((await aws.denials('orders-ops')).size).toBeGreaterThan(0);
    gate.clockAheadSeconds = 13 * 3_600;
    const later = connect();
    await later.check([], within(8));
    expect(await later.sweep(within(15))).toEqual([]);
    expect([...(await aws.inlineOf('orders-ops')).keys()]).toEqual(['machines']);
  });

  test('a hundred and fifty sessions of one role can be ended early, and the next ones are told why not', async () => {
    await aws.makeRole('crowded');
    const { connect } = await aws.open({ roles: ['crowded'] });
    const target = connect();
    const crowd = grantSchema.parse({ role: 'crowded' });
    const endsAt = new Date(Date.now() + 600_000);
    const lease = () => ({ ...refOf(newLease(crowd, 0)), endsAt });
    for (let batch = 0; batch < 3; batch += 1) await Promise.all(Array.from({ length: 50 }, () => revokeFully(target, lease())));
    const total = [...(await aws.inlineOf('crowded')).values()].join('').replace(/\s/g, '').length;
    expect(total).toBeLessThanOrEqual(longestInlinePolicies);
    const results = await Promise.allSettled(Array.from({ length: 60 }, () => revokeFully(target, lease())));
    const refusals = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as ProviderError] : []));
    // Those for whom there is room are ended, whoever asks beside them.
    expect(refusals.length).toBeGreaterThan(0);
    expect(refusals.length).toBeLessThan(60);
    expect(refusals[0]).toMatchObject({ code: 'target_forbids', message: expect.stringContaining('inline policies of crowded are full') });
    await aws.dropRole('crowded');
  }, 120_000);

  test('where roles cannot be edited, an early end waits for the end and the limits say so', async () => {
    const { connect, asked } = await aws.open({ roles: [role], earlyEnd: false });
    const target = connect();
    expect(target.limits).toEqual({ newLogin: { alive: 3_600, dead: 1 }, openSession: { alive: 3_600, dead: 1 } });
    expect(await target.check([grant], within(10))).toEqual([]);
    const lease = newLease(grant, 3);
    await target.issue(lease, within(8));
    const refused = await refusalOf(target.revoke(refOf(lease), within(20)));
    expect(refused).toMatchObject({ code: 'target_forbids', message: expect.stringContaining('no earlier') });
    expect(await revokeFully(target, refOf(lease))).toEqual({ cutAt: lease.endsAt, sessionsCut: 0, notes: [] });
    expect(asked('PutRolePolicy')).toEqual([]);
  });
});

describe('bad input', () => {
  test('what is wrong is said at the check, in one sentence with what to do, and by the claim, which makes nothing', async () => {
    const other = 'arn:aws:iam::999999999999:role/ops/orders-ops';
    const { connect, asked } = await aws.open({ roles: [role, 'nobody-made-this'] });
    const target = connect();
    const cases = [
      [{ role: 'nobody-made-this' }, 'target_missing_role', 'has no role'],
      [{ role: other }, 'target_forbids', 'belongs to the account 999999999999'],
      [{ role: 'orders-ops' }, 'target_forbids', 'not among the target\'s "roles"'],
    ] as const;
    for (const [block, code, words] of cases) {
      const wrong = grantSchema.parse(block);
      expect(await target.check([grant, wrong], within(10))).toMatchObject([{ message: expect.stringContaining(words), next: expect.stringMatching(/\S/) }]);
      expect(await refusalOf(target.issue(newLease(wrong, 60), within(8)))).toMatchObject({ code, nothingMade: true, message: expect.stringContaining(words) });
      expect(await refusalOf(target.describe(wrong, within(8)))).toMatchObject({ code });
    }
    expect(asked('AssumeRole').filter(({ params }) => params.get('RoleSessionName') !== 'hg_check')).toEqual([]);
  });

  test('a role whose path is another than the config says is not that role', async () => {
    const anything = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] };
    const { connect } = await aws.open({ roles: ['dev/orders-ops'] }, { policy: anything });
    const wrong = grantSchema.parse({ role: 'dev/orders-ops' });
    expect(await refusalOf(connect().issue(newLease(wrong, 60), within(8)))).toMatchObject({ code: 'target_missing_role', nothingMade: true });
  });

  test('rights that are missing are named, one by one, and trust that is missing too', async () => {
    const own = (actions: string[]) => ({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: actions, Resource: '*' }] });
    const read = ['iam:GetRole', 'iam:ListRolePolicies', 'iam:GetRolePolicy', 'sts:AssumeRole', 'sts:TagSession', 'sts:SetSourceIdentity'];
    const poor = (await aws.open({ roles: [role] }, { policy: own(read) })).connect();
    expect(await poor.check([grant], within(10))).toMatchObject([{ message: expect.stringContaining('lacks iam:PutRolePolicy, iam:DeleteRolePolicy') }]);
    const { details } = await poor.describe(grant, within(5));
    expect(details).toContain('attached policies: could not be read, because Halligan lacks the right to');

    await aws.makeRole(
      'distrustful',
      '/',
      JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Principal: { Service: 'ec2.amazonaws.com' }, Action: 'sts:AssumeRole' }] }),
    );
    const blind = (await aws.open({ roles: ['distrustful'] }, { policy: own(read.slice(0, 3).concat('iam:PutRolePolicy', 'iam:DeleteRolePolicy')) })).connect();
    const distrustful = grantSchema.parse({ role: 'distrustful' });
    expect(await blind.check([distrustful], within(10))).toMatchObject([
      { message: expect.stringContaining('not authorized to perform: sts:AssumeRole'), next: expect.stringContaining('aws-trust') },
    ]);
    expect(await refusalOf(blind.issue(newLease(distrustful, 60), within(8)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
    await aws.dropRole('distrustful');
  });

  test('nothing of the printed rights can be left out: each is missed by the check or by what an approver sees', async () => {
    const config = targetSchema.parse({ account, region: 'eu-central-1', roles: [role] });
    const whole = awsPolicy([config]);
    const { Statement: statements } = JSON.parse(whole) as { Statement: { Sid: string; Action: string[] }[] };
    // A trust policy of the same account that names Halligan's role is enough for STS; the rights stand there for trust that names the account.
    const actions = statements.filter(({ Sid }) => Sid !== 'Issue').flatMap(({ Action }) => Action);
    expect(actions).toHaveLength(8);
    for (const action of actions) {
      const without = JSON.parse(whole.replace(JSON.stringify(action), '"s3:ListBucket"')) as unknown;
      const target = (await aws.open({ roles: [role] }, { policy: without })).connect();
      const faults = await target.check([grant], within(10));
      const details = await target.describe(grant, within(5)).then(
        (description) => description.details,
        () => [],
      );
      expect(faults.length > 0 || details.some((line) => line.includes('could not be read')), action).toBe(true);
    }
  });

  test("a session that is not made by Halligan's rules is not trusted by the printed trust", async () => {
    const { gate } = await aws.open({ roles: [role] });
    const ask = (form: Record<string, string>) =>
      fetch(gate.url, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({ Action: 'AssumeRole', Version: '2011-06-15', RoleArn: `arn:aws:iam::${account}:role/ops/orders-ops`, ...form }),
      });
    const whole = { RoleSessionName: 'lse_1', SourceIdentity: 'per_1', 'Tags.member.1.Key': 'halligan', 'Tags.member.1.Value': 'lease' };
    expect((await ask({ ...whole, RoleSessionName: 'mallory' })).status).toBe(403);
    const { SourceIdentity: _, ...anonymous } = whole;
    expect((await ask(anonymous)).status).toBe(403);
    expect((await ask({ ...whole, 'Tags.member.1.Value': 'other' })).status).toBe(403);
  });

  test('a lease id that is none is refused before AWS is asked', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    for (const leaseId of ['../../orders', 'lse_1', 'lse_x&Action=CreateUser', `lse_${'0'.repeat(32)}*`, '']) {
      const lease = { ...newLease(grant, 60), leaseId };
      const target = connect();
      expect(await refusalOf(target.revoke(lease, within(8)))).toMatchObject({ code: 'target_forbids' });
      expect(await refusalOf(target.inspect(lease, within(8)))).toMatchObject({ code: 'target_forbids' });
      expect(await refusalOf(target.issue(lease, within(8)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
    }
    expect(gate.calls.filter(({ action }) => /^(AssumeRole|PutRolePolicy)$/.test(action))).toEqual([]);
  });

  test('a policy that AWS packs too large is told with what to shorten, by the check and by the claim', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    const target = connect();
    gate.fail('AssumeRole', { kind: 'answer', status: 400, code: 'PackedPolicyTooLarge' }, 2);
    expect(await target.check([grant], within(10))).toMatchObject([
      { message: expect.stringContaining('larger than AWS takes'), next: expect.stringContaining('Shorten') },
    ]);
    const tagged = grantSchema.parse({ role, tags: { team: 'orders' } });
    expect(await refusalOf(target.issue(newLease(tagged, 60), within(8)))).toMatchObject({
      code: 'target_forbids',
      nothingMade: true,
      next: expect.stringContaining('or its 1 tags'),
    });
  });

  test('a clock ten minutes off is a fault of the check', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    for (const seconds of [600, -600]) {
      gate.clockAheadSeconds = seconds;
      expect(await connect().check([grant], within(10))).toMatchObject([
        { message: expect.stringMatching(/clock and this machine's are (599|600|601) s apart/) },
      ]);
    }
  });

  test('an access key that never ends is refused unless the config allows it', async () => {
    const { connect } = await aws.open({ roles: [role] });
    const before = { ...process.env };
    Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'AKIASTATICKEYOFTEST', AWS_SECRET_ACCESS_KEY: 'canary-of-the-test' });
    try {
      const refused = await refusalOf(connect({ webIdentity: undefined }).issue(newLease(grant, 60), within(8)));
      expect(refused).toMatchObject({ code: 'target_forbids', nothingMade: true, message: expect.stringContaining('never ends') });
      expect(`${refused.message} ${refused.next}`).not.toContain('canary');
      const issued = await connect({ webIdentity: undefined, allowStaticKeys: true }).issue(newLease(grant, 60), within(8));
      expect(issued.handle).toMatch(/^ASIA/);
    } finally {
      for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) {
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
      }
    }
  });

  test('a token file that is empty or away stops issuing in words', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    for (const tokenFile of ['/dev/null', '/nowhere/token']) {
      const target = connect({ webIdentity: { role: `arn:aws:iam::${account}:role/halligan`, tokenFile } });
      expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({
        code: 'target_forbids',
        nothingMade: true,
        message: expect.stringContaining('own token'),
      });
      expect(await target.check([grant], within(8))).toHaveLength(1);
    }
    expect(gate.calls).toEqual([]);
  });
});

describe('faults', () => {
  const down = { kind: 'answer', status: 503, code: 'ServiceUnavailable' } as const;

  test('a passing failure is repeated once, and never more', async () => {
    const { connect, gate, asked } = await aws.open({ roles: [role] });
    const target = connect();
    gate.fail('AssumeRole', down, 1);
    await target.issue(newLease(grant, 60), within(8));
    expect(asked('AssumeRole')).toHaveLength(2);
    gate.fail('AssumeRole', down, 10);
    expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({ code: 'target_failed', nothingMade: false });
    expect(asked('AssumeRole')).toHaveLength(4);
  });

  test('throttling: a short Retry-After is kept, a long one is told', async () => {
    const { connect, gate, asked } = await aws.open({ roles: [role] });
    const target = connect();
    const throttled = (seconds: string) => ({ kind: 'answer', status: 429, code: 'Throttling', headers: { 'retry-after': seconds } }) as const;
    gate.fail('AssumeRole', throttled('1'), 1);
    await target.issue(newLease(grant, 60), within(8));
    const [first, second] = asked('AssumeRole');
    expect(second!.at - first!.at).toBeGreaterThanOrEqual(1_000);
    gate.fail('AssumeRole', throttled('30'), 1);
    const refused = await refusalOf(target.issue(newLease(grant, 60), within(8)));
    expect(refused).toMatchObject({ code: 'target_unreachable', nothingMade: true });
    expect(refused.retryAt!.getTime() - Date.now()).toBeGreaterThan(25_000);
    expect(asked('AssumeRole')).toHaveLength(3);
  });

  test('an AWS that never answers: each call ends by its signal, and by its attempts', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    const target = connect();
    await target.check([grant], within(10));
    gate.fail('*', { kind: 'stall' }, 1_000);
    const lease = newLease(grant, 60);
    const calls: ((signal: AbortSignal) => Promise<unknown>)[] = [
      (signal) => target.issue(lease, signal),
      (signal) => target.inspect(lease, signal),
      (signal) => target.revoke(lease, signal),
      (signal) => target.sweep(signal),
      (signal) => target.describe(grant, signal),
    ];
    for (const call of calls) {
      expect(await refusalOf(call(AbortSignal.abort()))).toMatchObject({ code: 'target_timeout' });
      const began = performance.now();
      expect(await refusalOf(call(within(1)))).toMatchObject({ code: 'target_timeout' });
      expect(performance.now() - began).toBeLessThan(2_000);
    }
    const began = performance.now();
    expect(await refusalOf(target.issue(lease, within(30)))).toMatchObject({ code: 'target_timeout' });
    expect(performance.now() - began).toBeLessThan(9_000);
  });

  test('an answer that is lost after AWS acted: the claim is not called certain, and the denial is written once', async () => {
    const { connect, gate, asked, holderMay } = await aws.open({ roles: [role] });
    const target = connect();
    const lease = newLease(grant, 300);
    const issued = await target.issue(lease, within(8));
    gate.fail('AssumeRole', { kind: 'lost' }, 2);
    expect(await refusalOf(target.issue(newLease(grant, 60), within(8)))).toMatchObject({ code: 'target_unreachable', nothingMade: false });
    gate.fail('PutRolePolicy', { kind: 'lost' }, 2);
    expect(await refusalOf(target.revoke(refOf(lease), within(20)))).toMatchObject({ code: 'target_unreachable' });
    expect(await holderMay(issued)).toBe(false);
    expect(await revokeFully(target, refOf(lease))).toMatchObject({ sessionsCut: 1 });
    expect(asked('PutRolePolicy')).toHaveLength(2);
  });

  test('invariant 22: no failure tells a secret, whatever failed', async () => {
    const { connect, gate } = await aws.open({ roles: [role] });
    const target = connect();
    const issued = await target.issue(newLease(grant, 60), within(8));
    const texts: string[] = [];
    for (const action of ['AssumeRole', 'GetRole', 'GetCallerIdentity', 'ListRolePolicies', 'PutRolePolicy']) {
      for (const code of ['ExpiredToken', 'SignatureDoesNotMatch', 'AccessDenied', 'InternalFailure']) {
        gate.heal();
        gate.fail(action, { kind: 'answer', status: code === 'InternalFailure' ? 500 : 403, code }, 100);
        for (const call of [() => target.issue(newLease(grant, 60), within(8)), () => target.revoke(newLease(grant, 60), within(8))]) {
          const error = await call().then(
            () => null,
            (thrown: ProviderError) => thrown,
          );
          if (!error) continue;
          expect(error).toBeInstanceOf(ProviderError);
          texts.push(JSON.stringify([error, error.message, error.next, error.stack, error.cause]));
        }
      }
    }
    expect(texts.length).toBeGreaterThan(10);
    for (const value of [...Object.values(issued.secret), 'a.projected.token']) for (const text of texts) expect(text).not.toContain(value);
  });
});
