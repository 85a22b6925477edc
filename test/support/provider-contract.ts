/**
 * What every provider must do, run against a real target (DESIGN §7). A provider's test calls `describeProviderContract`
 * with a way to connect and a way to use what was issued; nothing here knows what kind of target it is.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { newId } from '../../src/domain/ids.ts';
import { type Issued, type LeaseSpec, ProviderError, type Target } from '../../src/domain/provider.ts';

/** A session that was opened with an issued credential. */
export interface OpenSession {
  /** Whether the target still does what the session asks. */
  works(): Promise<boolean>;
  close(): Promise<void>;
}

export interface ContractSubject {
  /** Connects anew, as another process would. */
  connect(): Target;
  /** A `grant` block that opens something, and one that names what the target does not have. */
  readonly grant: unknown;
  readonly missingGrant: unknown;
  /** Uses the credential. Throws when the target refuses it. */
  login(issued: Issued): Promise<OpenSession>;
  /** What a refused login looks like at this target. */
  isRefusal(error: unknown): boolean;
  /** The target itself names what it makes, so a second credential of one lease has another handle. */
  readonly namesChange?: boolean;
  /** `none`: every call shows who it is from anew, so there is no session to count or to cut. */
  readonly sessions?: 'none';
  /** The target opens the holder's own login and gives no secret: what an earlier try opened is the same credential. */
  readonly secretless?: boolean;
  /** The target gives further credentials of a lease that is live. */
  readonly another?: true;
  /** What ends access at this target when Halligan is dead, run once, as its timer would. */
  reap?(): Promise<void>;
  close(): Promise<void>;
}

export const within = (seconds: number): AbortSignal => AbortSignal.timeout(seconds * 1_000);

/** A lease that ends so many seconds from now, under a fresh name. */
export function newLease(grant: unknown, seconds: number): LeaseSpec {
  const leaseId = newId('lease');
  return {
    leaseId,
    externalName: `hg_${leaseId}`,
    grantId: newId('grant'),
    person: 'Ana Test (per_test)',
    subject: `subject-${leaseId}`,
    endsAt: new Date(Date.now() + seconds * 1_000),
    grant,
  };
}

/** The coded refusal that this call must end in. */
export async function refusalOf(call: Promise<unknown>): Promise<ProviderError> {
  const error = await call.then(
    (value) => {
      throw new Error(`not refused: ${JSON.stringify(value)}`);
    },
    (thrown: unknown) => thrown,
  );
  if (error instanceof ProviderError) return error;
  throw error;
}

