/**
 * Quarantine. The store knows its own identity, and the log's head stands outside the database. When the database is older
 * than what was published, or is not where it was, it was restored from a backup: grants that were ended stand open in it, and
 * what was opened since is unknown to it. Then nothing is opened; what is due is ended; and what targets hold is compared with
 * the rows, and shown, until an admin lifts it (invariant 12).
 */
import { sql } from 'kysely';
import type { Checkpoint, Signer } from '../audit/checkpoint.ts';
import { type Continued, continueLog } from '../audit/continue.ts';
import { publishedHead, SealRefused } from '../audit/seal.ts';
import { newestCheckpoint } from '../audit/stored-tree.ts';
import type { Db } from '../db/pool.ts';
import type { QuarantineTable } from '../db/schema.ts';
import { memberNow } from '../db/stores/people.ts';
import { Refusal } from '../domain/errors.ts';
import { newId } from '../domain/ids.ts';
import { isOneOf } from '../domain/policy.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

/** Where the log is published, and by whose key. */
export interface Publication {
  readonly signer: Signer;
  readonly directory: string;
}

type Small = Pick<Ctx, 'db' | 'log' | 'nudge'>;
type Cause = QuarantineTable['causes'][number];

/** Throws `quarantined`. For every command that opens something. */
export function assertNotQuarantined(tx: Pick<Tx, 'quarantined'>): void {
  if (tx.quarantined)
    throw new Refusal('quarantined', 'Halligan was restored from a backup and is in quarantine: nothing is opened until an admin has looked at it.', {
      next: 'Call an admin: halligan quarantine shows what differs, halligan quarantine lift ends it.',
    });
}

/** The id of the quarantine that is on; undefined when none is. */
export async function quarantineNow(db: Db): Promise<string | undefined> {
  const { rows } = await sql<{ id: string }>`SELECT id FROM quarantine WHERE lifted_at IS NULL`.execute(db);
  return rows[0]?.id;
}

/**
 * Compares the store with what it knew of itself and with what was published. Begins the quarantine, once, when it was
 * restored; the first look ever writes down what it is. What cannot be read outside tells nothing, and is said in the log by
 * the sequencer. Throws what the database throws.
 */
export async function lookAtStore(ctx: Small, publication: Publication): Promise<void> {
  const published = await publishedOrNothing(publication);
  const before = await ctx.db.selectFrom('store').select('identity').executeTakeFirst();
  if (before && (await causesOf(ctx.db, before.identity, published)).length === 0) return;
  await commit(ctx, { system: 'look-at-store' }, async (tx) => {
    await sql`LOCK TABLE store IN SHARE ROW EXCLUSIVE MODE`.execute(tx.sql);
    const known = await tx.sql.selectFrom('store').select('identity').executeTakeFirst();
    if (!known)
      await tx.sql
        .insertInto('store')
        .values({ identity: await identityOf(tx.sql) })
        .execute();
    const causes = await causesOf(tx.sql, known?.identity, published);
    const on = await tx.sql.selectFrom('quarantine').select('id').where('lifted_at', 'is', null).executeTakeFirst();
    if (causes.length === 0 || on) return;
    const sizes = { database_size: (await newestCheckpoint(tx.sql))?.size ?? 0, published_size: published?.size ?? 0 };
    await tx.sql
      .insertInto('quarantine')
      .values({ id: newId('quarantine', tx.now.getTime()), causes, ...sizes })
      .execute();
    tx.witness({ type: 'quarantine.began', data: { causes, databaseEntries: sizes.database_size, publishedEntries: sizes.published_size } });
    ctx.log.error(
      { code: 'quarantined', causes, ...sizes },
      'this database was restored from a backup: nothing is opened until an admin lifts the quarantine (halligan quarantine)',
    );
  });
}

async function causesOf(db: Db, known: string | undefined, published: Checkpoint | null): Promise<Cause[]> {
  const ahead = (published?.size ?? 0) > ((await newestCheckpoint(db))?.size ?? 0);
  const moved = known !== undefined && !samePlace(known, await identityOf(db));
  return [...(ahead ? (['log-ahead'] as const) : []), ...(moved ? (['store-moved'] as const) : [])];
}

/**
 * The server and the database on it: another one after a dump is restored, on whichever server, and after a copy to a new server. A server that keeps its
 * identifier from us is `?`.
 */
async function identityOf(db: Db): Promise<string> {
  const asked = await sql<{ database: string; may: boolean }>`
    SELECT oid::text AS database, has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may FROM pg_database WHERE datname = current_database()`.execute(
    db,
  );
  const { database, may } = asked.rows[0] ?? { database: '?', may: false };
  if (!may) return `?/${database}`;
  const { rows } = await sql<{ server: string }>`SELECT system_identifier::text AS server FROM pg_control_system()`.execute(db);
  return `${rows[0]?.server ?? '?'}/${database}`;
}

/** Whether these can be one place: what one of them does not know tells nothing. */
function samePlace(one: string, other: string): boolean {
  const [[server, database], [server2, database2]] = [one.split('/'), other.split('/')];
  return database === database2 && (server === server2 || server === '?' || server2 === '?');
}

async function publishedOrNothing(publication: Publication): Promise<Checkpoint | null> {
  try {
    return await publishedHead(publication);
  } catch (error) {
    if (error instanceof SealRefused) return null;
    throw error;
  }
}

/** What lifting it did: null when the log in the database was as long as the published one. */
export interface Lifted {
  readonly continued: Continued | null;
}

/**
 * An admin has looked at the differences and says that Halligan goes on from here: the log is continued as it was published,
 * the store's identity is written down anew. Throws `not_eligible`, `device_may_not_decide`, `quarantine_not_on`, and `conflict` when what was
 * published does not let the log be continued.
 */
export async function liftQuarantine(ctx: Ctx, publication: Publication, actor: PersonActor, reason: string): Promise<Lifted> {
  return commit(
    ctx,
    actor,
    async (tx) => {
      if (!isOneOf(ctx.policy.admins, await memberNow(tx.sql, actor.id)))
        throw new Refusal('not_eligible', 'Only admins lift the quarantine.', { next: 'roles.admins in the config says who they are.' });
      if (actor.via === 'device')
        throw new Refusal('device_may_not_decide', 'A login by device code may not lift the quarantine.', { next: 'Log in with a browser: halligan login.' });
      const quarantine = await tx.sql.selectFrom('quarantine').select(['id', 'causes']).where('lifted_at', 'is', null).forUpdate().executeTakeFirst();
      if (!quarantine) throw new Refusal('quarantine_not_on', undefined, { next: 'halligan status --system' });
      const continued = await continueLog(tx.sql, publication).catch((error: unknown) => {
        if (error instanceof SealRefused)
          throw new Refusal('conflict', `The log cannot be continued: ${error.message}`, { next: 'docs/operations.md, "Restore", says what to do.' });
        throw error;
      });
      await tx.sql
        .updateTable('store')
        .set({ identity: await identityOf(tx.sql), seen_at: tx.now })
        .execute();
      await tx.sql.updateTable('quarantine').set({ lifted_at: tx.now, lifted_by: actor.id, reason }).where('id', '=', quarantine.id).execute();
      if (continued) tx.witness({ type: 'log.continued', data: { ...continued } });
      tx.witness({ type: 'quarantine.lifted', data: { causes: quarantine.causes, reason } });
      return { continued };
    },
    () => ({ type: 'access.refused', data: { command: 'lift-quarantine' } }),
  );
}
