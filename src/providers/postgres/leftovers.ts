/**
 * What the holder of an ended login left in one database. Data is kept: it goes to a role that can do nothing. Code is
 * kept too, but no longer runs with its owner's rights, and what can neither be kept nor stand in the way is dropped and
 * named. Names here were chosen by the person whose access ends: they come quoted from PostgreSQL itself or are quoted by us.
 */
import type pg from 'pg';
import { type LeaseRef, ProviderError } from '../../domain/provider.ts';
import { leaseIn, readRole } from './marker.ts';
import { type Door, lockLease, oneLine, quoteName, quoteText, sqlOf, transaction } from './sql.ts';

/** The role that gets what is left: it exists, has no power and no membership, and Halligan may hand things to it. Made when it is missing. */
export async function ensureLeftoversRole(client: pg.ClientBase, door: Door): Promise<void> {
  const role = door.config.leftoversRole;
  const name = quoteName(role);
  const {
    rows: [found],
  } = await client.query<{ inert: boolean; held: boolean; giver: boolean; modern: boolean; me: string }>(
    `SELECT NOT (r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid) AS inert,
            pg_catalog.pg_has_role(current_user, r.oid, 'USAGE') AND pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') AS held,
            pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION') AS giver,
            pg_catalog.current_setting('server_version_num')::int >= 160000 AS modern, current_user AS me
       FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1`,
    [role],
  );
  const grant = `GRANT ${name} TO CURRENT_USER${found?.modern ? ' WITH INHERIT TRUE, SET TRUE' : ''}`;
  if (found?.inert == null) {
    await client.query(`CREATE ROLE ${name} NOLOGIN NOINHERIT`);
    await client.query(`COMMENT ON ROLE ${name} IS 'owns what holders of halligan logins left behind; has no rights, and should get none'`);
    await client.query(grant);
    return;
  }
  if (!found.inert) {
    throw new ProviderError(
      'target_forbids',
      `${door.name}: the role ${JSON.stringify(role)} is to own what holders left behind, but it has powers of its own.`,
      {
        next: `Take its memberships and its LOGIN away, or name another role as leftoversRole.`,
      },
    );
  }
  if (found.held) return;
  if (!found.giver) {
    const mend = `GRANT ${name} TO ${quoteName(found.me)}${found.modern ? ' WITH INHERIT TRUE, SET TRUE' : ''};`;
    throw new ProviderError('target_forbids', `${door.name}: Halligan's role may not hand anything to ${JSON.stringify(role)}.`, {
      next: `As a superuser there: ${mend}`,
    });
  }
  await client.query(grant);
}

/** Leaves nothing in this database that depends on the role. Returns what was done, in words, for the audit log. */
export async function tidyDatabase(client: pg.ClientBase, door: Door, ref: LeaseRef, oid: number): Promise<string[]> {
  const notes = await rollBackPrepared(client, ref);
  const cascades: string[] = [];
  client.on('notice', (notice) =>
    cascades.push(
      ...oneLine(notice.detail ?? notice.message ?? '')
        .split('drop cascades to ')
        .filter((part) => part.trim() && !part.startsWith('role ')),
    ),
  );
  await transaction(client, async () => {
    await lockLease(client, ref.externalName);
    if ((await readRole(client, ref.externalName))?.oid !== oid) return;
    const owned = await countOwned(client, oid);
    if (owned > 0) {
      notes.push(...(await defuseCode(client, oid)));
      notes.push(...(await keepOrDrop(client, door, ref, oid, owned)));
    }
    await actForOtherHolders(client, oid);
    // What is left are rights that were given to the role, and rights that it gave on: nobody's data.
    await client.query(`DROP OWNED BY ${quoteName(ref.externalName)} CASCADE`);
  });
  if (cascades.length > 0) notes.push(`dropped with it: ${oneLine(cascades.join(', '))}`);
  return notes;
}

/** A prepared transaction outlives its session. Only its owner may take it back, so Halligan becomes that owner for one statement. */
async function rollBackPrepared(client: pg.ClientBase, ref: LeaseRef): Promise<string[]> {
  const { rows } = await client.query<{ gid: string }>(
    'SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE owner = $1 AND database = pg_catalog.current_database()',
    [ref.externalName],
  );
  for (const { gid } of rows) {
    await client.query(`SET ROLE ${quoteName(ref.externalName)}`);
    await rollBack(client, gid);
    await client.query('RESET ROLE');
  }
  return rows.length > 0 ? [`${rows.length} prepared ${rows.length === 1 ? 'transaction' : 'transactions'} rolled back`] : [];
}

/** One that is gone (42704) is what was wished; one that is busy (55000) is being rolled back by another of ours, which takes a moment. */
async function rollBack(client: pg.ClientBase, gid: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await client.query(`ROLLBACK PREPARED ${quoteText(gid)}`);
      return;
    } catch (error) {
      const { code } = sqlOf(error);
      if (code === '42704') return;
      if (code !== '55000' || tries >= 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

async function countOwned(client: pg.ClientBase, oid: number): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `SELECT pg_catalog.count(*)::int AS count FROM pg_catalog.pg_shdepend s
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = $1 AND s.deptype = 'o'
        AND s.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
        AND s.classid <> ALL (ARRAY['pg_catalog.pg_default_acl', 'pg_catalog.pg_user_mapping', 'pg_catalog.pg_auth_members']::pg_catalog.regclass[])`,
    [oid],
  );
  return rows[0]?.count ?? 0;
}

