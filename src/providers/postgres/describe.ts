/** What a group role really opens in the target's database, read from its access lists, for the person who must approve it. */
import type pg from 'pg';
import type { Description } from '../../domain/provider.ts';
import { oneLine } from './sql.ts';

const mostLines = 200;

interface Right {
  readonly kind: string;
  readonly object: string;
  readonly rights: string[];
}

/** Rights of the role and of every role whose rights it has, on tables, columns, schemas, routines, types and the database, and the built-in roles among those, first. Built-in things are left out. */
const rightsQuery = `
WITH me AS (SELECT oid, rolname FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role($1, oid, 'USAGE')),
own_schemas AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND nspname !~ '^pg_(toast_)?temp_'),
things(kind, object, owner, acl) AS (
  SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'table' END, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, c.relacl
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.oid IN (SELECT oid FROM own_schemas)
  UNION ALL SELECT 'column', pg_catalog.format('%I.%I.%I', n.nspname, c.relname, a.attname), 0, a.attacl
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND n.oid IN (SELECT oid FROM own_schemas)
  UNION ALL SELECT 'schema', pg_catalog.format('%I', nspname), nspowner, nspacl FROM pg_catalog.pg_namespace WHERE oid IN (SELECT oid FROM own_schemas)
  UNION ALL SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END,
      pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), p.proowner, p.proacl
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.oid IN (SELECT oid FROM own_schemas)
  UNION ALL SELECT 'database', pg_catalog.format('%I', datname), datdba, datacl FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
given AS (
  SELECT t.kind, t.object, a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS privilege
    FROM things t, LATERAL pg_catalog.aclexplode(t.acl) a WHERE a.grantee IN (SELECT oid FROM me)
  UNION SELECT kind, object, 'OWNER' FROM things WHERE owner IN (SELECT oid FROM me))
SELECT kind, object, rights FROM (
  SELECT kind, object, pg_catalog.array_agg(privilege ORDER BY privilege) AS rights FROM given GROUP BY kind, object
  UNION ALL SELECT 'role', rolname, ARRAY[]::text[] FROM me WHERE rolname ~ '^pg_') found
 ORDER BY pg_catalog.array_position(ARRAY['role', 'table', 'view', 'column', 'sequence', 'procedure', 'function', 'schema', 'database'], kind), object LIMIT 20000`;

const predefined: Readonly<Record<string, string>> = {
  pg_read_all_data: 'SELECT on every table of every database it may enter',
  pg_write_all_data: 'INSERT, UPDATE, DELETE on every table of every database it may enter',
  pg_monitor: 'every statistic and setting',
  pg_read_all_settings: 'every setting',
  pg_read_all_stats: 'every statistic',
  pg_stat_scan_tables: 'statistics that lock tables',
  pg_checkpoint: 'CHECKPOINT',
  pg_maintain: 'VACUUM, ANALYZE, REINDEX and LOCK on every table',
};

const plural = (count: number, noun: string): string => `${count} ${count === 1 ? noun : noun.endsWith('y') ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;

/** The role's rights in one line and in full. */
export async function describeRole(client: pg.ClientBase, role: string, database: string): Promise<Description> {
  // Named, so that a kept session plans it once: planning costs more than running it.
  const { rows: found } = await client.query<Right>({ name: 'halligan-describe', text: rightsQuery, values: [role] });
  const rows = found.filter(({ kind }) => kind !== 'role');
  const sweeping = found.filter(({ kind }) => kind === 'role').map(({ object }) => `${object}: ${predefined[object] ?? 'a built-in role'}`);
  const counted = new Map<string, number>();
  for (const { kind, rights } of rows.filter(({ kind }) => kind !== 'schema' && kind !== 'database')) {
    const key = `${rights.join(', ')} on |${kind}`;
    counted.set(key, (counted.get(key) ?? 0) + 1);
  }
  const parts = [...counted].map(([key, count]) => {
    const [rights = '', kind = ''] = key.split('|');
    return `${rights}${plural(count, kind)}`;
  });
  const shown = parts.length > 6 ? [...parts.slice(0, 5), `and ${parts.length - 5} more kinds of rights`] : parts;
  const creates = rows.flatMap(({ kind, object, rights }) => {
    const some = kind === 'schema' || kind === 'database' ? rights.filter((right) => /^(CREATE|OWNER)\b/.test(right)) : [];
    return some.length > 0 ? [`${some.join(', ')} on ${kind} ${object}`] : [];
  });
  const data = shown.length > 0 ? [`${shown.join('; ')} of ${database}`] : [];
  const what = [...sweeping, ...data, ...creates].join('; ') || `no rights of its own in ${database}`;
  const lines = [...sweeping, ...rows.map(({ kind, object, rights }) => `${rights.join(', ')} on ${kind} ${oneLine(object)}`)];
  const details = lines.length > mostLines ? [...lines.slice(0, mostLines - 1), `and ${lines.length - mostLines + 1} more`] : lines;
  return { summary: oneLine(`a login in ${role}: ${what}`), details };
}
