/**
 * Ending logins, in the order that matters: refuse new logins and cut open sessions, in commits of their own; only then
 * tidy up what a holder left, drop the role, and read back that it is gone. Every step may be run again, by several at once
 * and by a process that slept in between.
 *
 * Logins that end at the same time share these steps. One whose holder is connected, or left something, does that step
 * alone; when a step fails that was shared each does it alone as well, so that none waits for another's trouble.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { failpoint } from '../../domain/failpoint.ts';
import { type Gone, type LeaseRef, ProviderError, type Target } from '../../domain/provider.ts';
import { together } from '../../domain/together.ts';
import { actFor, drop, type Login, tidyAndDrop, touched } from './drop.ts';
import { asMakers } from './makers.ts';
import { type FoundRole, lockingAndReading, oursAmong } from './marker.ts';
import { againWhenConcurrent, type Door, gate, oidsOf, quoteName, quoteText, readThenWrite, sqlOf } from './sql.ts';

type Cut = { at: Date; sessionsCut: number };
/** A login that nobody can begin to use; `cut` when nobody uses it either. */
interface Refused {
  readonly login: Login;
  readonly cut: Cut | undefined;
}
const notThere = { cutAt: null, sessionsCut: 0, notes: [] } as const satisfies Gone;

/** So many logins share a step, at most, and so many steps of a kind are under way at once. */
const sharing = { most: 100, atOnce: 2 };
/** So many do a step alone at once, each with a session of ours: a target has few to spare. */
const mostAlone = 4;
/** From one look at the sessions to the next. Two that find none are needed: a login becomes visible a moment after it was let in. */
const lookAgainMs = 30;

/** What cuts and ends the logins of leases. What is not there is success; a role of this name without our marker is refused and left alone. */
export function ender(door: Door): Required<Pick<Target, 'cut' | 'revoke'>> {
  const refuseTogether = together(sharing, (asked: readonly Asked<LeaseRef>[]) => refuseAll(door, asked));
  const dropTogether = together(sharing, (asked: readonly Asked<Login>[]) => dropAll(door, asked));
  const gateAlone = gate(mostAlone);
  const alone = <T>(signal: AbortSignal, work: () => Promise<T>) => gateAlone(signal, door.name, work);

  const refuseAndCut = async (ref: LeaseRef, signal: AbortSignal): Promise<{ login: Login; cut: Cut } | null> => {
    const asked = { what: ref, signal };
    const answer = await refuseTogether(asked);
    const refused = answer === undefined ? await alone(signal, async () => refuseAll(door, [asked])[0]) : answer;
    if (!refused) return null;
    const cut = refused.cut ?? (await alone(signal, () => cutAlone(door, refused.login, signal)));
    return cut && { login: refused.login, cut };
  };
  return {
    cut: async (ref, signal) => (await refuseAndCut(ref, signal))?.cut ?? null,
    async revoke(ref, signal) {
      const found = await refuseAndCut(ref, signal);
      if (!found) return notThere;
      const { login, cut } = found;
      try {
        await failpoint('postgres.terminated');
        const notes = (await dropTogether({ what: login, signal })) ? [] : await alone(signal, () => tidyAndDrop(door, login, signal));
        return { cutAt: cut.at, sessionsCut: cut.sessionsCut, notes };
      } catch (error) {
        throw withCut(error, cut, door, signal);
      }
    },
  };
}

/** The same login may be asked for twice at once. */
interface Asked<What extends LeaseRef | Login> {
  readonly what: What;
  readonly signal: AbortSignal;
}
const nameOf = (what: LeaseRef | Login): string => ('ref' in what ? what.ref : what).externalName;

/** A promise for each that asked, kept by `work` as soon as it knows; `lost` says what becomes of the others when it fails, or does not heed the signal. */
function shared<What extends LeaseRef | Login, Result>(
  name: string,
  asked: readonly Asked<What>[],
  lost: (error: unknown) => Promise<Result>,
  work: (all: readonly What[], signal: AbortSignal, say: (externalName: string, result: Result) => void) => Promise<void>,
): Promise<Result>[] {
  const ends = asked.map(() => Promise.withResolvers<Result>());
  const signal = AbortSignal.any(asked.map((one) => one.signal));
  const lose = (error: unknown) => {
    for (const end of ends) {
      const result = lost(error);
      // One that was kept before hears nothing of this.
      result.catch(() => undefined);
      end.resolve(result);
    }
  };
  // What heeds the signal has its own words, which come first.
  const giveUp = () => setTimeout(() => lose(new ProviderError('target_timeout', `${name} did not answer in time.`)), 250);
  signal.addEventListener('abort', giveUp, { once: true });
  const say = (externalName: string, result: Result) => {
    for (const [index, { what }] of asked.entries()) if (nameOf(what) === externalName) ends[index]?.resolve(result);
  };
  const all = asked.map(({ what }) => what);
  work(all, signal, say)
    .catch(lose)
    .finally(() => signal.removeEventListener('abort', giveUp));
  return ends.map(({ promise }) => promise);
}

/** First commit, and two looks. Null for a login that is not there; undefined for one that must be tried again alone. */
function refuseAll(door: Door, asked: readonly Asked<LeaseRef>[]): Promise<Refused | null | undefined>[] {
  // A target that cannot be reached is so for each of them.
  const forAll = (error: unknown) => asked.length === 1 || (error instanceof ProviderError && error.code === 'target_unreachable');
  const lost = async (error: unknown) => {
    if (forAll(error)) throw error;
    return undefined;
  };
  return shared<LeaseRef, Refused | null | undefined>(door.name, asked, lost, async (refs, signal, say) => {
    const logins = await refuse(door, refs, signal);
    for (const ref of refs) if (!logins.some((login) => login.ref.externalName === ref.externalName)) say(ref.externalName, null);
    if (logins.length === 0) return;
    await failpoint('postgres.disabled');
    await door.run(signal, 'looking for open sessions', (client) =>
      lookTwice(client, logins, (login, at) => say(login.ref.externalName, { login, cut: at && { at, sessionsCut: 0 } })),
    );
  });
}

