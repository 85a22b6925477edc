/** What comes after access is cut: a role goes, with whatever its holder left in any database, and is read back as gone. */
import type pg from 'pg';
import { failpoint } from '../../domain/failpoint.ts';
import { type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { ensureLeftoversRole, tidyDatabase } from './leftovers.ts';
import { asMakers } from './makers.ts';
import { type FoundRole, lockingAndReading, oursAmong, reading, readRole } from './marker.ts';
import { againWhenConcurrent, type Door, oidsOf, quoteName, readThenWrite, sqlOf, transaction } from './sql.ts';

/** A lease's role at the target, known by its oid: one that was made anew under the name is another. */
export interface Login {
  readonly ref: LeaseRef;
  readonly oid: number;
}

/**
 * Halligan becomes able to act for the role, which cutting its sessions and tidying up after it need. Under the lease's lock: a role that is
 * dropped at the same moment would leave a membership of nobody behind, at which the server itself stumbles. False when the role is gone.
 */
export async function actFor(door: Door, { ref, oid }: Login, signal: AbortSignal): Promise<boolean> {
  let there = false;
  const look = `${lockingAndReading([ref])}; SELECT pg_catalog.current_setting('server_version_num')::int >= 160000 AS modern`;
  await againWhenConcurrent(() =>
    door.run(signal, 'becoming able to act for the login', (client) =>
      readThenWrite(client, look, ([, found, version]) => {
        there = oursAmong(door, [ref], found?.rows ?? []).some(({ role }) => role.oid === oid);
        return there ? `GRANT ${quoteName(ref.externalName)} TO CURRENT_USER${version?.rows[0]?.modern ? ' WITH INHERIT TRUE, SET TRUE' : ''}` : '';
      }),
    ),
  );
  return there;
}

/** Last commit, and the proof: the names are gone from `pg_roles` and nothing is connected as any of them. */
export async function drop(door: Door, logins: readonly Login[], signal: AbortSignal): Promise<void> {
  if (logins.length === 0) return;
  await failpoint('postgres.cleaned');
  const refs = logins.map(({ ref }) => ref);
  await againWhenConcurrent(() =>
    door.run(signal, 'dropping the role', (client) =>
      readThenWrite(client, lockingAndReading(refs), ([, found]) => {
        const there = oursAmong(door, refs, found?.rows ?? []).filter(({ role }) => logins.some(({ oid }) => oid === role.oid));
        return asMakers(there, (some) => `DROP ROLE ${some.map(({ ref }) => quoteName(ref.externalName)).join(', ')}`);
      }),
    ),
  );
  await failpoint('postgres.dropped');
  const activity = `SELECT pid FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid = ANY (${oidsOf(logins)})`;
  const [roles, sessions] = await door.run(
    signal,
    'reading back',
    async (client) => (await client.query(`${reading(refs)}; ${activity}`)) as unknown as [pg.QueryResult<FoundRole>, pg.QueryResult],
  );
  const left = roles.rows[0] ? `the role ${roles.rows[0].name}` : `${sessions.rows.length} sessions`;
  if (roles.rows.length + sessions.rows.length > 0)
    throw new ProviderError('target_failed', `${door.name}: ${refs.map((ref) => ref.externalName).join(', ')}: dropped, but reading back still shows ${left}.`);
}

/** Tidies every database in which there is something of the login, and drops it. Returns what was done with it, in words for the audit log. */
export async function tidyAndDrop(door: Door, login: Login, signal: AbortSignal): Promise<string[]> {
  const { ref, oid } = login;
  const notes: string[] = [];
  const look = (memberships: boolean) => door.run(signal, 'looking for what was left behind', (client) => touched(client, [login], memberships));
  for (let round = 1; ; round += 1) {
    const left = await look(round > 1);
    if (left.length > 0 && !(await actFor(door, login, signal))) return notes;
    if (left.length > 0)
      await againWhenConcurrent(() => door.run(signal, 'preparing the clean-up', (client) => transaction(client, () => ensureLeftoversRole(client, door))));
    for (const { database } of left) {
      const tidy = () => door.run(signal, `tidying up in the database ${JSON.stringify(database)}`, (client) => tidyDatabase(client, door, ref, oid), database);
      try {
        notes.push(...(await againWhenConcurrent(tidy)));
      } catch (error) {
        if (await isGone(door, login, signal)) break;
        throw entryRefused(error, door, database);
      }
    }
    try {
      await drop(door, [login], signal);
      return [...new Set(notes)];
    } catch (error) {
      // Once more, in case somebody gave the role something while it was tidied; then it is something that only others can take back.
      if (sqlOf(error).code !== '2BP01') throw error;
      if (round >= 2) throw stillHeld(error, door, ref, await look(true));
    }
  }
}

/** Whether this very role is there no more. */
const isGone = (door: Door, { ref, oid }: Login, signal: AbortSignal): Promise<boolean> =>
  door.run(signal, 'reading back', async (client) => (await readRole(client, ref.externalName))?.oid !== oid);

/**
 * The databases in which these logins own something, may do something, or hold a prepared transaction. Shared things are reached from the
 * target's own. Memberships end with the role itself, but for those that it gave on: with `memberships` they count as well.
 */
export async function touched(client: pg.ClientBase, logins: readonly Login[], memberships = false): Promise<{ oid: number; database: string }[]> {
  const { rows } = await client.query<{ oid: number; database: string }>(
    `SELECT s.refobjid::pg_catalog.int8::pg_catalog.float8 AS oid, coalesce(d.datname, pg_catalog.current_database()) AS database
       FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = ANY (${oidsOf(logins)})
        AND ($1 OR s.classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass)
     UNION SELECT p.ownerid::pg_catalog.int8::pg_catalog.float8, d.datname FROM pg_catalog.pg_prepared_xact() p JOIN pg_catalog.pg_database d ON d.oid = p.dbid
      WHERE p.ownerid = ANY (${oidsOf(logins)})
     ORDER BY database`,
    [memberships],
  );
  return rows;
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
function stillHeld(error: unknown, door: Door, ref: LeaseRef, left: readonly { readonly database: string }[]): ProviderError {
  const where = left.map(({ database }) => `the database ${quoteName(database)}`).join(' and in ');
  return new ProviderError(
    'target_forbids',
    `${door.name}: ${ref.externalName} cannot be dropped yet, because rights were given to it that Halligan may not take back: ${sqlOf(error).detail}.`,
    {
      next: `As a superuser in ${where}: DROP OWNED BY ${quoteName(ref.externalName)};`,
    },
  );
}
