/** Who was told of a request, and who could not be. */
import { sql } from 'kysely';
import { Refusal } from '../../domain/errors.ts';
import type { NoticeType } from '../../domain/notice.ts';
import { isOneOf } from '../../domain/policy.ts';
import type { Db } from '../pool.ts';
import type { PersonRef } from './requests.ts';
import { maySee, type Readers, type Viewer } from './viewer.ts';

export interface DeliveryView {
  readonly id: string;
  readonly channel: 'slack' | 'email' | 'webhook';
  /** The place in words; a mail address is shortened for all but admins. */
  readonly to: string;
  /** Whom it is for, where that is one person. */
  readonly person: PersonRef | null;
  /** What it tells. */
  readonly about: NoticeType;
  readonly state: 'waiting' | 'sent' | 'failed';
  /** When it was sent; else when it was made. */
  readonly at: Date;
  readonly tries: number;
  readonly nextTryAt: Date | null;
  /** Why the last try failed. */
  readonly why: string | null;
  /** The viewer may have it sent again. */
  readonly repeatable: boolean;
}

export interface ToldView {
  readonly items: readonly DeliveryView[];
  /** Nothing that has happened still waits to be made into messages. */
  readonly spread: boolean;
  /** When the next people are told, if nobody decides before. */
  readonly nextAt: Date | null;
  readonly readAt: Date;
}

/** The messages about one request, in the order in which they were made. Throws `not_found` for a request that is not there or not theirs to see. */
export async function toldOf(db: Db, readers: Readers, viewer: Viewer, requestId: string): Promise<ToldView> {
  const request = await db
    .selectFrom('request')
    .select(['request.id', 'request.state', sql<Date>`now()`.as('read_at')])
    .where('request.id', '=', requestId)
    .where(maySee(readers, viewer))
    .executeTakeFirst();
  if (!request) throw new Refusal('not_found', `There is no request ${requestId}, or it is not yours to see.`);
  const [rows, notices] = await Promise.all([
    cards(db, requestId),
    db.selectFrom('notice').select(['type', 'step', 'due_at']).where('request_id', '=', requestId).where('spread_at', 'is', null).orderBy('due_at').execute(),
  ]);
  const admin = isOneOf(readers.admins, viewer);
  const next = request.state === 'pending' ? notices.find((notice) => notice.type === 'request.submitted' && notice.step > 0) : undefined;
  return {
    items: rows.map((row) => viewOf(row, admin)),
    spread: !notices.some((notice) => notice.due_at <= request.read_at),
    nextAt: next?.due_at ?? null,
    readAt: request.read_at,
  };
}

const cards = (db: Db, requestId: string) =>
  db
    .selectFrom('delivery')
    .innerJoin('notice', 'notice.id', 'delivery.notice_id')
    .leftJoin('person', 'person.id', 'delivery.person_id')
    .selectAll('delivery')
    .select(['notice.type', 'person.name'])
    .where('delivery.request_id', '=', requestId)
    .where('delivery.form', '=', 'card')
    .where('delivery.state', '<>', 'dropped')
    .orderBy('delivery.notice_id')
    .orderBy('delivery.id')
    .limit(1_000)
    .execute();

function viewOf(row: Awaited<ReturnType<typeof cards>>[number], admin: boolean): DeliveryView {
  return {
    id: row.id,
    channel: row.channel,
    to: placeInWords(row, admin),
    person: row.person_id ? { id: row.person_id, name: row.name ?? '' } : null,
    about: row.type,
    state: row.state === 'sent' || row.state === 'failed' ? row.state : 'waiting',
    at: row.sent_at ?? row.created_at,
    tries: row.tries,
    nextTryAt: row.next_try_at,
    why: row.last_error,
    repeatable: admin && isRepeatable(row),
  };
}

/** Only webhooks are sent again by hand, and only when nothing is under way: people would be told twice. */
export const isRepeatable = ({ channel, state }: { readonly channel: string; readonly state: string }): boolean =>
  channel === 'webhook' && (state === 'failed' || state === 'sent');

function placeInWords(
  { channel, address, person_id, name }: { channel: string; address: string; person_id: string | null; name: string | null },
  admin: boolean,
): string {
  if (channel === 'webhook') return `webhook ${address}`;
  if (channel === 'slack') return person_id ? `${name ?? ''} in Slack` : `Slack ${/^[CG]/.test(address) ? 'channel' : 'user'} ${address}`;
  // Who has no address stands there by their id.
  const mail = address.includes('@') ? (admin ? address : shortened(address)) : undefined;
  return person_id ? `${name ?? ''} by mail${mail ? ` (${mail})` : ''}` : `${mail ?? address} by mail`;
}

/** `o…@example.com`. */
const shortened = (address: string): string => `${[...address][0] ?? ''}…${address.slice(address.lastIndexOf('@'))}`;
