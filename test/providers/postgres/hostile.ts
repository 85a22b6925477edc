/** What a holder with CREATE can leave behind to trip up, or to take over, whoever cleans up. */
import pg from 'pg';
import type { TestTarget } from '../../support/postgres.ts';

const quote = pg.escapeIdentifier;

/** Names that break careless SQL: quotes, semicolons, newlines, a bidi override, dollars, and the longest possible. */
export const hostileNames = ['"; DROP ROLE postgres; --', "it's\nhere", '$$ $1 \\', '\u202egnp.exe ☃', 'x'.repeat(63), 'pg"_catalog', 'select'];

/** A function that would be called instead of PostgreSQL's own if the search path let it. The first holder to make it keeps it. */
const shadow = (signature: string, returns: string): string =>
  `DO $d$ BEGIN IF to_regprocedure('public.${signature}') IS NULL THEN
     CREATE FUNCTION public.${signature} RETURNS ${returns} LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'the holder''s code was run'; END $f$;
   END IF; END $d$`;

/** Runs as the holder, on the holder's own session. In the target's own database a trigger is put on somebody else's table as well. */
export async function makeHostileObjects(client: pg.Client, target: TestTarget | null): Promise<void> {
  const tag = Math.random().toString(36).slice(2, 10);
  const name = (text: string) => quote(`${tag}${text}`.slice(0, 63));
  for (const text of hostileNames) {
    await client.query(`CREATE SCHEMA ${name(text)}`);
    await client.query(`CREATE TABLE ${name(text)}.${name(text)} (${name(text)} int DEFAULT 1, id serial PRIMARY KEY)`);
    await client.query(`CREATE VIEW ${name(text)}.${name(`${text.slice(0, 40)}v`)} AS SELECT * FROM ${name(text)}.${name(text)}`);
    await client.query(`CREATE FUNCTION ${name(text)}.${name(text)}(text) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'`);
    await client.query(`CREATE TYPE ${name(text)}.${name(`${text.slice(0, 40)}t`)} AS ENUM ('a')`);
    await client.query(`CREATE DOMAIN ${name(text)}.${name(`${text.slice(0, 40)}d`)} AS int CHECK (VALUE > 0)`);
    await client.query(`GRANT ALL ON ${name(text)}.${name(text)} TO PUBLIC`);
  }
  const statements = [
    // Stand in for what a careless clean-up would call without naming its schema.
    `CREATE FUNCTION public.${name('boom')}() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'the holder''s code was run'; END $f$`,
    shadow('current_setting(text)', 'text'),
    shadow('hashtextextended(text, int)', 'bigint'),
    shadow('shobj_description(oid, text)', 'text'),
    `CREATE SEQUENCE public.${name('seq')}`,
    `CREATE COLLATION public.${name('coll')} FROM "C"`,
    `CREATE TEXT SEARCH CONFIGURATION public.${name('ts')} (COPY = pg_catalog.simple)`,
    `CREATE FUNCTION public.${name('eq')}(int, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'`,
    `CREATE OPERATOR public.=== (FUNCTION = public.${name('eq')}, LEFTARG = int, RIGHTARG = text)`,
    `CREATE PUBLICATION ${name('pub')}`,
    `CREATE TEMPORARY TABLE pg_roles (oid oid, rolname name)`,
    `SELECT lo_create(0), lo_from_bytea(0, 'x')`,
    `ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC`,
    `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO PUBLIC`,
    `ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog`,
    `ALTER ROLE CURRENT_USER SET statement_timeout = 0`,
    `DROP OPERATOR public.=== (int, text)`,
  ];
  if (target) {
    statements.push(
      `CREATE FUNCTION public.${name('trigger')}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$`,
      `CREATE TRIGGER ${name('trigger; --')} BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.${name('trigger')}()`,
      `BEGIN`,
      `CREATE TABLE public.${name('prepared')} (id int)`,
      `PREPARE TRANSACTION ${pg.escapeLiteral(`${tag}'; DROP`)}`,
    );
  }
  for (const statement of statements) await client.query(statement);
}
