/**
 * Sends what is due, each channel in a lane of its own: at least once, in order for what follows one card, again later when
 * it fails. A row is marked before the call, so that a crash repeats it and two processes do not. These rows change outside
 * commit(): they are to messages what the outbox is to jobs, and what they tell of has its witness already.
 */
import { sql } from 'kysely';
import type { Logger } from 'pino';
import type { Db } from '../db/pool.ts';
import type { Json } from '../domain/canonical.ts';
import type { Channel, ChannelName, Delivery, Story } from './channel.ts';
import { DeliveryFault } from './channel.ts';

export interface LaneParts {
  readonly db: Db;
  readonly log: Logger;
  readonly channel: Channel;
  /** The story of a notice as it stands now. */
  readonly storyOf: (noticeId: string) => Promise<Story | undefined>;
}

export interface Lane {
  readonly name: ChannelName;
  /** Sends what is due, as many at once as the channel may; does not wait for them. */
  pump(): void;
  /** What the channel last said, when it does not work; null when it does. */
  trouble(): string | null;
  /** Takes no more, and waits for what is being sent. */
  stop(): Promise<void>;
}

export const sendDeadlineMs = 10_000;
const atOnce = 4;
const giveUpAfterMs = 24 * 3_600_000;
const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;
/** The schedule that Standard Webhooks recommends, counted from each failure. */
const webhookWaits = [5 * second, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour];

interface Taken extends Delivery {
  readonly noticeId: string;
  readonly createdAt: Date;
}

/** One lane. Nothing is sent before `pump`. */
export function sendingLane({ db, log, channel, storyOf }: LaneParts): Lane {
  const running = new Set<Promise<void>>();
  let stopped = false;
  let claiming: Promise<void> | undefined;
  let again = false;
  let pausedUntil = 0;
  let trouble: string | null = null;

  const tell = (fault: string | null): void => {
    if (fault !== null && trouble === null)
      log.warn({ code: 'notify_failing', channel: channel.name, why: fault }, `messages by ${channel.name} fail; they are tried again`);
    if (fault === null && trouble !== null) log.info({ code: 'notify_mended', channel: channel.name }, `messages by ${channel.name} go out again`);
    trouble = fault;
  };

  const sendOne = async (delivery: Taken): Promise<void> => {
    const signal = AbortSignal.timeout(sendDeadlineMs);
    try {
      const story = await storyOf(delivery.noticeId);
      if (!story) throw new DeliveryFault('what it tells of is gone', { final: true });
      const { ref } = await channel.send(delivery, story, signal);
      await sent(db, delivery.id, ref);
      tell(null);
    } catch (error) {
      const fault = error instanceof DeliveryFault ? error : new DeliveryFault(error instanceof Error ? error.message : String(error));
      if (fault.pause && fault.retryAt) pausedUntil = Math.max(pausedUntil, fault.retryAt.getTime());
      // A place that is gone says nothing about the channel; being asked to slow down is no trouble.
      if (!fault.final && !fault.pause) tell(fault.message);
      await failed(db, channel.name, delivery, fault);
    }
  };

  const claim = async (): Promise<void> => {
    do {
      again = false;
      const room = atOnce - running.size;
      if (stopped || room <= 0 || Date.now() < pausedUntil) return;
      const taken = await take(db, channel.name, room);
      for (const delivery of taken) {
        const one = sendOne(delivery)
          .catch((error: unknown) =>
            log.error({ code: 'notify_not_recorded', delivery: delivery.id, why: (error as Error).message }, 'what became of a message was not recorded'),
          )
          .finally(() => {
            running.delete(one);
            pump();
          });
        running.add(one);
      }
      if (taken.length === room) again = true;
    } while (again);
  };

  const pump = (): void => {
    again = true;
    if (stopped || claiming !== undefined) return;
    claiming = claim()
      .catch((error: unknown) => log.debug({ code: 'notify_claim_failed', why: (error as Error).message }, 'messages could not be read; the next round does'))
      .finally(() => {
        claiming = undefined;
      });
  };

  return {
    name: channel.name,
    pump,
    trouble: () => trouble,
    async stop() {
      stopped = true;
      await claiming;
      await Promise.allSettled(running);
      await channel.close?.();
    },
  };
}

