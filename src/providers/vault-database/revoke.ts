/**
 * Ending a lease. Vault drops the database user (and, by the role's statements, its sessions), then the token goes, then
 * both are looked up again, at Vault and in the database, and only then is the index cleared. When Vault cannot drop the
 * user, because its holder left something behind, the user's own end is drawn to now, so that access ends all the same.
 * Every step may be run again, by several at once and by a process that slept in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { failpoint } from '../../domain/failpoint.ts';
import { type Gone, type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { failed, saidOf } from './answers.ts';
import { type Attempt, accessorsOf, forgetAttempt, readAttempt, writeAttempt } from './attempts.ts';
import type { Probe } from './probe.ts';
import { isAbsentToken, readDatabaseLease, readToken } from './read.ts';
import { anything, type Vault } from './vault.ts';

/** Dropping a user can wait for locks in the database; the worker's own deadline is 20 s. */
const dropMs = 15_000;

/**
 * What the index does not know can still be in the database: a user that Vault made while its token was ended, or whose entry
 * somebody cleared. It is looked for by the name that was recorded, and by the lease's own number, which stands in the
 * user's name where the connection's username_template puts it there. Vault ends what hangs on an ended token a moment later.
 */
async function mustHaveNoUser(vault: Vault, probe: Probe, ref: LeaseRef, signal: AbortSignal): Promise<void> {
  for (const deadline = Date.now() + 3_000; ; await sleep(100)) {
    const [left] = await probe.usersOf(ref.leaseId, ref.handle ?? null, signal);
    if (left === undefined) return;
    if (Date.now() > deadline)
      throw new ProviderError(
        'target_failed',
        `${vault.name}: the index in Vault knows nothing more of ${ref.leaseId}, but its user ${left} is still in the database.`,
        {
          next: `Vault ends it after the role's default_ttl at the latest; now: bao lease revoke -prefix, or drop it in the database. If nobody was killed meanwhile, look at who may write to ${vault.config.indexMount}.`,
        },
      );
  }
}

interface Ended {
  readonly at: Date;
  readonly sessions: number;
  readonly notes: readonly string[];
}

