/**
 * Ending a login, in the order that matters: refuse new logins and cut open sessions, in commits of their own; only
 * then tidy up what its holder left, in every database where there is something; then drop the role and read back that
 * it is gone. Every step may be run again, by several at once and by a process that slept in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { failpoint } from '../../domain/failpoint.ts';
import { type Gone, type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { ensureLeftoversRole, tidyDatabase } from './leftovers.ts';
import { type FoundRole, isOurs, readRole, sessionsOf } from './marker.ts';
import { againWhenConcurrent, type Door, lockLease, quoteName, quoteText, sqlOf, transaction } from './sql.ts';

type Cut = { at: Date; sessionsCut: number };

/** Ends the login of this lease. What is not there is success; a role of this name without our marker is refused and left alone. */
export async function revoke(door: Door, ref: LeaseRef, signal: AbortSignal): Promise<Gone> {
  const oid = await againWhenConcurrent(() => door.run(signal, 'refusing new logins', (client) => refuseLogins(client, door, ref)));
  if (oid === null) return { cutAt: null, sessionsCut: 0, notes: [] };
  await failpoint('postgres.disabled');
  const cut = await door.run(signal, 'cutting open sessions', (client) => cutSessions(client, door, ref, oid));
  try {
    await failpoint('postgres.terminated');
    const notes = await tidyAndDrop(door, ref, oid, signal);
    return { cutAt: cut.at, sessionsCut: cut.sessionsCut, notes };
  } catch (error) {
    throw withCut(error, cut, door, signal);
  }
}

/** First commit. Halligan also becomes able to act for the role, which cutting and tidying need. Null when the role is not there. */
function refuseLogins(client: pg.ClientBase, door: Door, ref: LeaseRef): Promise<number | null> {
  return transaction(client, async () => {
    const role = await lockedRole(client, door, ref);
    if (!role) return null;
    const name = quoteName(ref.externalName);
    const {
      rows: [clock],
    } = await client.query<{ now: Date; modern: boolean }>(
      `SELECT pg_catalog.clock_timestamp() AS now, pg_catalog.current_setting('server_version_num')::int >= 160000 AS modern`,
    );
    const now = clock?.now ?? new Date(0);
    const end = role.validUntil && role.validUntil < now ? role.validUntil : now;
    await client.query(`ALTER ROLE ${name} NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL VALID UNTIL ${quoteText(end.toISOString())}`);
    await client.query(`GRANT ${name} TO CURRENT_USER${clock?.modern ? ' WITH INHERIT TRUE, SET TRUE' : ''}`);
    return role.oid;
  });
}

async function lockedRole(client: pg.ClientBase, door: Door, ref: LeaseRef): Promise<FoundRole | null> {
  await lockLease(client, ref.externalName);
  const role = await readRole(client, ref.externalName);
  if (role && !isOurs(ref, role)) {
    throw new ProviderError(
      'target_forbids',
      `${door.name}: the role ${ref.externalName} does not bear the marker of ${ref.leaseId}, so it is not Halligan's to end.`,
      {
        next: 'Look at its comment there: somebody changed it, or made the role by hand.',
      },
    );
  }
  return role;
}

/** Until none is left, also those that were logging in at that moment. Two empty looks in a row: a login becomes visible a moment after it was let in. */
async function cutSessions(client: pg.ClientBase, door: Door, ref: LeaseRef, oid: number): Promise<Cut> {
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
    await sleep(none ? 30 : 10);
  }
  throw new ProviderError('target_timeout', `${door.name}: sessions of ${ref.externalName} are still open although they were told to end.`, {
    next: 'Look at pg_stat_activity there.',
  });
}