/** Routines that would run with their owner's rights no longer do. Triggers on other people's tables are named: they go on running what was left. */
async function defuseCode(client: pg.ClientBase, oid: number): Promise<string[]> {
  const { rows: definers } = await client.query<{ routine: string }>(
    `SELECT p.oid::pg_catalog.regprocedure::text AS routine FROM pg_catalog.pg_proc p WHERE p.proowner = $1 AND p.prosecdef ORDER BY p.oid`,
    [oid],
  );
  for (const { routine } of definers) await client.query(`ALTER ROUTINE ${routine} SECURITY INVOKER`);
  const { rows: triggers } = await client.query<{ trigger: string }>(
    `SELECT pg_catalog.format('%I on %s', t.tgname, t.tgrelid::pg_catalog.regclass) AS trigger FROM pg_catalog.pg_trigger t
       JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
      WHERE p.proowner = $1 AND c.relowner <> $1 AND NOT t.tgisinternal ORDER BY 1`,
    [oid],
  );
  return [
    ...(definers.length > 0 ? [`${definers.length} SECURITY DEFINER ${definers.length === 1 ? 'routine' : 'routines'} set to SECURITY INVOKER`] : []),
    ...triggers.map(({ trigger }) => oneLine(`a trigger on somebody else's table runs code of this login: ${trigger}`)),
  ];
}

/** Only an object's owner can take back rights on it. Where the owner is another of our logins, Halligan may act for that one. */
async function actForOtherHolders(client: pg.ClientBase, oid: number): Promise<void> {
  const { rows } = await client.query<{ name: string; comment: string; modern: boolean }>(
    `SELECT DISTINCT r.rolname AS name, coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), '') AS comment,
            pg_catalog.current_setting('server_version_num')::int >= 160000 AS modern
       FROM pg_catalog.pg_shdepend a JOIN pg_catalog.pg_shdepend o ON (o.dbid, o.classid, o.objid, o.refclassid) = (a.dbid, a.classid, a.objid, a.refclassid)
       JOIN pg_catalog.pg_roles r ON r.oid = o.refobjid
      WHERE a.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND a.refobjid = $1 AND a.deptype = 'a' AND o.deptype = 'o' AND o.refobjid <> $1
        AND a.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())`,
    [oid],
  );
  for (const { name, comment, modern } of rows) {
    if (leaseIn(comment)) await client.query(`GRANT ${quoteName(name)} TO CURRENT_USER${modern ? ' WITH INHERIT TRUE, SET TRUE' : ''}`);
  }
}

/** Hand over all; failing that, hand over the code piece by piece and drop what cannot be kept; failing that too, drop everything. */
async function keepOrDrop(client: pg.ClientBase, door: Door, ref: LeaseRef, oid: number, owned: number): Promise<string[]> {
  const leftovers = door.config.leftoversRole;
  const handOver = () => attempt(client, `REASSIGN OWNED BY ${quoteName(ref.externalName)} TO ${quoteName(leftovers)}`);
  const kept = (count: number) => `${count} ${count === 1 ? 'object' : 'objects'} given to ${leftovers}`;
  const refused = await handOver();
  if (!refused) return [kept(owned)];
  const dropped = await keepOrDropCode(client, oid, leftovers);
  const left = owned - dropped.length;
  const why = ` because they could not be kept (${refused})`;
  const code = dropped.length > 0 ? [oneLine(`dropped${why}: ${dropped.join(', ')}`)] : [];
  if (!(await handOver())) return [...code, ...(left > 0 ? [kept(left)] : [])];
  return [...code, oneLine(`${left} ${left === 1 ? 'object' : 'objects'} dropped${why}`)];
}

/** Runs one statement; a refusal for lack of rights is undone and returned in words, anything else is thrown. */
async function attempt(client: pg.ClientBase, statement: string): Promise<string | null> {
  await client.query('SAVEPOINT attempt');
  try {
    await client.query(statement);
    await client.query('RELEASE SAVEPOINT attempt');
    return null;
  } catch (error) {
    if (sqlOf(error).code !== '42501') throw error;
    await client.query('ROLLBACK TO SAVEPOINT attempt');
    return oneLine(sqlOf(error).message);
  }
}

/** What is neither data nor a container of data: routines, operators, and whatever else asks its new owner for more rights than tables do. Returns what had to be dropped. */
async function keepOrDropCode(client: pg.ClientBase, oid: number, leftovers: string): Promise<string[]> {
  const { rows } = await client.query<{ type: string; identity: string }>(
    `SELECT pg_catalog.upper(CASE i.type WHEN 'statistics object' THEN 'statistics' WHEN 'foreign-data wrapper' THEN 'foreign data wrapper' ELSE i.type END) AS type, i.identity
       FROM pg_catalog.pg_shdepend s, LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, s.objsubid) i
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = $1 AND s.deptype = 'o'
        AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND s.classid <> ALL (ARRAY['pg_catalog.pg_class', 'pg_catalog.pg_namespace', 'pg_catalog.pg_type', 'pg_catalog.pg_largeobject', 'pg_catalog.pg_largeobject_metadata',
              'pg_catalog.pg_default_acl', 'pg_catalog.pg_user_mapping']::pg_catalog.regclass[])
      ORDER BY s.classid, s.objid`,
    [oid],
  );
  const dropped: string[] = [];
  for (const { type, identity } of rows) {
    if (!(await attempt(client, `ALTER ${type} ${identity} OWNER TO ${quoteName(leftovers)}`))) continue;
    await client.query(`DROP ${type} IF EXISTS ${identity} CASCADE`);
    dropped.push(`${type.toLowerCase()} ${identity}`);
  }
  return dropped;
}