/** Ends every attempt of this lease. What is not there is success. */
export async function revoke(vault: Vault, probe: Probe | null, ref: LeaseRef, signal: AbortSignal): Promise<Gone> {
  const accessors = await accessorsOf(vault, ref, signal);
  const ended: Ended[] = [];
  const failures: unknown[] = [];
  // One that cannot be ended keeps no other one alive.
  for (const accessor of accessors) {
    try {
      ended.push(await endAttempt(vault, probe, ref, { accessor }, signal));
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
  if (probe) await mustHaveNoUser(vault, probe, ref, signal);
  const at = ended.map((one) => one.at.getTime());
  return {
    cutAt: at.length === 0 ? null : new Date(Math.max(...at)),
    sessionsCut: ended.reduce((sum, one) => sum + one.sessions, 0),
    notes: [...new Set(ended.flatMap((one) => one.notes))],
  };
}

/**
 * Ends one attempt and everything that was issued under its token, recorded or not; returns when all of it was read back as gone.
 * `known` is what the caller knows of it besides the index, from which another process may have cleared it already.
 */
export async function endAttempt(vault: Vault, probe: Probe | null, ref: LeaseRef, known: { accessor: string } | Attempt, signal: AbortSignal): Promise<Ended> {
  const { accessor } = known;
  const sure = 'lease' in known && known.databaseLease ? known : null;
  const read = async (): Promise<Attempt | null> => {
    const found = await readAttempt(vault, ref, accessor, signal);
    return sure && !found?.databaseLease ? { ...sure, oid: found?.oid } : found;
  };
  const first = await read();
  const before = await lookAtUser(vault, probe, ref, first, signal);
  const token = await readToken(vault, ref, accessor, signal);
  if (first?.databaseLease) await dropUser(vault, probe, ref, { ...first, oid: before?.oid }, signal);
  await failpoint('vault.user-dropped');
  if (token)
    await call(vault, 'auth/token/revoke-accessor', { accessor }, 'ending the token of a lease', signal).catch((error: unknown) => {
      if (!isAbsentToken(error)) throw error;
    });
  await failpoint('vault.token-ended');
  // What was written down while the token still lived: a credential that was being made at this very moment.
  const last = (await read()) ?? first;
  if (last?.databaseLease && last.databaseLease !== first?.databaseLease) await dropUser(vault, probe, ref, last, signal);
  await mustBeGone(vault, ref, accessor, last, signal);
  const seen = before ?? (await lookAtUser(vault, probe, ref, last, signal));
  const cut = await readBack(vault, probe, last, seen?.oid ?? last?.oid, signal);
  await failpoint('vault.read-back');
  await forgetAttempt(vault, ref, accessor, signal);
  await failpoint('vault.forgotten');
  return {
    at: cut?.at ?? new Date(Date.now() + vault.skewMs()),
    sessions: Math.max(cut?.sessions ?? 0, before?.sessions ?? 0),
    notes: notesOf(probe, last, cut !== null),
  };
}

function notesOf(probe: Probe | null, attempt: Attempt | null, readBackThere: boolean): string[] {
  if (attempt && !attempt.username) return ['no database user was ever shown for this lease; what Vault may have made under its token ends with it'];
  return probe === null && attempt && !readBackThere ? ['read back at Vault only; how many sessions its statements ended is not told'] : [];
}

/** Sees the user while it is there and writes its number down: when the user is gone, that alone names its sessions. */
async function lookAtUser(
  vault: Vault,
  probe: Probe | null,
  ref: LeaseRef,
  attempt: Attempt | null,
  signal: AbortSignal,
): Promise<{ oid: number; sessions: number } | null> {
  if (!probe || !attempt?.username) return null;
  const found = await probe.find(attempt.username, signal).catch((error: unknown) => {
    // A database that is away must not keep Vault from being told; reading back comes last and will insist.
    if (signal.aborted) throw error;
    return null;
  });
  if (found && attempt.oid !== found.oid) await writeAttempt(vault, ref, { ...attempt, oid: found.oid }, signal);
  return found;
}

const call = (vault: Vault, path: string, body: object, doing: string, signal: AbortSignal, deadlineMs = 5_000): Promise<unknown> =>
  vault.call({ method: 'POST', path, body, doing, signal, deadlineMs, shape: anything });

/** Vault drops the user before it answers. Where it cannot, the user's end is drawn to now, its sessions are ended, and the failure says whether access is cut. */
async function dropUser(vault: Vault, probe: Probe | null, ref: LeaseRef, attempt: Attempt, signal: AbortSignal): Promise<void> {
  const id = attempt.databaseLease ?? '';
  for (let tries = 1; ; tries += 1) {
    try {
      return void (await call(vault, 'sys/leases/revoke', { lease_id: id, sync: true }, 'dropping the database user', signal, dropMs));
    } catch (error) {
      if (signal.aborted) throw error;
      // Two at once trip over each other in the database, and a session that was told to end still holds its temporary tables for a moment.
      await sleep(150);
      if ((await readDatabaseLease(vault, id, signal)) === null) return;
      const databaseSpoke = saidOf(error).status === 400 || saidOf(error).status === 500;
      if (databaseSpoke && tries < 3) continue;
      const cut = databaseSpoke ? await cutWithoutDropping(vault, probe, ref, attempt, signal).catch(() => undefined) : undefined;
      throw notDropped(vault, attempt, error as ProviderError, cut);
    }
  }
}

async function cutWithoutDropping(
  vault: Vault,
  probe: Probe | null,
  ref: LeaseRef,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<{ at: Date; sessionsCut: number } | undefined> {
  // PostgreSQL's plugin adds five seconds to what it is told, so this takes about six to be felt.
  await call(vault, 'sys/leases/renew', { lease_id: attempt.databaseLease, increment: 1 }, "ending the database user's time", signal).catch(() => undefined);
  if (!probe || !attempt.username) return undefined;
  const found = await lookAtUser(vault, probe, ref, attempt, signal);
  if (!found) return undefined;
  const cut = await probe.cut(found.oid, signal);
  const after = await probe.find(attempt.username, signal);
  return after?.canLogin ? undefined : { at: cut.at, sessionsCut: cut.sessions };
}

function notDropped(vault: Vault, attempt: Attempt, error: ProviderError, cut: { at: Date; sessionsCut: number } | undefined): ProviderError {
  const said = saidOf(error);
  const owns = /depend on it|owns objects|2BP01/i.test(said.message);
  const words = owns
    ? `${vault.name}: ${attempt.username} cannot be dropped, because its holder left something behind in the database; ${cut ? 'its access is cut' : 'its end is set to now, and Vault tries again'}.`
    : error.message;
  const code = error.code as ConstructorParameters<typeof ProviderError>[0];
  const next = owns
    ? `In the database that it can be in: REASSIGN OWNED BY "${attempt.username}" TO halligan_leftovers; DROP OWNED BY "${attempt.username}"; and put both into the role's revocation_statements (docs/providers.md).`
    : (error.next ?? (said.message === '' ? undefined : said.message));
  const made = new ProviderError(code, words, {
    ...(next === undefined ? {} : { next }),
    ...(cut ? { cut } : {}),
    ...(error.retryAt ? { retryAt: error.retryAt } : {}),
  });
  Object.defineProperty(made, 'cause', { value: said, enumerable: false });
  return made;
}

/** Reads back at Vault. Ending a token marks its leases and ends them a moment later, so an unrecorded one may need that moment. */
async function mustBeGone(vault: Vault, ref: LeaseRef, accessor: string, attempt: Attempt | null, signal: AbortSignal): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const token = await readToken(vault, ref, accessor, signal);
    const lease = attempt?.databaseLease ? await readDatabaseLease(vault, attempt.databaseLease, signal) : null;
    if (!token && !lease) return;
    if (tries >= 20)
      throw new ProviderError(
        'target_failed',
        `${vault.name}: Vault still holds ${token ? 'the token' : 'the database user'} of ${ref.leaseId} although it was told to end it.`,
        {
          next: "Look at Vault's own log; a lease that cannot be ended is listed by bao list sys/leases/lookup.",
        },
      );
    await sleep(100);
  }
}

/** Reads back in the database, and ends there what outlived the user: a session that slipped in while it was dropped. */
async function readBack(
  vault: Vault,
  probe: Probe | null,
  attempt: Attempt | null,
  oid: number | undefined,
  signal: AbortSignal,
): Promise<{ at: Date; sessions: number } | null> {
  if (!probe || !attempt?.username) return null;
  if ((await probe.find(attempt.username, signal)) !== null)
    throw failed(
      'target_failed',
      `${vault.name}: Vault says that ${attempt.username} is gone, but the database still has it.`,
      { status: 0, message: '' },
      {
        next: "Look at the role's revocation_statements: they must drop the user.",
      },
    );
  return oid === undefined ? null : probe.cut(oid, signal);
}
