/**
 * Ending a session. At the grant's end the session policy has ended it already, and AWS's clock is the proof. Earlier, a
 * denial is written on the role, and the lease is gone once AWS has had `propagationSeconds` to take that up: until then
 * `revoke` throws, saying when to ask again. AWS keeps no list of sessions, so every lease that is not over and not denied counts as present.
 */
import { randomBytes } from 'node:crypto';
import { DeleteRolePolicyCommand, GetRolePolicyCommand, ListRolePoliciesCommand, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { failpoint } from '../../domain/failpoint.ts';
import { type Gone, type Inspected, type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { type Role, roleOf } from './config.ts';
import { countedLength, type Denied, denyDocument, longestInlinePolicies, overAt, policyName, readDenied } from './deny.ts';
import { bounded, type Door, saidOf } from './door.ts';
import { sessionNameOf } from './issue.ts';
import { type RoleReader, rolesOf } from './roles.ts';

/** The longest life that AWS gives to a session, and the longest that a claim may take: what is assumed of a lease whose end is not told. */
const longestLifeMs = (12 * 3_600 + 10) * 1_000;
/** A policy that is over is left alone for so long: clocks, and a writer that slept. */
const pruneSlackMs = 5 * 60_000;
/** Longer than writing a policy takes, and the second that AWS's clock is not told by. */
const stampAheadMs = 2_000;

/** A moment later, because AWS tells its time in whole seconds. */
const justAfter = (at: Date): Date => new Date(at.getTime() + 1_200);

export interface Ender {
  inspect(ref: LeaseRef, signal: AbortSignal): Promise<Inspected>;
  revoke(ref: LeaseRef, signal: AbortSignal): Promise<Gone>;
  /** Deletes the denials that nobody needs any more. */
  prune(signal: AbortSignal): Promise<void>;
}

/** What this process wrote on one role: the only copy that it writes again, because a reading may be stale. */
interface Ledger {
  readonly policies: Map<string, Map<string, Denied>>;
  /** Denials that wait for the writer; whoever holds the pen writes them all. */
  readonly waiting: Map<string, Date>;
  pen: Promise<unknown>;
}

/** How leases of one target end early: by a denial on the role for one session, written, read back and, when it is over, removed. */
export function openEnder(door: Door, readRole: RoleReader): Ender {
  const writer = randomBytes(4).toString('hex');
  const ledgers = new Map<string, Ledger>();
  const ledgerOf = (role: Role): Ledger => {
    const ledger = ledgers.get(role.arn) ?? { policies: new Map(), waiting: new Map(), pen: Promise.resolve() };
    ledgers.set(role.arn, ledger);
    return ledger;
  };
  const { propagationSeconds, earlyEnd } = door.config;
  /** When the session is surely denied everywhere, by these denials; null when none is its. */
  const settlesAt = (denied: readonly Denied[], userId: string): Date | null => {
    const own = denied.filter((one) => one.userId === userId);
    return own.length === 0 ? null : new Date((Math.min(...own.map((one) => one.writtenAt)) + propagationSeconds) * 1_000);
  };

  return {
    async inspect(ref, signal) {
      const [sessionName, end] = [sessionNameOf(ref.leaseId), endOf(ref)];
      const now = await door.readClock(signal);
      if (now >= end) return { state: 'absent' };
      const present: Inspected = { state: 'present', usable: true, expiresAt: ref.endsAt ?? end, openSessions: null };
      if (!earlyEnd) return present;
      const gone = rolesOf(door, ref).map(async (role) => {
        const id = await roleIdOf(readRole, role, signal);
        if (id === null) return true;
        const settles = settlesAt(await readAll(door, role, ref.endsAt, signal), `${id}:${sessionName}`);
        return settles !== null && settles <= door.now();
      });
      return (await Promise.all(gone)).every(Boolean) ? { state: 'absent' } : present;
    },

    async revoke(ref, signal) {
      const [sessionName, end] = [sessionNameOf(ref.leaseId), endOf(ref)];
      if ((await door.readClock(signal)) >= end) return { cutAt: ref.endsAt ?? null, sessionsCut: 0, notes: [] };
      if (!earlyEnd)
        throw new ProviderError(
          'target_forbids',
          `${door.name}: the role cannot be edited, so the session ${sessionName} ends at ${end.toISOString()} and no earlier.`,
          {
            next: 'Nothing is left to do but to wait; if it must end now, remove the permission set or the role in AWS.',
            retryAt: justAfter(end),
          },
        );
      const settled = await Promise.all(rolesOf(door, ref).map((role) => denyOn(role, ref, end, signal)));
      const last = new Date(Math.max(0, ...settled.flatMap((one) => (one ? [one.getTime()] : []))));
      if (last > door.now())
        throw new ProviderError(
          'target_failed',
          `${door.name}: the session ${sessionName} is denied on its role; AWS may take until ${last.toISOString()} to act on that everywhere.`,
          {
            retryAt: justAfter(last < end ? last : end),
            pending: true,
          },
        );
      return last.getTime() === 0 ? { cutAt: null, sessionsCut: 0, notes: [] } : { cutAt: last, sessionsCut: 1, notes: [] };
    },

    async prune(signal) {
      if (!earlyEnd) return;
      await Promise.all(door.config.roles.map((text) => pruneRole(roleOf(door.config, text), signal)));
    },
  };

  /** Denies the session unless it is denied already. Gives the moment from which that is proven; null when the role is gone, and its sessions with it. */
  async function denyOn(role: Role, ref: LeaseRef, end: Date, signal: AbortSignal): Promise<Date | null> {
    const id = await roleIdOf(readRole, role, signal);
    if (id === null) return null;
    const userId = `${id}:${sessionNameOf(ref.leaseId)}`;
    const known = settlesAt(await readAll(door, role, ref.endsAt, signal), userId);
    if (known !== null) return known;
    const ledger = ledgerOf(role);
    ledger.waiting.set(userId, end);
    const turn = ledger.pen.then(async () => {
      while (ledger.waiting.has(userId)) await write(role, ledger, signal);
    });
    ledger.pen = turn.catch(() => undefined);
    await bounded(signal, door.name, `denying a session on ${role.name}`, () => turn);
    await failpoint('aws.denied');
    const settles = settlesAt(await readOne(door, role, policyName(end, writer), signal), userId);
    if (settles !== null) return settles;
    throw new ProviderError('target_failed', `${door.name}: the denial of ${ref.leaseId} was written on ${role.name}, but reading back does not show it yet.`);
  }

  /** Writes all that wait and fit, at least one, one policy after the other. Under the pen: one at a time for a role. */
  async function write(role: Role, ledger: Ledger, signal: AbortSignal): Promise<void> {
    for (const [userId, end] of ledger.waiting) if (end < door.now()) ledger.waiting.delete(userId);
    for (const [name, entries] of Map.groupBy([...ledger.waiting], ([, end]) => policyName(end, writer))) {
      const userIds = entries.map(([userId]) => userId);
      while (!(await writeOne(role, ledger, name, userIds, signal))) userIds.length = Math.floor(userIds.length / 2);
      for (const userId of userIds) ledger.waiting.delete(userId);
    }
    for (const name of ledger.policies.keys()) if ((overAt(name)?.getTime() ?? 0) + 2 * pruneSlackMs < door.now().getTime()) ledger.policies.delete(name);
  }

  /** False when the role holds no more and fewer may fit; throws `target_forbids` when not even one does. */
  async function writeOne(role: Role, ledger: Ledger, name: string, userIds: readonly string[], signal: AbortSignal): Promise<boolean> {
    const denied = new Map(ledger.policies.get(name));
    for (let writtenAt = 0; writtenAt * 1_000 < door.now().getTime(); ) {
      // A stamp is never earlier than the writing: it lies ahead, and where that was not enough it is written again.
      writtenAt = Math.ceil((door.now().getTime() + stampAheadMs) / 1_000);
      for (const userId of userIds) denied.set(userId, { userId, writtenAt });
      const document = denyDocument(denied.values(), Math.floor(door.now().getTime() / 1_000) - propagationSeconds);
      if (!(await put(role, name, document, signal))) {
        if (userIds.length > 1) return false;
        // What is over makes room.
        await pruneRole(role, signal);
        if (!(await put(role, name, document, signal))) throw tooMany(role);
      }
    }
    ledger.policies.set(name, denied);
    return true;
  }

  /** False when the role's inline policies would become longer than AWS allows. */
  async function put(role: Role, name: string, document: string, signal: AbortSignal): Promise<boolean> {
    if (countedLength(document) > longestInlinePolicies) return false;
    try {
      await door.run(signal, `denying a session on ${role.name}`, ({ iam }, abortSignal) =>
        iam.send(new PutRolePolicyCommand({ RoleName: role.name, PolicyName: name, PolicyDocument: document }), { abortSignal }),
      );
      return true;
    } catch (error) {
      if (saidOf(error).code === 'LimitExceeded') return false;
      throw error;
    }
  }

  function tooMany(role: Role): ProviderError {
    return new ProviderError(
      'target_forbids',
      `${door.name}: the inline policies of ${role.name} are full (${longestInlinePolicies} characters), so no further session of it can be ended early.`,
      {
        next: `Move the role's own inline policies into managed ones, or end all its sessions at once: IAM, ${role.name}, "Revoke active sessions". It is tried again.`,
      },
    );
  }

  async function pruneRole(role: Role, signal: AbortSignal): Promise<void> {
    const names = await listOurs(door, role, signal).catch((error: unknown) => {
      if (saidOf(error).code === 'NoSuchEntity') return [];
      throw error;
    });
    for (const name of names) {
      if ((overAt(name)?.getTime() ?? Number.POSITIVE_INFINITY) + pruneSlackMs > door.now().getTime()) continue;
      await door
        .run(signal, `tidying up on ${role.name}`, ({ iam }, abortSignal) =>
          iam.send(new DeleteRolePolicyCommand({ RoleName: role.name, PolicyName: name }), { abortSignal }),
        )
        .catch((error: unknown) => {
          if (saidOf(error).code !== 'NoSuchEntity') throw error;
        });
    }
  }
}

/** The end that was set, or the latest that it can be: the id of a lease holds when it was made (RFC 9562 §5.7). */
export const endOf = (ref: LeaseRef): Date => ref.endsAt ?? new Date(Number.parseInt(ref.leaseId.slice(4, 16), 16) + longestLifeMs);

async function roleIdOf(readRole: RoleReader, role: Role, signal: AbortSignal): Promise<string | null> {
  try {
    return (await readRole(role, signal, true)).id;
  } catch (error) {
    if (error instanceof ProviderError && error.code === 'target_missing_role') return null;
    throw error;
  }
}

async function listOurs(door: Door, role: Role, signal: AbortSignal): Promise<string[]> {
  const names: string[] = [];
  for (let marker: string | undefined, more = true; more; ) {
    const page = await door.run(signal, `reading the policies of ${role.name}`, ({ iam }, abortSignal) =>
      iam.send(new ListRolePoliciesCommand({ RoleName: role.name, ...(marker === undefined ? {} : { Marker: marker }) }), { abortSignal }),
    );
    names.push(...(page.PolicyNames ?? []).filter((name) => overAt(name) !== null));
    marker = page.Marker;
    more = page.IsTruncated === true && marker !== undefined;
  }
  return names;
}

/** The denials that stand on the role now, of every writer: those for sessions that are over at `end`, or all where the end is not told. */
async function readAll(door: Door, role: Role, end: Date | undefined, signal: AbortSignal): Promise<Denied[]> {
  const wanted = end && overAt(policyName(end, 'any'))?.getTime();
  const isWanted = (over: Date): boolean => (wanted === undefined ? over > door.now() : over.getTime() === wanted);
  try {
    const names = (await listOurs(door, role, signal)).filter((name) => isWanted(overAt(name) ?? new Date(0)));
    return (await Promise.all(names.map((name) => readOne(door, role, name, signal)))).flat();
  } catch (error) {
    if (saidOf(error).code === 'NoSuchEntity') return [];
    throw error;
  }
}

async function readOne(door: Door, role: Role, name: string, signal: AbortSignal): Promise<Denied[]> {
  try {
    const { PolicyDocument: document } = await door.run(signal, `reading a denial on ${role.name}`, ({ iam }, abortSignal) =>
      iam.send(new GetRolePolicyCommand({ RoleName: role.name, PolicyName: name }), { abortSignal }),
    );
    return readDenied(decodeURIComponent(document ?? ''));
  } catch (error) {
    if (saidOf(error).code === 'NoSuchEntity') return [];
    throw error;
  }
}
