/**
 * The helper roles that make the logins, from PostgreSQL 16 on. There, whoever makes a role and is no superuser becomes its member,
 * for good, and the server walks through all of its maker's memberships at each check of rights, from the beginning after each change:
 * with thousands of logins that is most of what one more costs. So the logins are shared out among helpers `<user>_maker_<n>`, which
 * Halligan makes itself. Halligan is a member of each and nobody else is; what it may do, and what anybody else may, stays the same.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { type Door, quoteName, quoteText } from './sql.ts';

const stem = (user: string): string => `${user}_maker_`;

/** The helper for a login of this name: the same at each try, and each helper about as often. Null when there is to be none, or its name would be too long. */
export function makerFor(user: string, makers: number, externalName: string): string | null {
  if (makers === 0) return null;
  const share = createHash('sha256').update(externalName).digest().readUInt32BE() % makers;
  const name = `${stem(user)}${share}`;
  return Buffer.byteLength(name) > 63 ? null : name;
}

/** The helper that may end a role, in SQL: one that bears a helper's name, and that Halligan may become. Null elsewhere, and before PostgreSQL 16. */
export const makerOf = (role: string): string =>
  `(SELECT h.rolname FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles h ON h.oid = a.member
     WHERE a.roleid = ${role}.oid AND a.admin_option AND h.rolcreaterole AND pg_catalog.starts_with(h.rolname, current_user || '_maker_') AND EXISTS
       (SELECT FROM pg_catalog.pg_auth_members x JOIN pg_catalog.pg_roles me ON me.oid = x.member
         WHERE x.roleid = h.oid AND me.rolname = current_user AND (pg_catalog.to_jsonb(x)->>'set_option')::bool)
     LIMIT 1)`;

/**
 * The same statement for each of these roles, as its maker: the server then walks through that helper's logins and not through all that
 * are ours, again after each that is dropped. For the end of a transaction, which takes the role back. Those without a helper come first.
 */
export function asMakers<Found extends { readonly role: { readonly maker: string | null } }>(
  found: readonly Found[],
  statement: (of: readonly Found[]) => string,
): string {
  const groups = [...Map.groupBy(found, ({ role }) => role.maker)].sort(([a], [b]) => (a ?? '').localeCompare(b ?? ''));
  return groups.map(([maker, of]) => `${maker === null ? '' : `SET LOCAL ROLE ${quoteName(maker)}; `}${statement(of)}`).join('; ');
}

/** What a helper must be before a login is made as it: without a login or any other power, and ours alone. One SQL condition on `m`, its role, and `me`, ours. */
const oursAlone = `m.rolcreaterole AND NOT (m.rolcanlogin OR m.rolsuper OR m.rolcreatedb OR m.rolreplication OR m.rolbypassrls)
  AND coalesce((SELECT pg_catalog.bool_and(x.member = me.oid) AND pg_catalog.bool_or((pg_catalog.to_jsonb(x)->>'set_option')::bool AND (pg_catalog.to_jsonb(x)->>'inherit_option')::bool)
                  FROM pg_catalog.pg_auth_members x WHERE x.roleid = m.oid), false)`;

export interface Standing {
  /** The target's own clock. */
  readonly now: Date;
  /** 16 or newer: memberships have options, and whoever makes a role becomes its member. */
  readonly modern: boolean;
  /** The helper to make the login as, or null: then Halligan's own role makes it. */
  readonly maker: { readonly name: string; readonly isThere: boolean; readonly givesGroup: boolean } | null;
}

/** One look at what making a login depends on. A helper that is not ours alone is left alone (the check tells of it), and so are all when CREATEROLE was taken from us. */
export async function standing(client: pg.ClientBase, maker: string | null, group: string): Promise<Standing> {
  const {
    rows: [row],
  } = await client.query<{ now: Date; modern: boolean; makes: boolean; isThere: boolean; ours: boolean; givesGroup: boolean }>(
    `SELECT pg_catalog.clock_timestamp() AS now, v.modern, v.modern AND me.rolcreaterole AND NOT me.rolsuper AS makes, m.oid IS NOT NULL AS "isThere", ${oursAlone} AS ours,
            EXISTS (SELECT FROM pg_catalog.pg_auth_members g JOIN pg_catalog.pg_roles r ON r.oid = g.roleid WHERE g.member = m.oid AND r.rolname = $2 AND g.admin_option) AS "givesGroup"
       FROM (SELECT pg_catalog.current_setting('server_version_num')::int >= 160000 AS modern) v JOIN pg_catalog.pg_roles me ON me.rolname = current_user
       LEFT JOIN pg_catalog.pg_roles m ON m.rolname = $1`,
    [maker, group],
  );
  if (!row) throw new Error('the server has no role for its current user');
  const { now, modern, makes, isThere, ours, givesGroup } = row;
  return { now, modern, maker: maker !== null && makes && (ours || !isThere) ? { name: maker, isThere, givesGroup } : null };
}

/** Makes the helper where it is missing, and lets it give the group. In the caller's transaction, as our own role. */
export async function prepareMaker(client: pg.ClientBase, door: Door, maker: NonNullable<Standing['maker']>, group: string): Promise<void> {
  const name = quoteName(maker.name);
  if (!maker.isThere) {
    const words = `makes logins for ${door.config.user}; nobody else may be its member`;
    await client.query(
      `CREATE ROLE ${name} NOLOGIN CREATEROLE; COMMENT ON ROLE ${name} IS ${quoteText(words)}; GRANT ${name} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE`,
    );
  }
  if (!maker.givesGroup) await client.query(`GRANT ${quoteName(group)} TO ${name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`);
}

/** Roles that bear a helper's name and are not ours alone. No login is made as these. */
export async function strangeMakers(client: pg.ClientBase, user: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT m.rolname AS name FROM pg_catalog.pg_roles m JOIN pg_catalog.pg_roles me ON me.rolname = current_user
      WHERE pg_catalog.starts_with(m.rolname, $1) AND pg_catalog.substr(m.rolname, pg_catalog.length($1) + 1) ~ '^[0-9]{1,2}$'
        AND pg_catalog.current_setting('server_version_num')::int >= 160000 AND NOT me.rolsuper AND NOT (${oursAlone}) ORDER BY 1`,
    [stem(user)],
  );
  return rows.map(({ name }) => name);
}
