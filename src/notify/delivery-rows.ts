/**
 * The rows of messages: taken, and marked with what became of them. They change outside commit(): they are to messages what
 * the outbox is to jobs, and what they tell of has its witness already.
 */
import { sql } from 'kysely';
import type { Db } from '../db/pool.ts';
import type { Json } from '../domain/canonical.ts';
import type { ChannelName, Delivery } from './channel.ts';

/** A message that this process sends now. */
export interface Taken extends Delivery {
  readonly noticeId: string;
  readonly requestId: string;
  /** Since it was made, by Postgres' clock. */
  readonly ageMs: number;
}

export interface Room {
  /** How many at most, and how many to one address together with those on their way. */
  readonly room: number;
  readonly each: number;
  /** How long nobody else sends them, nor what follows the same card. */
  readonly forMs: number;
}

/**
 * Marks and returns what is due, oldest first. What follows a card waits until the card is out, and for what came before it. A
 * rewriting that a later one overtakes is dropped, because the later one says all; one that is being sent overtakes nothing: it
 * may have been read before.
 */
export async function take(db: Db, channel: ChannelName, { room, each, forMs }: Room): Promise<Taken[]> {
  return db.transaction().execute(async (trx) => {
    await sql`SELECT pg_advisory_xact_lock(hashtext(${`halligan deliveries ${channel}`}))`.execute(trx);
    // Only in Slack does anything follow a card.
    if (channel === 'slack')
      await sql`
      UPDATE delivery d SET state = 'dropped', next_try_at = NULL, last_error = 'overtaken, or its card was never sent'
      WHERE d.state = 'waiting' AND d.channel = ${channel} AND d.form <> 'card' AND (d.sending_until IS NULL OR d.sending_until < now())
        AND (EXISTS (SELECT FROM delivery c WHERE c.id = d.card_id AND c.state IN ('failed', 'dropped'))
          OR d.form = 'update' AND EXISTS (SELECT FROM delivery o WHERE o.card_id = d.card_id AND o.form = 'update' AND o.state = 'waiting'
            AND o.notice_id > d.notice_id AND (o.sending_until IS NULL OR o.sending_until < now())))`.execute(trx);
    const { rows } = await sql<Taken>`
      WITH due AS (
        SELECT d.id, d.notice_id, d.form, c.ref, row_number() OVER (PARTITION BY d.address ORDER BY d.form <> 'card', d.notice_id, d.id)
          + (SELECT count(*) FROM delivery o WHERE o.channel = ${channel} AND o.address = d.address AND o.state = 'waiting' AND o.sending_until > now()) AS place
        FROM delivery d LEFT JOIN delivery c ON c.id = d.card_id
        WHERE d.state = 'waiting' AND d.channel = ${channel} AND d.next_try_at <= now() AND (d.sending_until IS NULL OR d.sending_until < now())
          AND (d.card_id IS NULL OR c.state = 'sent' AND NOT EXISTS (
            SELECT FROM delivery o WHERE o.card_id = d.card_id AND o.state = 'waiting' AND ((o.notice_id, o.id) < (d.notice_id, d.id) OR o.sending_until > now())))
      ), taken AS (SELECT * FROM due WHERE place <= ${each} ORDER BY form <> 'card', notice_id, id LIMIT ${room})
      UPDATE delivery u SET tries = u.tries + 1, sending_until = now() + make_interval(secs => ${forMs / 1_000})
      FROM taken WHERE u.id = taken.id
      RETURNING u.id, u.channel, u.form, u.address, u.person_id AS "personId", taken.ref AS "cardRef", u.tries - 1 AS tries, u.notice_id AS "noticeId", u.request_id AS "requestId",
        extract(epoch FROM now() - u.created_at)::float * 1000 AS "ageMs"`.execute(trx);
    return rows;
  });
}

/** It was taken; `ref` is what the other side calls it. */
export async function markSent(db: Db, id: string, ref: Json | undefined): Promise<void> {
  await db
    .updateTable('delivery')
    .set({
      state: 'sent',
      sent_at: sql<Date>`now()`,
      next_try_at: null,
      sending_until: null,
      last_error: null,
      ref: ref === undefined ? null : JSON.stringify(ref),
    })
    .where('id', '=', id)
    .where('state', '=', 'waiting')
    .execute();
}

/** It was not taken: tried again after `waitMs` milliseconds, or never when that is null. */
export async function markFailed(db: Db, id: string, why: string, waitMs: number | null): Promise<void> {
  await db
    .updateTable('delivery')
    .set({
      last_error: why.toWellFormed().replaceAll('\0', '').slice(0, 500),
      sending_until: null,
      ...(waitMs === null ? { state: 'failed', next_try_at: null } : { next_try_at: sql<Date>`now() + make_interval(secs => ${waitMs / 1_000})` }),
    })
    .where('id', '=', id)
    .where('state', '=', 'waiting')
    .execute();
}

/** It says nothing that is still true, and is not sent. */
export async function drop(db: Db, id: string, why: string): Promise<void> {
  await db
    .updateTable('delivery')
    .set({ state: 'dropped', last_error: why, sending_until: null, next_try_at: null })
    .where('id', '=', id)
    .where('state', '=', 'waiting')
    .execute();
}

/** What waits for a channel that this config does not set up any more fails, so that the page does not say that it waits. */
export async function failOrphans(db: Db, channels: readonly ChannelName[]): Promise<void> {
  await db
    .updateTable('delivery')
    .set({ state: 'failed', next_try_at: null, sending_until: null, last_error: 'this way of telling is no longer in the config' })
    .where('state', '=', 'waiting')
    .$if(channels.length > 0, (query) => query.where('channel', 'not in', channels))
    .execute();
}

const keepDays = 30;
const pruneAtOnce = 200;

/**
 * Deletes what was told of requests about which nothing was new for thirty days: all of it spread, all of it finished. At most
 * 200 requests at once; returns how many.
 */
export async function pruneTold(db: Db): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ id: string }>`
      SELECT DISTINCT n.request_id AS id FROM notice n
      WHERE n.created_at < now() - make_interval(days => ${keepDays})
        AND NOT EXISTS (SELECT FROM notice o WHERE o.request_id = n.request_id AND (o.spread_at IS NULL OR greatest(o.created_at, o.due_at) > now() - make_interval(days => ${keepDays})))
        AND NOT EXISTS (SELECT FROM delivery d WHERE d.request_id = n.request_id AND (d.state = 'waiting' OR d.sent_at > now() - make_interval(days => ${keepDays})))
      LIMIT ${pruneAtOnce}`.execute(trx);
    const ids = rows.map((row) => row.id);
    if (ids.length === 0) return 0;
    await trx.deleteFrom('delivery').where('request_id', 'in', ids).execute();
    await trx.deleteFrom('notice').where('request_id', 'in', ids).execute();
    return ids.length;
  });
}