async function tidyAndDrop(door: Door, ref: LeaseRef, oid: number, signal: AbortSignal): Promise<string[]> {
  const notes: string[] = [];
  await againWhenConcurrent(() => door.run(signal, 'preparing the clean-up', (client) => transaction(client, () => ensureLeftoversRole(client, door))));
  for (let round = 1; ; round += 1) {
    const databases = await door.run(signal, 'looking for what was left behind', (client) => databasesTouched(client, oid, ref.externalName));
    for (const database of databases) {
      const tidy = () => door.run(signal, `tidying up in the database ${JSON.stringify(database)}`, (client) => tidyDatabase(client, door, ref, oid), database);
      try {
        notes.push(...(await againWhenConcurrent(tidy)));
      } catch (error) {
        if (await isGone(door, ref, oid, signal)) break;
        throw entryRefused(error, door, database);
      }
    }
    await failpoint('postgres.cleaned');
    try {
      await againWhenConcurrent(() => door.run(signal, 'dropping the role', (client) => dropRole(client, door, ref, oid)));
      return [...new Set(notes)];
    } catch (error) {
      // Once more, in case somebody gave the role something while it was tidied; then it is something that only others can take back.
      if (sqlOf(error).code !== '2BP01') throw error;
      if (round >= 2)
        throw stillHeld(error, door, ref, await door.run(signal, 'looking for what is left', (client) => databasesTouched(client, oid, ref.externalName)));
    }
  }
}

const isGone = (door: Door, ref: LeaseRef, oid: number, signal: AbortSignal): Promise<boolean> =>
  door.run(signal, 'reading back', async (client) => (await readRole(client, ref.externalName))?.oid !== oid);

/** The databases in which the role owns something, may do something, or holds a prepared transaction. Shared things are reached from the target's own. */
async function databasesTouched(client: pg.ClientBase, oid: number, externalName: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT coalesce(d.datname, pg_catalog.current_database()) AS name
       FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = $1
     UNION SELECT database FROM pg_catalog.pg_prepared_xacts WHERE owner = $2
     ORDER BY name`,
    [oid, externalName],
  );
  return rows.map((row) => row.name);
}

/** Last commit, and the proof: the name is gone from `pg_roles` and nothing is connected as it any more. */
async function dropRole(client: pg.ClientBase, door: Door, ref: LeaseRef, oid: number): Promise<void> {
  await transaction(client, async () => {
    if ((await lockedRole(client, door, ref))?.oid === oid) await client.query(`DROP ROLE ${quoteName(ref.externalName)}`);
  });
  await failpoint('postgres.dropped');
  const [left, open] = [await readRole(client, ref.externalName), await sessionsOf(client, oid)];
  if (left !== null || open.length > 0)
    throw new ProviderError(
      'target_failed',
      `${door.name}: ${ref.externalName} was dropped, but reading back still shows ${left ? 'the role' : `${open.length} sessions`}.`,
    );
}

function entryRefused(error: unknown, door: Door, database: string): unknown {
  const { code, message } = sqlOf(error);
  const closed = code === '55000' && /not currently accepting connections/.test(message);
  const noConnect = code === '42501' && /permission denied for database/.test(message);
  if (!closed && !noConnect) return error;
  const sql = closed
    ? `ALTER DATABASE ${quoteName(database)} WITH ALLOW_CONNECTIONS true;`
    : `GRANT CONNECT ON DATABASE ${quoteName(database)} TO ${quoteName(door.config.user)};`;
  return new ProviderError(
    'target_forbids',
    `${door.name}: the holder left something in the database ${JSON.stringify(database)}, which Halligan may not enter.`,
    { next: `As a superuser there: ${sql}` },
  );
}

/** Rights that an owner gave to this very login: only that owner or a superuser takes them back. They open nothing any more. */
function stillHeld(error: unknown, door: Door, ref: LeaseRef, databases: readonly string[]): ProviderError {
  const where = databases.map((database) => `the database ${quoteName(database)}`).join(' and in ');
  return new ProviderError(
    'target_forbids',
    `${door.name}: ${ref.externalName} cannot be dropped yet, because rights were given to it that Halligan may not take back: ${sqlOf(error).detail}.`,
    {
      next: `As a superuser in ${where}: DROP OWNED BY ${quoteName(ref.externalName)};`,
    },
  );
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