export function describeProviderContract(name: string, setup: () => Promise<ContractSubject>): void {
  describe(`the provider contract: ${name}`, () => {
    let subject: ContractSubject;
    let target: Target;
    const leases: LeaseSpec[] = [];
    const issueFor = (seconds: number): { lease: LeaseSpec; issued: Promise<Issued> } => {
      const lease = newLease(subject.grant, seconds);
      leases.push(lease);
      return { lease, issued: target.issue(lease, within(10)) };
    };
    const refused = async (issued: Issued): Promise<void> => {
      const error = await subject.login(issued).then(
        async (session) => {
          await session.close();
          return 'the login worked';
        },
        (thrown: unknown) => thrown,
      );
      expect(subject.isRefusal(error), String(error)).toBe(true);
    };

    beforeAll(async () => {
      subject = await setup();
      target = subject.connect();
    });
    afterAll(async () => {
      for (const lease of leases) await target.revoke(lease, within(20));
      expect(await target.sweep(within(10))).not.toEqual(expect.arrayContaining(leases.map(({ leaseId }) => expect.objectContaining({ leaseId }))));
      await target.close();
      await subject.close();
    });

    test('check finds nothing wrong, and describe says what the grant opens', async () => {
      expect(await target.check([subject.grant], within(10))).toEqual([]);
      const { summary, details } = await target.describe(subject.grant, within(10));
      expect(summary).not.toBe('');
      expect(details.length).toBeGreaterThan(0);
      expect(details.length).toBeLessThanOrEqual(200);
    });

    test('invariant 3: a credential works, and its end at the target is the end of the grant', async () => {
      const { lease, issued } = issueFor(60);
      const made = await issued;
      expect(made.handle).not.toBe('');
      expect(Math.abs(made.expiresAt.getTime() - lease.endsAt.getTime())).toBeLessThan(1_000);
      const session = await subject.login(made);
      expect(await session.works()).toBe(true);
      expect(await target.inspect(lease, within(10))).toEqual({
        state: 'present',
        usable: true,
        expiresAt: made.expiresAt,
        openSessions: subject.sessions === 'none' ? 0 : 1,
      });
      await session.close();
    });

    test('issuing twice under one name leaves one credential: the second', async () => {
      const { lease, issued } = issueFor(60);
      const first = await issued;
      const second = await subject.connect().issue(lease, within(10));
      if (!subject.namesChange) expect(second.handle).toBe(first.handle);
      if (!subject.secretless) await refused(first);
      await (await subject.login(second)).close();
      expect((await target.sweep(within(10))).filter(({ leaseId }) => leaseId === lease.leaseId)).toHaveLength(1);
    });

    test('invariant 5: what was made and never recorded is found by its name and by a sweep', async () => {
      const { lease, issued } = issueFor(60);
      await issued;
      const other = subject.connect();
      expect(await other.inspect(lease, within(10))).toMatchObject({ state: 'present', usable: true });
      expect(await other.sweep(within(10))).toContainEqual({ leaseId: lease.leaseId, externalName: lease.externalName });
      await other.close();
    });

    test('invariants 2 and 5: revoking cuts the open session, refuses a new login, and is read back as absent', async () => {
      const { lease, issued } = issueFor(60);
      const made = await issued;
      const session = await subject.login(made);
      expect(await session.works()).toBe(true);
      const gone = await target.revoke(lease, within(20));
      expect(gone.cutAt).toBeInstanceOf(Date);
      expect(gone.sessionsCut).toBe(subject.sessions === 'none' ? 0 : 1);
      expect(await session.works()).toBe(false);
      await refused(made);
      expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
      expect((await target.sweep(within(10))).map(({ leaseId }) => leaseId)).not.toContain(lease.leaseId);
    });

    test('invariant 6: revoking twice, in parallel from two processes, or what was never made, succeeds', async () => {
      const { lease, issued } = issueFor(60);
      const session = await subject.login(await issued);
      const other = subject.connect();
      const results = await Promise.all([target, other, target, other].map((one) => one.revoke(lease, within(25))));
      expect(results.some(({ cutAt }) => cutAt !== null)).toBe(true);
      expect(await session.works()).toBe(false);
      expect(await target.revoke(lease, within(20))).toEqual({ cutAt: null, sessionsCut: 0, notes: [] });
      expect(await target.revoke(newLease(subject.grant, 60), within(20))).toEqual({ cutAt: null, sessionsCut: 0, notes: [] });
      await other.close();
    });

    test('invariant 6: ending one lease touches nothing of another of the same grant', async () => {
      const [one, two] = [issueFor(60), issueFor(60)];
      const [first, second] = [await one.issued, await two.issued];
      const [ended, kept] = [await subject.login(first), await subject.login(second)];
      await target.revoke(one.lease, within(20));
      expect(await ended.works()).toBe(false);
      expect(await kept.works()).toBe(true);
      await (await subject.login(second)).close();
      await kept.close();
    });

    test('invariant 6: a revocation that comes before the credential leaves nothing that a later one would miss', async () => {
      const { lease, issued } = issueFor(60);
      await Promise.allSettled([issued, subject.connect().revoke(lease, within(20))]);
      await target.revoke(lease, within(20));
      expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
    });

    test('invariant 1: with nobody alive, a new login is refused within the declared bound after the end', async () => {
      const { lease, issued } = issueFor(2);
      const made = await issued;
      await (await subject.login(made)).close();
      let lastWorked = 0;
      for (let after = 0; after < 1_500; after = Date.now() - lease.endsAt.getTime()) {
        const began = Date.now();
        const session = await subject.login(made).catch(() => null);
        if (session) lastWorked = began;
        await session?.close();
      }
      await subject.reap?.();
      await refused(made);
      const bound = target.limits.newLogin.dead;
      expect(bound).not.toBeNull();
      expect((lastWorked - lease.endsAt.getTime()) / 1_000).toBeLessThanOrEqual((bound ?? 0) + 0.05);
      expect(await target.inspect(lease, within(10))).toMatchObject(subject.reap ? { state: 'absent' } : { state: 'present', usable: false });
    });

    test('invariant 1: an open session outlives the end only where the provider declares so, and revoking cuts it in the declared time', async () => {
      const { lease, issued } = issueFor(1.5);
      const session = await subject.login(await issued);
      await new Promise((done) => setTimeout(done, lease.endsAt.getTime() - Date.now() + 300));
      if (target.limits.openSession.dead === null) expect(await session.works()).toBe(true);
      const began = Date.now();
      await target.revoke(lease, within(20));
      expect(await session.works()).toBe(false);
      expect((Date.now() - began) / 1_000).toBeLessThanOrEqual(target.limits.openSession.alive + 1);
    });

    test('a grant whose end has passed makes nothing', async () => {
      const { lease, issued } = issueFor(-1);
      expect(await refusalOf(issued)).toMatchObject({ code: 'target_failed', nothingMade: true });
      expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
    });

    test('what the target does not have is said before anything is made', async () => {
      const lease = newLease(subject.missingGrant, 60);
      expect(await refusalOf(target.issue(lease, within(10)))).toMatchObject({ code: 'target_missing_role', nothingMade: true });
      expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
      expect(await refusalOf(target.describe(subject.missingGrant, within(10)))).toMatchObject({ code: 'target_missing_role' });
      expect(await target.check([subject.grant, subject.missingGrant], within(10))).toHaveLength(1);
    });

    test('one more credential of a live lease works beside the earlier one, under the same name, and one revocation ends both', async () => {
      expect(target.another !== undefined).toBe(subject.another === true);
      if (!target.another) return;
      const { lease, issued } = issueFor(60);
      const made = [await issued, await target.another(lease, within(10)), await subject.connect().another!(lease, within(10))];
      for (const one of made) {
        expect(one.handle).toBe(made[0]!.handle);
        expect(one.expiresAt.getTime()).toBeLessThanOrEqual(lease.endsAt.getTime());
        const { secret, ...rest } = one;
        expect(Object.keys(secret)).toEqual(Object.keys(made[0]!.secret));
        for (const value of Object.values(secret)) expect(JSON.stringify(rest)).not.toContain(value);
      }
      for (const name of Object.keys(made[0]!.secret)) expect(new Set(made.map(({ secret }) => secret[name])).size).toBe(made.length);
      const sessions = await Promise.all(made.map((one) => subject.login(one)));
      expect(await Promise.all(sessions.map((one) => one.works()))).toEqual([true, true, true]);
      expect((await target.sweep(within(10))).filter(({ leaseId }) => leaseId === lease.leaseId)).toHaveLength(1);
      const began = Date.now();
      await target.revoke(lease, within(20));
      expect(await Promise.all(sessions.map((one) => one.works()))).toEqual([false, false, false]);
      for (const one of made) await refused(one);
      expect((Date.now() - began) / 1_000).toBeLessThanOrEqual(target.limits.newLogin.alive + 1);
    });

    test('one more credential of a lease that is not there, or is over, is refused by its code and makes nothing', async () => {
      expect(target.another !== undefined).toBe(subject.another === true);
      if (!target.another) return;
      const { lease, issued } = issueFor(60);
      await issued;
      await target.revoke(lease, within(20));
      for (const one of [lease, newLease(subject.grant, 60)]) {
        expect(await refusalOf(target.another(one, within(10)))).toMatchObject({ code: 'target_failed', leaseGone: true, nothingMade: true });
        expect(await target.inspect(one, within(10))).toEqual({ state: 'absent' });
      }
      const over = issueFor(2);
      await over.issued;
      await new Promise((done) => setTimeout(done, over.lease.endsAt.getTime() - Date.now() + 1_100));
      expect(await refusalOf(target.another(over.lease, within(10)))).toMatchObject({ code: 'target_failed', leaseGone: false, nothingMade: true });
    });

    test('every call ends by its signal', async () => {
      const lease = newLease(subject.grant, 60);
      leases.push(lease);
      const calls: ((signal: AbortSignal) => Promise<unknown>)[] = [
        (signal) => target.issue(lease, signal),
        ...(target.another ? [(signal: AbortSignal) => target.another!(lease, signal)] : []),
        (signal) => target.inspect(lease, signal),
        (signal) => target.revoke(lease, signal),
        (signal) => target.sweep(signal),
        (signal) => target.describe(subject.grant, signal),
      ];
      for (const call of calls) expect(await refusalOf(call(AbortSignal.abort()))).toMatchObject({ code: 'target_timeout' });
    });

    test('invariant 22: the secret is in `secret` and nowhere else of the answer', async () => {
      const { issued } = issueFor(60);
      const { secret, ...rest } = await issued;
      expect(Object.values(secret).length > 0).toBe(!subject.secretless);
      for (const value of Object.values(secret)) expect(JSON.stringify(rest)).not.toContain(value);
    });
  });
}