/** Last commit, of those that left nothing. False for those that must go on alone. */
function dropAll(door: Door, asked: readonly Asked<Login>[]): Promise<boolean>[] {
  return shared<Login, boolean>(
    door.name,
    asked,
    async () => false,
    async (logins, signal, say) => {
      const left = await door.run(signal, 'looking for what was left behind', (client) => touched(client, logins));
      const bare = logins.filter((login) => !left.some(({ oid }) => oid === login.oid));
      for (const login of logins) if (!bare.includes(login)) say(login.ref.externalName, false);
      if (bare.length === 0) return;
      await drop(door, bare, signal);
      for (const login of bare) say(login.ref.externalName, true);
    },
  );
}

/** First commit: no new session. Gives the logins that are there. */
async function refuse(door: Door, refs: readonly LeaseRef[], signal: AbortSignal): Promise<Login[]> {
  let found: Login[] = [];
  const mayBeUsed = ({ role: { canLogin, validUntil, readAt } }: { role: FoundRole }) => canLogin || !validUntil || validUntil >= readAt;
  const alter = ({ ref, role: { validUntil, readAt } }: { ref: LeaseRef; role: FoundRole }) =>
    `ALTER ROLE ${quoteName(ref.externalName)} NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL VALID UNTIL ${quoteText((validUntil && validUntil < readAt ? validUntil : readAt).toISOString())}`;
  await againWhenConcurrent(() =>
    door.run(signal, 'refusing new logins', (client) =>
      readThenWrite(client, lockingAndReading(refs), ([, roles]) => {
        const ours = oursAmong(door, refs, roles?.rows ?? []);
        found = ours.map(({ ref, role }) => ({ ref, oid: role.oid }));
        return asMakers(ours.filter(mayBeUsed), (some) => some.map(alter).join('; '));
      }),
    ),
  );
  return found;
}

/** Which of these are connected, by the function under `pg_stat_activity`, which need not be joined with all the roles there are; and when. */
async function connected(client: pg.ClientBase, logins: readonly Login[]): Promise<{ at: Date; oids: Set<number> }> {
  const { rows } = await client.query<{ now: Date; oid: number | null }>(
    `SELECT pg_catalog.clock_timestamp() AS now, a.usesysid::pg_catalog.int8::pg_catalog.float8 AS oid
       FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_stat_get_activity(NULL) a ON a.usesysid = ANY (${oidsOf(logins)})`,
  );
  return { at: rows[0]?.now ?? new Date(0), oids: new Set(rows.flatMap(({ oid }) => oid ?? [])) };
}

/** Tells of each whether two looks found no session of it, and when that was first so; of one that is in use, at once. */
async function lookTwice(client: pg.ClientBase, logins: readonly Login[], tell: (login: Login, quietSince: Date | undefined) => void): Promise<void> {
  const first = await connected(client, logins);
  for (const login of logins) if (first.oids.has(login.oid)) tell(login, undefined);
  const left = logins.filter(({ oid }) => !first.oids.has(oid));
  if (left.length === 0) return;
  await sleep(lookAgainMs);
  const second = await connected(client, left);
  for (const login of left) tell(login, second.oids.has(login.oid) ? undefined : first.at);
}

/** Becomes able to act for the login, and ends its sessions. Null when it is gone. */
async function cutAlone(door: Door, login: Login, signal: AbortSignal): Promise<Cut | null> {
  if (!(await actFor(door, login, signal))) return null;
  return door.run(signal, 'cutting open sessions', (client) => cutSessions(client, door, login));
}

/** Until none is left, also those that were logging in at that moment. */
async function cutSessions(client: pg.ClientBase, door: Door, { ref, oid }: Login): Promise<Cut> {
  const ended = new Set<number>();
  let at: Date | null = null;
  for (const deadline = Date.now() + 8_000; Date.now() < deadline; ) {
    const { rows } = await client.query<{ now: Date; pid: number | null }>(
      `SELECT pg_catalog.clock_timestamp() AS now, a.pid, pg_catalog.pg_terminate_backend(a.pid)
         FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_stat_activity a ON a.usesysid = $1`,
      [oid],
    );
    for (const { pid } of rows) if (pid !== null) ended.add(pid);
    const none = rows.every((row) => row.pid === null);
    if (none && at) return { at, sessionsCut: ended.size };
    at = none ? (rows[0]?.now ?? null) : null;
    await sleep(none ? lookAgainMs : 10);
  }
  throw new ProviderError('target_timeout', `${door.name}: sessions of ${ref.externalName} are still open although they were told to end.`, {
    next: 'Look at pg_stat_activity there.',
  });
}

/** The same failure, saying as well that access is cut. */
function withCut(error: unknown, cut: Cut, door: Door, signal: AbortSignal): ProviderError {
  if (error instanceof ProviderError)
    return new ProviderError(error.code as ConstructorParameters<typeof ProviderError>[0], error.message, {
      ...(error.next === undefined ? {} : { next: error.next }),
      cut,
    });
  return new ProviderError(
    signal.aborted ? 'target_timeout' : 'target_failed',
    `${door.name}: access is cut, but the clean-up failed: ${sqlOf(error).message}.`,
    { cut },
  );
}