/**
 * Marks and returns what is due. What follows a card waits until the card is out, and for what came before it; a rewriting that a
 * later one overtakes is dropped, because the later one says all.
 */
async function take(db: Db, channel: ChannelName, limit: number): Promise<Taken[]> {
  return db.transaction().execute(async (trx) => {
    await sql`SELECT pg_advisory_xact_lock(hashtext(${`halligan deliveries ${channel}`}))`.execute(trx);
    await sql`
      UPDATE delivery d SET state = 'dropped', next_try_at = NULL, last_error = 'overtaken' WHERE d.state = 'waiting' AND d.channel = ${channel} AND d.form <> 'card'
        AND (d.sending_until IS NULL OR d.sending_until < now())
        AND (EXISTS (SELECT FROM delivery c WHERE c.id = d.card_id AND c.state IN ('failed', 'dropped'))
          OR d.form = 'update' AND EXISTS (SELECT FROM delivery o WHERE o.card_id = d.card_id AND o.form = 'update' AND o.state = 'waiting' AND o.notice_id > d.notice_id))`.execute(
      trx,
    );
    const { rows } = await sql<Taken>`
      UPDATE delivery u SET tries = tries + 1, sending_until = now() + make_interval(secs => ${sendDeadlineMs / 1_000 + 10})
      FROM (
        SELECT d.id FROM delivery d LEFT JOIN delivery c ON c.id = d.card_id
        WHERE d.state = 'waiting' AND d.channel = ${channel} AND d.next_try_at <= now() AND (d.sending_until IS NULL OR d.sending_until < now())
          AND (d.card_id IS NULL OR c.state = 'sent' AND NOT EXISTS (
            SELECT FROM delivery o WHERE o.card_id = d.card_id AND o.state = 'waiting' AND ((o.notice_id, o.id) < (d.notice_id, d.id) OR o.sending_until > now())))
        ORDER BY d.notice_id, d.id LIMIT ${limit}
      ) due LEFT JOIN LATERAL (SELECT c.ref FROM delivery d JOIN delivery c ON c.id = d.card_id WHERE d.id = due.id) card ON true
      WHERE u.id = due.id
      RETURNING u.id, u.channel, u.form, u.address, u.person_id AS "personId", card.ref AS "cardRef", u.tries - 1 AS tries, u.notice_id AS "noticeId", u.created_at AS "createdAt"`.execute(
      trx,
    );
    return rows;
  });
}

async function sent(db: Db, id: string, ref: Json | undefined): Promise<void> {
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

async function failed(db: Db, channel: ChannelName, delivery: Taken, fault: DeliveryFault): Promise<void> {
  const wait = waitOf(channel, delivery, fault);
  await db
    .updateTable('delivery')
    .set({
      last_error: fault.message.slice(0, 500),
      sending_until: null,
      ...(wait === null ? { state: 'failed', next_try_at: null } : { next_try_at: sql<Date>`now() + make_interval(secs => ${wait / 1_000})` }),
    })
    .where('id', '=', delivery.id)
    .where('state', '=', 'waiting')
    .execute();
}

/** Milliseconds until the next try; null when there is none. A wait that the other side asked for counts as it is, at most an hour. */
function waitOf(channel: ChannelName, delivery: Taken, fault: DeliveryFault): number | null {
  if (fault.final) return null;
  if (fault.retryAt) return Math.min(hour, Math.max(second, fault.retryAt.getTime() - Date.now()));
  if (channel === 'webhook') {
    const planned = webhookWaits[delivery.tries];
    return planned === undefined ? null : planned * (1 + Math.random() / 10);
  }
  if (Date.now() - delivery.createdAt.getTime() > giveUpAfterMs) return null;
  return Math.min(15 * minute, 2 * second * 2 ** Math.min(delivery.tries, 10)) * (0.75 + Math.random() / 2);
}
