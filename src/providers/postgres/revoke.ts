/**
 * Ending logins, in the order that matters: refuse new logins and cut open sessions, in commits of their own; only then
 * tidy up what a holder left, drop the role, and read back that it is gone. Every step may be run again, by several at once
 * and by a process that slept in between.
 *
 * Logins that end at the same time share these steps. One whose holder is connected or left something goes on alone from
 * there; when a step fails that was shared each goes on alone as well, so that none waits for another's trouble.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { failpoint } from '../../domain/failpoint.ts';
import { type Gone, type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { together } from '../../domain/together.ts';
import { actFor, drop, isGone, type Login, tidyAndDrop, touched } from './drop.ts';
import { type FoundRole, lockingAndReading, oursAmong } from './marker.ts';
import { againWhenConcurrent, type Door, gate, oidsOf, quoteName, quoteText, readThenWrite, sqlOf } from './sql.ts';

type Cut = { at: Date; sessionsCut: number };
/** What the shared steps leave of a login: nothing any more; a role to go on with alone; or, undefined, everything. */
type Left = Gone | { readonly login: Login; readonly cut: Cut | undefined } | undefined;
interface Asked {
  readonly ref: LeaseRef;
  readonly signal: AbortSignal;
}

/** So many logins share a step, at most, and so many steps are under way at once. */
const sharing = { most: 50, atOnce: 2 };
/** So many go on alone at once, each with a session of ours: a target has few to spare. */
const mostAlone = 4;
/** From one look at the sessions to the next. Two that find none are needed: a login becomes visible a moment after it was let in. */
const lookAgainMs = 30;

/** Gives what ends the login of a lease. What is not there is success; a role of this name without our marker is refused and left alone. */
export function revoker(door: Door): (ref: LeaseRef, signal: AbortSignal) => Promise<Gone> {
  const share = together(sharing, (asked: readonly Asked[]) => endTogether(door, asked));
  const alone = gate(mostAlone);
  return async (ref, signal) => {
    const left = (await share({ ref, signal })) ?? (await endTogether(door, [{ ref, signal }])[0]);
    return left && 'login' in left ? alone(signal, door.name, () => goOnAlone(door, left.login, left.cut, signal)) : (left as Gone);
  };
}

/** The shared steps. Each promise is kept as soon as it is known what is left; one that is alone gets the error itself. */
function endTogether(door: Door, asked: readonly Asked[]): Promise<Left>[] {
  const ends = new Map(asked.map(({ ref }) => [ref.externalName, Promise.withResolvers<Left>()]));
  const say = (ref: LeaseRef, left: Left) => ends.get(ref.externalName)?.resolve(left);
  const fail = (error: unknown): void => {
    // A target that cannot be reached is so for each of them.
    const forAll = asked.length === 1 || (error instanceof ProviderError && error.code === 'target_unreachable');
    for (const end of ends.values()) forAll ? end.reject(error) : end.resolve(undefined);
  };
  const signal = AbortSignal.any(asked.map((one) => one.signal));
  const steps = async (): Promise<void> => {
    const refs = asked.map(({ ref }) => ref);
    const logins = await refuse(door, refs, signal);
    for (const ref of refs) if (!logins.some((login) => login.ref.externalName === ref.externalName)) say(ref, { cutAt: null, sessionsCut: 0, notes: [] });
    if (logins.length === 0) return;
    await failpoint('postgres.disabled');
    const { at, quiet } = await door.run(signal, 'looking for open sessions', (client) =>
      lookTwice(client, logins, (login) => say(login.ref, { login, cut: undefined })),
    );
    if (quiet.length === 0) return;
    const cut = { at, sessionsCut: 0 };
    try {
      await failpoint('postgres.terminated');
      const left = await door.run(signal, 'looking for what was left behind', (client) => touched(client, quiet));
      const [others = [], bare = []] = [true, false].map((has) => quiet.filter(({ oid }) => left.some((one) => one.oid === oid) === has));
      for (const login of others) say(login.ref, { login, cut });
      if (bare.length > 0) await failpoint('postgres.cleaned');
      await drop(door, bare, signal);
      for (const { ref } of bare) say(ref, { cutAt: at, sessionsCut: 0, notes: [] });
    } catch {
      // Alone it is tried once more, and what happens then is told; those of which something is known already keep it.
      for (const login of quiet) say(login.ref, { login, cut });
    }
  };
  // A step that does not heed the signal keeps nobody; one that does has its own words, which come first.
  const giveUp = () => setTimeout(() => fail(new ProviderError('target_timeout', `${door.name} did not answer in time.`)), 250);
  signal.addEventListener('abort', giveUp, { once: true });
  steps()
    .catch(fail)
    .finally(() => signal.removeEventListener('abort', giveUp));
  return asked.map(({ ref }) => ends.get(ref.externalName)?.promise ?? Promise.resolve(undefined));
}

/** First commit: no new session. Gives the logins that are there. */
async function refuse(door: Door, refs: readonly LeaseRef[], signal: AbortSignal): Promise<Login[]> {
  let found: Login[] = [];
  const alter = ({ ref, role }: { ref: LeaseRef; role: FoundRole }): string => {
    const end = role.validUntil && role.validUntil < role.readAt ? role.validUntil : role.readAt;
    return `ALTER ROLE ${quoteName(ref.externalName)} NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL VALID UNTIL ${quoteText(end.toISOString())}`;
  };
  await againWhenConcurrent(() =>
    door.run(signal, 'refusing new logins', (client) =>
      readThenWrite(client, lockingAndReading(refs), ([, roles]) => {
        const ours = oursAmong(door, refs, roles?.rows ?? []);
        found = ours.map(({ ref, role }) => ({ ref, oid: role.oid }));
        return ours.map(alter).join('; ');
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

/** Those of which two looks find no session, and when that was first so. `busy` is told of each of the others at once. */
async function lookTwice(client: pg.ClientBase, logins: readonly Login[], busy: (login: Login) => void): Promise<{ at: Date; quiet: Login[] }> {
  const first = await connected(client, logins);
  for (const login of logins) if (first.oids.has(login.oid)) busy(login);
  const left = logins.filter(({ oid }) => !first.oids.has(oid));
  if (left.length === 0) return { at: first.at, quiet: [] };
  await sleep(lookAgainMs);
  const second = await connected(client, left);
  for (const login of left) if (second.oids.has(login.oid)) busy(login);
  return { at: first.at, quiet: left.filter(({ oid }) => !second.oids.has(oid)) };
}

/** From new logins refused to the proof, for one login; a cut that is known already need not be made again. */
async function goOnAlone(door: Door, login: Login, known: Cut | undefined, signal: AbortSignal): Promise<Gone> {
  let cut = known;
  try {
    await againWhenConcurrent(() => door.run(signal, 'becoming able to act for the login', (client) => actFor(client, login.ref.externalName)));
    if (!cut) {
      cut = await door.run(signal, 'cutting open sessions', (client) => cutSessions(client, door, login));
      await failpoint('postgres.terminated');
    }
    return { cutAt: cut.at, sessionsCut: cut.sessionsCut, notes: await tidyAndDrop(door, login, signal) };
  } catch (error) {
    if (sqlOf(error).code === '42704' && (await isGone(door, login, signal))) return { cutAt: cut?.at ?? null, sessionsCut: cut?.sessionsCut ?? 0, notes: [] };
    throw cut ? withCut(error, cut, door, signal) : error;
  }
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
