/**
 * From what happened to the messages about it: each due notice becomes deliveries, once, in the transaction that marks it.
 * One process spreads at a time, oldest first, so that a card is there before what follows it. Nothing is sent here.
 */
import { type Insertable, type Selectable, sql, type Transaction } from 'kysely';
import type { Logger } from 'pino';
import type { Db } from '../db/pool.ts';
import type { DeliveryTable, NoticeTable, Schema } from '../db/schema.ts';
import { newId } from '../domain/ids.ts';
import { type NoticeType, type RouteStep, remindBeforeSeconds } from '../domain/notice.ts';
import { type Asked, holderPlaces, ladderOf, type Place, placesOf } from './places.ts';

export interface SpreadParts {
  readonly db: Db;
  readonly log: Logger;
  readonly routes: ReadonlyMap<string, readonly RouteStep[]>;
  /** The Slack workspace, where Slack is set up. */
  readonly workspace: string | undefined;
  /** Mail is set up. */
  readonly mail: boolean;
}

const batch = 100;
/** A reminder that comes this much too early, because the end was moved, waits for its time again. */
const slackSeconds = 30;

type Notice = Selectable<NoticeTable>;
type Request = Asked & { readonly state: string; readonly break_glass: boolean; readonly in_time: boolean };

/** Spreads what is due, at most 100 notices; returns how many it took. None when another process is at it. */
export async function spreadNotices(parts: SpreadParts): Promise<number> {
  try {
    return await spreadBatch(parts, spreadOne);
  } catch (error) {
    parts.log.debug({ code: 'spread_failed', why: (error as Error).message }, 'one of the notices could not be spread; each is tried by itself');
    return spreadBatch(parts, spreadAlone);
  }
}

type SpreadEach = (parts: SpreadParts, trx: Transaction<Schema>, notice: Notice) => Promise<unknown>;

async function spreadBatch(parts: SpreadParts, spreadEach: SpreadEach): Promise<number> {
  return parts.db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ mine: boolean }>`SELECT pg_try_advisory_xact_lock(hashtext('halligan spread notices')) AS mine`.execute(trx);
    if (!rows[0]?.mine) return 0;
    const notices = await trx
      .selectFrom('notice')
      .selectAll()
      .where('spread_at', 'is', null)
      .where('due_at', '<=', sql<Date>`now()`)
      .orderBy('id')
      .limit(batch)
      .execute();
    if (notices.length === 0) return 0;
    const putOff = new Set<string>();
    for (const notice of notices) if ((await spreadEach(parts, trx, notice)) === 'put off') putOff.add(notice.id);
    const done = notices.map((notice) => notice.id).filter((id) => !putOff.has(id));
    if (done.length > 0) await trx.updateTable('notice').set({ spread_at: sql<Date>`now()` }).where('id', 'in', done).execute();
    return notices.length;
  });
}

/** One that cannot be spread keeps nobody else waiting: it is put off for a minute, and said in the log. */
async function spreadAlone(parts: SpreadParts, trx: Transaction<Schema>, notice: Notice): Promise<'put off' | undefined> {
  await sql`SAVEPOINT one_notice`.execute(trx);
  try {
    await spreadOne(parts, trx, notice);
    await sql`RELEASE SAVEPOINT one_notice`.execute(trx);
    return undefined;
  } catch (error) {
    parts.log.error(
      { code: 'notice_not_spread', notice: notice.id, type: notice.type, why: (error as Error).message },
      'nobody could be told of something yet',
    );
    await sql`ROLLBACK TO SAVEPOINT one_notice`.execute(trx);
    await trx.updateTable('notice').set({ due_at: sql<Date>`now() + interval '1 minute'` }).where('id', '=', notice.id).execute();
    return 'put off';
  }
}

async function spreadOne(parts: SpreadParts, trx: Transaction<Schema>, notice: Notice): Promise<void> {
  const request = await trx
    .selectFrom('request')
    .select(['id', 'person_id', 'state', 'break_glass', 'entitlements', 'policy', sql<boolean>`lapses_at > now()`.as('in_time')])
    .select(['approver_groups', 'approver_subjects', 'reviewer_groups', 'reviewer_subjects'])
    .where('id', '=', notice.request_id)
    .executeTakeFirstOrThrow();
  if (notice.type === 'request.submitted') return ask(parts, trx, notice, request);
  if (notice.type === 'grant.ends-soon') return remind(parts, trx, notice, request);
  if (notice.type === 'request.glass-broken') {
    const steps = ladderOf(parts.routes, request.entitlements).flatMap((rung) => rung.steps);
    await cards(trx, notice, await placesOf(trx, parts.workspace, request, steps, true));
  } else await follow(parts, trx, notice, request);
  if (notice.type === 'request.approved' || notice.type === 'request.glass-broken' || notice.type === 'grant.started') await planReminders(trx, notice);
}

