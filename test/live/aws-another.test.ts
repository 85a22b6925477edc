/** Further sessions of one lease at AWS: under one name, each until the grant's end, and all of them stopped by the one denial of that name. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type LeaseSpec, ProviderError, type Target } from '../../src/domain/provider.ts';
import { grantSchema } from '../../src/providers/aws-sts/config.ts';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { type AwsAccount, openAccount } from './aws-account.ts';

const role = 'orders-again';
const grant = grantSchema.parse({ role });
const refOf = ({ leaseId, externalName, endsAt, grant }: LeaseSpec) => ({ leaseId, externalName, endsAt, grant });

let aws: AwsAccount;
beforeAll(async () => {
  aws = await openAccount();
  await aws.makeRole(role);
}, 600_000);
afterAll(() => aws?.close());

async function revokeFully(target: Target, lease: LeaseSpec): Promise<void> {
  for (let tries = 0; tries < 10; tries += 1) {
    try {
      return void (await target.revoke(refOf(lease), within(20)));
    } catch (error) {
      if (!(error instanceof ProviderError && error.retryAt)) throw error;
      await sleep(Math.max(100, error.retryAt.getTime() - Date.now()));
    }
  }
  throw new Error('never gone');
}

test('two sessions of one lease bear the same name, person, tags and end; both work, and one denial stops both and no other lease', async () => {
  const { connect, asked, holderMay } = await aws.open({ roles: [role] });
  const target = connect();
  const [lease, other] = [newLease(grant, 300), newLease(grant, 300)];
  const made = [await target.issue(lease, within(8)), await target.another!(lease, within(8)), await connect().another!(lease, within(8))];
  const kept = await target.issue(other, within(8));
  expect(new Set(made.map(({ handle }) => handle)).size).toBe(3);
  const sent = asked('AssumeRole').map(({ params }) => Object.fromEntries(params));
  expect(sent[1]).toEqual({ ...sent[0], DurationSeconds: sent[1]!['DurationSeconds'] });
  expect(sent[2]!['RoleSessionName']).toBe(lease.leaseId);
  expect(made.map(({ expiresAt }) => expiresAt)).toEqual([made[0]!.expiresAt, made[0]!.expiresAt, made[0]!.expiresAt]);
  expect(await Promise.all(made.map((one) => holderMay(one)))).toEqual([true, true, true]);
  await revokeFully(target, lease);
  expect(await Promise.all(made.map((one) => holderMay(one)))).toEqual([false, false, false]);
  expect(await holderMay(kept)).toBe(true);
  expect(await target.inspect(refOf(lease), within(8))).toEqual({ state: 'absent' });
});

test('invariant 9: a session that is issued while the denial is written, just before or just after, is stopped too', async () => {
  const { connect, gate, holderMay } = await aws.open({ roles: [role] });
  const target = connect();
  const lease = newLease(grant, 300);
  const first = await target.issue(lease, within(8));
  // The denial is on its way to IAM: its stamp stands, and it is not there yet.
  gate.delay('PutRolePolicy', 1_500);
  const ending = revokeFully(target, lease);
  await sleep(700);
  const before = await target.another!(lease, within(8));
  expect(await holderMay(before)).toBe(true);
  await ending;
  // Asked for before the lease was ended, and answered long after: its claim is refused, and its session denied.
  const after = await target.another!(lease, within(8));
  expect(await Promise.all([first, before, after].map((one) => holderMay(one)))).toEqual([false, false, false]);
});

test('invariant 1: no session of a lease outlives the grant, whenever it was made', async () => {
  const { connect, holderMay } = await aws.open({ roles: [role] });
  const target = connect();
  const lease = newLease(grant, 4);
  const first = await target.issue(lease, within(8));
  await sleep(1_500);
  const second = await target.another!(lease, within(8));
  const end = Math.floor(lease.endsAt.getTime() / 1_000) * 1_000;
  expect(second.expiresAt.getTime()).toBe(end);
  for (const one of [first, second]) {
    expect([await holderMay(one, undefined, undefined, new Date(end - 1_000)), await holderMay(one, undefined, undefined, new Date(end))]).toEqual([
      true,
      false,
    ]);
  }
  await sleep(lease.endsAt.getTime() - Date.now() + 1_100);
  expect(await refusalOf(target.another!(lease, within(8)))).toMatchObject({ code: 'target_failed', nothingMade: true });
});

test('a grant that is longer than a chained session: the later session ends later, and a failure of AWS is told without ending anything', async () => {
  const { connect, gate, holderMay } = await aws.open({ roles: [role] });
  const target = connect();
  const lease = newLease(grant, 3 * 3_600);
  const first = await target.issue(lease, within(8));
  await sleep(1_100);
  const second = await target.another!(lease, within(8));
  expect(second.expiresAt.getTime()).toBeGreaterThan(first.expiresAt.getTime());
  gate.fail('AssumeRole', { kind: 'answer', status: 503, code: 'ServiceUnavailable' }, 2);
  expect(await refusalOf(target.another!(lease, within(8)))).toMatchObject({ code: 'target_failed', nothingMade: false, leaseGone: false });
  expect(await Promise.all([first, second].map((one) => holderMay(one)))).toEqual([true, true]);
});
