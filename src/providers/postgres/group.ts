/** The group role that an entitlement opens: whether it is there, harmless enough, and ours to give. */
import type pg from 'pg';
import { ProviderError } from '../../domain/provider.ts';
import { quoteName } from './sql.ts';

/** PostgreSQL's own roles that only concern data and statistics. The others (files, programs, other people's sessions) are never given. */
const givable = [
  'pg_read_all_data',
  'pg_write_all_data',
  'pg_monitor',
  'pg_read_all_settings',
  'pg_read_all_stats',
  'pg_stat_scan_tables',
  'pg_checkpoint',
  'pg_maintain',
];

interface Reached {
  readonly name: string;
  readonly isAdmin: boolean;
  readonly powers: string[];
}

/** Everything that a member of `role` would become, itself first. Empty when there is no such role. OFFSET 0 keeps the planner to the indexes: all the logins there are would be read otherwise. */
async function reachedFrom(client: pg.ClientBase, role: string): Promise<Reached[]> {
  const { rows } = await client.query<Reached>(
    `WITH RECURSIVE up(oid) AS (
       SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1
       UNION SELECT m.roleid FROM up, LATERAL (SELECT roleid FROM pg_catalog.pg_auth_members WHERE member = up.oid OFFSET 0) m)
     SELECT r.rolname AS name, r.rolname = current_user AS "isAdmin",
            pg_catalog.array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
              CASE WHEN r.rolreplication THEN 'REPLICATION' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL) AS powers
       FROM up, LATERAL (SELECT * FROM pg_catalog.pg_roles l WHERE l.oid = up.oid OFFSET 0) r ORDER BY r.rolname <> $1, r.rolname`,
    [role],
  );
  return rows;
}

/** Why this role is never given, in words, or null. */
function whyNeverGiven(role: string, leftoversRole: string, reached: readonly Reached[]): string | null {
  for (const { name, isAdmin, powers } of reached) {
    const what = name === role ? 'it' : `it leads to ${JSON.stringify(name)}, which`;
    if (isAdmin) return `${what} is Halligan's own role`;
    if (name === leftoversRole) return `${what} is the role that gets what others leave behind`;
    if (name.startsWith('hg_lse_')) return `${what} is a login of somebody else's lease`;
    if (powers.length > 0) return `${what} has ${powers.join(', ')}`;
    if (name.startsWith('pg_') && !givable.includes(name)) return `${what} reaches beyond the data`;
  }
  return null;
}

/** Throws `target_missing_role` or `target_forbids` with what would mend it. Every reason is found before anything is made. */
export async function mustBeGivable(client: pg.ClientBase, name: string, role: string, leftoversRole: string): Promise<void> {
  const reached = await reachedFrom(client, role);
  if (reached.length === 0) {
    throw new ProviderError('target_missing_role', `${name} has no role ${JSON.stringify(role)}.`, {
      next: `Create it there (CREATE ROLE ${quoteName(role)} NOLOGIN), or correct the entitlement's grant.`,
      nothingMade: true,
    });
  }
  const never = whyNeverGiven(role, leftoversRole, reached);
  if (never)
    throw new ProviderError('target_forbids', `${name}: the role ${JSON.stringify(role)} is not given to anybody, because ${never}.`, {
      next: 'Give the entitlement a role that opens the data only.',
      nothingMade: true,
    });
  const {
    rows: [right],
  } = await client.query<{ may: boolean; me: string }>(
    // Asked of the table first: pg_has_role walks through every login that is ours, which are many.
    `SELECT current_user AS me, CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles r ON r.oid = m.member
                         WHERE g.rolname = $1 AND r.rolname = current_user AND m.admin_option) THEN true
            ELSE pg_catalog.pg_has_role(current_user, $1, 'MEMBER WITH ADMIN OPTION') END OR
       (pg_catalog.current_setting('server_version_num')::int < 160000 AND (SELECT rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user)) AS may`,
    [role],
  );
  if (!right?.may) {
    const mend = `GRANT ${quoteName(role)} TO ${quoteName(right?.me ?? '')} WITH ADMIN OPTION;`;
    throw new ProviderError('target_forbids', `${name}: Halligan's role may not give anybody the role ${JSON.stringify(role)}.`, {
      next: `As a superuser there: ${mend}`,
      nothingMade: true,
    });
  }
}