/** A rung of the ladder, when the request still waits; with the first one the later ones get their time. */
async function ask(parts: SpreadParts, trx: Transaction<Schema>, notice: Notice, request: Request): Promise<void> {
  if (request.state !== 'pending' || !request.in_time) return;
  const ladder = ladderOf(parts.routes, request.entitlements);
  // Step 0 is the request itself, whether or not anybody is told at once; the ladder's rungs with a time are 1, 2, …
  const now =
    notice.step === 0 ? ladder.filter((rung) => rung.afterSeconds === 0) : ladder.filter((rung) => rung.afterSeconds > 0).slice(notice.step - 1, notice.step);
  await cards(
    trx,
    notice,
    await placesOf(
      trx,
      parts.workspace,
      request,
      now.flatMap((rung) => rung.steps),
      false,
    ),
  );
  if (notice.step > 0) return;
  const later = ladder.filter((rung) => rung.afterSeconds > 0);
  if (later.length > 0)
    await trx
      .insertInto('notice')
      .values(
        later.map((rung, index) => ({
          id: newId('notice'),
          type: notice.type,
          request_id: notice.request_id,
          step: index + 1,
          due_at: new Date(notice.created_at.getTime() + rung.afterSeconds * 1_000),
        })),
      )
      .execute();
}

/** A card in each place that has none of this request yet. */
async function cards(trx: Transaction<Schema>, notice: Notice, places: readonly Place[]): Promise<void> {
  const told = await trx.selectFrom('delivery').select(['channel', 'address']).where('request_id', '=', notice.request_id).where('form', '=', 'card').execute();
  await put(
    trx,
    places.filter((place) => !told.some((one) => one.channel === place.channel && one.address === place.address)).map((place) => cardOf(notice, place)),
  );
}

type NewDelivery = Insertable<DeliveryTable>;

const cardOf = (notice: Notice, { channel, address, personId, unreachable }: Place): NewDelivery => ({
  ...deliveryOf(notice, { channel, address, person_id: personId }),
  form: 'card',
  ...(unreachable === null ? {} : { state: 'failed', next_try_at: null, last_error: unreachable }),
});

const deliveryOf = (notice: Notice, to: Pick<NewDelivery, 'channel' | 'address' | 'person_id'>): Omit<NewDelivery, 'form'> => ({
  ...to,
  id: newId('delivery'),
  notice_id: notice.id,
  request_id: notice.request_id,
  state: 'waiting',
  next_try_at: sql<Date>`now()` as unknown as Date,
});

async function put(trx: Transaction<Schema>, deliveries: readonly NewDelivery[]): Promise<void> {
  if (deliveries.length === 0) return;
  // The ids rise in the order of the places, so that lists by id read like the config.
  const ids = deliveries.map(({ id }) => id).sort();
  await trx
    .insertInto('delivery')
    .values(deliveries.map((delivery, index) => ({ ...delivery, id: ids[index] ?? delivery.id })))
    .onConflict((conflict) => conflict.constraint('delivery_once').doNothing())
    .execute();
}

/** What changes how a card reads. */
const rewrites: readonly NoticeType[] = [
  'request.approval-given',
  'request.approved',
  'request.denied',
  'request.withdrawn',
  'request.lapsed',
  'grant.started',
  'grant.expired',
  'grant.returned',
  'grant.revoked',
  'grant.offboarded',
  'grant.incident-closed',
  'grant.ended',
  'review.closed',
];
/** What the thread under a channel's card tells. */
const replies: readonly NoticeType[] = [
  'lease.revealed',
  'grant.returned',
  'grant.revoked',
  'grant.offboarded',
  'grant.incident-closed',
  'lease.revoked',
  'lease.revocation-failed',
  'review.due',
  'review.closed',
];
/** What its holder is told of, when it was not their own doing. */
const toHolder: readonly NoticeType[] = ['request.approved', 'request.denied', 'request.lapsed', 'grant.revoked', 'grant.incident-closed', 'grant.offboarded'];

