/** Everything that can be wrong with a PostgreSQL target before anybody needs it, each with the SQL that mends it. */
import type pg from 'pg';
import { ProviderError, type TargetFault } from '../../domain/provider.ts';
import { mustBeGivable } from './group.ts';
import { ensureLeftoversRole } from './leftovers.ts';
import { strangeMakers } from './makers.ts';
import { type Door, quoteName } from './sql.ts';

/** At most this far may the target's clock be from ours before grants end visibly early or late there. */
const mostSkewSeconds = 5;

/** All faults at once. A target that cannot be reached has one: that. */
export async function checkTarget(door: Door, roles: readonly string[], signal: AbortSignal): Promise<TargetFault[]> {
  try {
    return await door.run(signal, 'checking the target', async (client) => {
      const { faults, makesRoles } = await checkServer(client, door);
      // Without the right to make roles the next step could only fail, for the reason that is named already.
      const leftovers = makesRoles ? await collect(() => ensureLeftovers(client, door)) : [];
      return [...faults, ...leftovers, ...(await checkMakers(client, door)), ...(await checkRoles(client, door, roles))];
    });
  } catch (error) {
    if (error instanceof ProviderError) return [asFault(error)];
    throw error;
  }
}

const asFault = (error: ProviderError): TargetFault => ({ message: error.message, next: error.next ?? 'Try again; if it stays, look at the server.' });

async function collect(work: () => Promise<unknown>): Promise<TargetFault[]> {
  try {
    await work();
    return [];
  } catch (error) {
    if (error instanceof ProviderError) return [asFault(error)];
    throw error;
  }
}

/** Tried for real and taken back, because only the server knows all its rules. */
async function ensureLeftovers(client: pg.ClientBase, door: Door): Promise<void> {
  await client.query('BEGIN');
  try {
    await ensureLeftoversRole(client, door);
  } finally {
    await client.query('ROLLBACK').catch(() => undefined);
  }
}

async function checkServer(client: pg.ClientBase, door: Door): Promise<{ faults: TargetFault[]; makesRoles: boolean }> {
  const before = Date.now();
  const {
    rows: [row],
  } = await client.query<{ version: number; me: string; superuser: boolean; creates: boolean; now: Date; standby: boolean }>(
    `SELECT pg_catalog.current_setting('server_version_num')::int AS version, r.rolname AS me, r.rolsuper AS superuser, r.rolcreaterole AS creates,
            pg_catalog.clock_timestamp() AS now, pg_catalog.pg_is_in_recovery() AS standby
       FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`,
  );
  const faults: TargetFault[] = [];
  if (!row) return { faults, makesRoles: false };
  if (row.version < 140_000)
    faults.push({ message: `${door.name} runs PostgreSQL ${Math.floor(row.version / 10_000)}; Halligan needs 14 or newer.`, next: 'Upgrade the server.' });
  if (row.standby) faults.push({ message: `${door.name} is a standby: no login can be made there.`, next: 'Name the primary as host.' });
  if (row.superuser)
    faults.push({
      message: `${door.name}: Halligan's role ${row.me} is a superuser, which is far more than it needs.`,
      next: `As a superuser there: ALTER ROLE ${quoteName(row.me)} NOSUPERUSER CREATEROLE; see docs/providers.md for its other rights.`,
    });
  else if (!row.creates)
    faults.push({
      message: `${door.name}: Halligan's role ${row.me} may not make logins.`,
      next: `As a superuser there: ALTER ROLE ${quoteName(row.me)} CREATEROLE;`,
    });
  const skew = Math.max(before - row.now.getTime(), row.now.getTime() - Date.now(), 0) / 1_000;
  if (skew > mostSkewSeconds)
    faults.push({
      message: `${door.name}: its clock and this machine's are ${Math.round(skew)} s apart, so logins end that much early or late there.`,
      next: 'Synchronise the clocks (NTP).',
    });
  return { faults, makesRoles: row.superuser || row.creates };
}

/** A helper role that somebody else made, changed or is a member of: logins are made without it, and its share more slowly. */
const checkMakers = async (client: pg.ClientBase, door: Door): Promise<TargetFault[]> =>
  (await strangeMakers(client, door.config.user)).map((name) => ({
    message: `${door.name}: the role ${JSON.stringify(name)} bears the name of a helper of ours, but it is not Halligan's alone, so no login is made by it.`,
    next: `If nothing else uses it, as a superuser there: DROP ROLE ${quoteName(name)}; Halligan makes it anew.`,
    warning: true,
  }));

async function checkRoles(client: pg.ClientBase, door: Door, roles: readonly string[]): Promise<TargetFault[]> {
  const faults: TargetFault[] = [];
  for (const role of new Set(roles)) {
    const found = await collect(() => mustBeGivable(client, door.name, role, door.config.leftoversRole));
    faults.push(...found);
    if (found.length === 0) faults.push(...(await checkReach(client, door, role)));
  }
  return faults;
}

/** Whether a login in this role can enter the database, and whether Halligan can take over what such a login may make there. */
async function checkReach(client: pg.ClientBase, door: Door, role: string): Promise<TargetFault[]> {
  const { database, leftoversRole } = door.config;
  const {
    rows: [row],
  } = await client.query<{ enters: boolean; schemas: string[] | null; me: string }>(
    `SELECT current_user AS me, pg_catalog.has_database_privilege($1, pg_catalog.current_database(), 'CONNECT') AS enters,
            (SELECT pg_catalog.array_agg(n.nspname::text ORDER BY n.nspname) FROM pg_catalog.pg_namespace n
              WHERE n.nspname !~ '^pg_' AND pg_catalog.has_schema_privilege($1, n.oid, 'CREATE')
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles l WHERE l.rolname = $2 AND pg_catalog.has_schema_privilege(l.oid, n.oid, 'CREATE'))) AS schemas`,
    [role, leftoversRole],
  );
  const faults: TargetFault[] = [];
  if (row && !row.enters) {
    faults.push({
      message: `${door.name}: a login in ${JSON.stringify(role)} may not connect to the database ${JSON.stringify(database)}.`,
      next: `As a superuser there: GRANT CONNECT ON DATABASE ${quoteName(database)} TO ${quoteName(role)};`,
    });
  }
  for (const schema of row?.schemas ?? []) {
    faults.push({
      message: `${door.name}: a login in ${JSON.stringify(role)} may make functions in the schema ${JSON.stringify(schema)}, which Halligan could only drop, not keep.`,
      next: `As a superuser there: CREATE ROLE ${quoteName(leftoversRole)} NOLOGIN (if it is missing); GRANT ${quoteName(leftoversRole)} TO ${quoteName(row?.me ?? '')}; GRANT CREATE ON SCHEMA ${quoteName(schema)} TO ${quoteName(leftoversRole)};`,
    });
  }
  return faults;
}
