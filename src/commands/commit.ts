/**
 * The only code that changes state. A command reads and locks what it needs through `tx.sql`, writes rows by
 * compare-and-set, and says what must be witnessed (`tx.witness`) and what must happen outside (`tx.send`). The
 * events and outbox rows are inserted last, in one statement, and all of it commits together or not at all.
 * No network call belongs in here.
 */
import { type Insertable, sql, type Transaction } from 'kysely';
import { prepared } from '../db/pool.ts';
import type { NoticeTable, Schema } from '../db/schema.ts';
import { type AuditActor, type AuditEvent, auditLine } from '../domain/audit-event.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { failpoint } from '../domain/failpoint.ts';
import { newId } from '../domain/ids.ts';
import { isTold } from '../domain/notice.ts';
import type { Ctx, PersonActor } from './context.ts';

/** A duty of Halligan itself, by the name of its worker. */
export type SystemActor = { readonly system: string };
export type Actor = PersonActor | SystemActor;

export type OutboxTopic = 'grant-due' | 'revoke-lease';
export interface OutboxMessage {
  readonly topic: OutboxTopic;
  /** Ids and an epoch, and when it is due; nothing else. */
  readonly payload: { readonly id: string; readonly epoch: number; readonly dueAt: string; readonly target?: string };
}

export interface Tx {
  readonly sql: Transaction<Schema>;
  /** The one clock: Postgres' own time at the start of this transaction. */
  readonly now: Date;
  /** Halligan is in quarantine: nothing may be opened (quarantine.ts). */
  readonly quarantined: boolean;
  witness(event: Omit<AuditEvent, 'actor'>): void;
  send(message: OutboxMessage): void;
}

/** The actor as an event names it. */
export const auditActor = (actor: Actor): AuditActor => ('system' in actor ? { system: actor.system } : { id: actor.id, name: actor.name, via: actor.via });

/**
 * Runs `body` in one transaction. A `Refusal` rolls everything back and is thrown on; with `refused`, the refusal
 * itself is then witnessed in a transaction of its own. Deadlocks and serialization failures are run again, at most
 * three times. A broken constraint becomes the refusal of the rule that it is named after.
 */
export async function commit<T>(
  ctx: Pick<Ctx, 'db' | 'log' | 'nudge' | 'tells' | 'observe'>,
  actor: Actor,
  body: (tx: Tx) => Promise<T>,
  refused?: (refusal: Refusal) => Omit<AuditEvent, 'actor'>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(ctx, actor, body);
    } catch (error) {
      const refusal = asRefusal(error);
      if (refusal === 'again' && attempt < 4) continue;
      const known = refusal === 'again' ? new Refusal('conflict') : refusal;
      if (known && refused) {
        const event = refused(known);
        await once(ctx, actor, async (tx) => tx.witness({ ...event, data: { ...event.data, code: known.code } }));
      }
      throw known ?? error;
    }
  }
}

const begin = sql.raw("SELECT date_trunc('milliseconds', now()) AS now, EXISTS (SELECT FROM quarantine WHERE lifted_at IS NULL) AS quarantined");

async function once<T>(ctx: Pick<Ctx, 'db' | 'log' | 'nudge' | 'tells' | 'observe'>, actor: Actor, body: (tx: Tx) => Promise<T>): Promise<T> {
  const events: AuditEvent[] = [];
  const messages: OutboxMessage[] = [];
  const result = await ctx.db.transaction().execute(async (trx) => {
    const { rows } = await sql<Pick<Tx, 'now' | 'quarantined'>>`${begin}`.execute(trx);
    const { now, quarantined } = rows[0] as Pick<Tx, 'now' | 'quarantined'>;
    const value = await body({
      sql: trx,
      now,
      quarantined,
      witness: (event) => void events.push({ ...event, actor: auditActor(actor) }),
      send: (message) => void messages.push(message),
    });
    await writeDown(trx, now, events, messages, ctx.tells ? events.flatMap(noticeOf) : []);
    await failpoint('commit.before');
    return value;
  });
  await failpoint('commit.done');
  ctx.observe?.({ what: 'events', events });
  const requests = [...new Set(events.flatMap((event) => event.request ?? []))];
  if (messages.length > 0 || requests.length > 0) ctx.nudge({ outbox: messages.length > 0, requests });
  return result;
}