/** What came after: cards are written again, threads go on, webhooks that know the request hear of it, the holder is told. */
async function follow(parts: SpreadParts, trx: Transaction<Schema>, notice: Notice, request: Request): Promise<void> {
  if (notice.type === 'lease.revocation-failed' && (await wasTold(trx, notice))) return;
  const told = await trx
    .selectFrom('delivery')
    .select(['id', 'channel', 'address', 'person_id', 'notice_id'])
    .where('request_id', '=', notice.request_id)
    .where('form', '=', 'card')
    .where('state', 'in', ['waiting', 'sent'])
    .execute();
  const made: NewDelivery[] = [];
  const again = new Set<string>();
  for (const card of told) {
    const to = { channel: card.channel, address: card.address, person_id: card.person_id };
    if (again.has(`${card.channel} ${card.address}`)) continue;
    again.add(`${card.channel} ${card.address}`);
    if (card.channel === 'webhook') made.push({ ...deliveryOf(notice, to), form: 'card' });
    if (card.channel !== 'slack' || card.person_id === request.person_id) continue;
    if (rewrites.includes(notice.type)) made.push({ ...deliveryOf(notice, to), form: 'update', card_id: card.id });
    if (replies.includes(notice.type) && isChannel(card.address)) made.push({ ...deliveryOf(notice, to), form: 'reply', card_id: card.id });
  }
  if (toHolder.includes(notice.type))
    for (const place of await holderPlaces(trx, { workspace: parts.workspace, mail: parts.mail }, request.person_id)) made.push(cardOf(notice, place));
  await put(trx, made);
}

/** Channels have threads that others read; a direct message tells its one reader by being written again. */
const isChannel = (address: string): boolean => /^[CG]/.test(address);

async function wasTold(trx: Transaction<Schema>, notice: Notice): Promise<boolean> {
  const earlier = await trx
    .selectFrom('notice')
    .select('id')
    .where('request_id', '=', notice.request_id)
    .where('type', '=', notice.type)
    .where('lease_id', '=', notice.lease_id)
    .where('id', '<', notice.id)
    .limit(1)
    .executeTakeFirst();
  return earlier !== undefined;
}

/** Ten and two minutes before the end of a grant that lasts longer than that. */
async function planReminders(trx: Transaction<Schema>, notice: Notice): Promise<void> {
  const grant = await trx.selectFrom('access_grant').selectAll().where('request_id', '=', notice.request_id).executeTakeFirst();
  if (!grant) return;
  const planned = await trx.selectFrom('notice').select('step').where('request_id', '=', notice.request_id).where('type', '=', 'grant.ends-soon').execute();
  for (const seconds of remindBeforeSeconds) {
    const dueAt = new Date(grant.ends_at.getTime() - seconds * 1_000);
    if (dueAt <= grant.starts_at || planned.some(({ step }) => step === seconds)) continue;
    const row = { id: newId('notice'), type: 'grant.ends-soon' as const, request_id: notice.request_id, grant_id: grant.id, step: seconds, due_at: dueAt };
    await trx.insertInto('notice').values(row).execute();
  }
}

/** To the holder, when the grant is still open and really ends soon. One that comes so late that the next is due leaves it to that. */
async function remind(parts: SpreadParts, trx: Transaction<Schema>, notice: Notice, request: Request): Promise<void> {
  const grant = await trx
    .selectFrom('access_grant')
    .select(['id', 'ends_at'])
    .select(sql<number>`extract(epoch FROM ends_at - now())::float`.as('left'))
    .where('request_id', '=', notice.request_id)
    .where('state', '=', 'active')
    .where('ends_at', '>', sql<Date>`now()`)
    .executeTakeFirst();
  if (!grant) return;
  if (grant.left > notice.step + slackSeconds) {
    const dueAt = new Date(grant.ends_at.getTime() - notice.step * 1_000);
    const row = { id: newId('notice'), type: notice.type, request_id: notice.request_id, grant_id: grant.id, step: notice.step, due_at: dueAt };
    return void (await trx.insertInto('notice').values(row).execute());
  }
  if (remindBeforeSeconds.some((seconds) => seconds < notice.step && grant.left <= seconds)) return;
  const places = await holderPlaces(trx, { workspace: parts.workspace, mail: parts.mail }, request.person_id);
  await put(
    trx,
    places.map((place) => cardOf(notice, place)),
  );
}