type NewNotice = Pick<Insertable<NoticeTable>, 'type' | 'request_id' | 'grant_id' | 'lease_id'>;

/** What people are told of is written down with it: a message that must be sent is never lost, and none is sent of what did not happen. */
const noticeOf = ({ type, request, grant, lease }: AuditEvent): NewNotice[] =>
  request && isTold(type) ? [{ type, request_id: request, grant_id: grant ?? null, lease_id: lease ?? null }] : [];

/** A statement of so many events and messages is likely to come again, and is kept on its connection; there would be too many of the longer ones. */
const mostPrepared = 8;

/** Inserts the notices, the events and the outbox rows; the last two in one round trip, and in a statement that is as plain as it can be. */
async function writeDown(trx: Transaction<Schema>, now: Date, events: AuditEvent[], messages: OutboxMessage[], notices: NewNotice[]): Promise<void> {
  if (events.length === 0 && messages.length === 0) return;
  if (notices.length > 0) {
    // In one transaction the ids rise in the order of the events: what came first is told first.
    const ids = notices.map(() => newId('notice', now.getTime())).sort();
    await trx
      .insertInto('notice')
      .values(notices.map((notice, index) => ({ ...notice, id: ids[index] ?? '' })))
      .execute();
  }
  // In one transaction the ids rise in the order of the events, so that lists by id read like the story.
  const ids = events.map(() => newId('event', now.getTime())).sort();
  const rows = events.map((event, index) => {
    const id = ids[index] ?? '';
    const actor = 'id' in event.actor ? event.actor.id : null;
    const about = [event.person ?? actor, event.request ?? null, event.grant ?? null, event.lease ?? null, event.incident ?? null];
    return sql`(${sql.join([id, now, event.type, actor, ...about, [...(event.entitlements ?? [])], auditLine(id, now, event)])})`;
  });
  const shape = sql.raw(events.length + messages.length <= mostPrepared ? prepared(`witness_${events.length}_${messages.length}`) : '');
  const insertEvents = sql`INSERT INTO audit_event (id, at, type, actor_id, person_id, request_id, grant_id, lease_id, incident, entitlements, line) VALUES ${sql.join(rows)}`;
  if (messages.length === 0) return void (await sql`${shape} ${insertEvents}`.execute(trx));
  const insertOutbox = sql`INSERT INTO outbox (topic, payload) VALUES ${sql.join(messages.map(({ topic, payload }) => sql`(${topic}, ${JSON.stringify(payload)})`))}`;
  await sql`${shape} WITH ${events.length > 0 ? sql`events AS (${insertEvents})` : sql`events AS (SELECT)`} ${insertOutbox}`.execute(trx);
}

/** What the database's "no" means, by the name of the constraint that said it. */
const constraintRefusals: Record<string, Refusal> = {
  decision_never_by_requester: new Refusal('self_decision'),
  decision_once_per_person: new Refusal('decision_repeated'),
  lease_one_live_per_entitlement: new Refusal('lease_conflict', 'Another claim for the same entitlement is under way.', {
    next: 'Wait a few seconds and claim again.',
  }),
  review_never_by_holder: new Refusal('reviewer_not_allowed'),
  idempotency_key_once: new Refusal('conflict', 'The same Idempotency-Key is being used at this moment.', { next: 'Send it again.' }),
  grant_ended_only_when_leases_are_gone: new Refusal('conflict'),
};

function asRefusal(error: unknown): Refusal | 'again' | undefined {
  if (isRefusal(error)) return error;
  const { code, constraint } = (error ?? {}) as { code?: string; constraint?: string };
  if (code === '40001' || code === '40P01') return 'again';
  if (constraint && constraintRefusals[constraint]) return constraintRefusals[constraint];
  return undefined;
}

/** For compare-and-set updates: one row must have changed. */
export function assertChanged(result: { numUpdatedRows: bigint } | undefined): void {
  if (result?.numUpdatedRows !== 1n) throw new Refusal('conflict');
}
