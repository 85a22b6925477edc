/** Reviews of break-glass use. */
import { sql } from 'kysely';
import { Refusal } from '../../domain/errors.ts';
import type { ReviewState, Verdict } from '../../domain/lifecycle.ts';
import { isOneOf } from '../../domain/policy.ts';
import type { Db } from '../pool.ts';
import { type Page, pageOf, pageSize, readCursor } from './page.ts';
import { countsFor, maySee, type Readers, type Viewer } from './viewer.ts';

export interface ReviewView {
  readonly id: string;
  readonly grantId: string;
  readonly requestId: string;
  readonly person: { readonly id: string; readonly name: string };
  readonly entitlements: readonly string[];
  readonly reason: string;
  readonly incident: string | null;
  readonly state: ReviewState;
  readonly dueAt: Date;
  readonly overdue: boolean;
  readonly grantEndedAt: Date | null;
  /** The grant is over, and the viewer may close it. */
  readonly mayClose: boolean;
  readonly closedBy: { readonly id: string; readonly name: string } | null;
  readonly closedAt: Date | null;
  readonly verdict: Verdict | null;
  readonly notes: string | null;
}

const reviewRows = (db: Db, viewer: Viewer) =>
  db
    .selectFrom('review')
    .innerJoin('access_grant', 'access_grant.id', 'review.grant_id')
    .innerJoin('request', 'request.id', 'access_grant.request_id')
    .innerJoin('person', 'person.id', 'review.person_id')
    .leftJoin('person as closer', 'closer.id', 'review.closed_by')
    .selectAll('review')
    .select([
      'request.id as request_id',
      'request.entitlements',
      'request.reason',
      'request.incident',
      'person.name as person_name',
      'closer.name as closer_name',
    ])
    .select(['access_grant.state as grant_state', 'access_grant.ended_at as grant_ended_at', sql<Date>`now()`.as('read_at')])
    .select(countsFor(viewer, 'reviewer').as('reviewer'));

type Row = Awaited<ReturnType<ReturnType<typeof reviewRows>['execute']>>[number];

const viewOf = (row: Row, readers: Readers, viewer: Viewer): ReviewView => ({
  id: row.id,
  grantId: row.grant_id,
  requestId: row.request_id,
  person: { id: row.person_id, name: row.person_name },
  entitlements: row.entitlements,
  reason: row.reason,
  incident: row.incident,
  state: row.state,
  dueAt: row.due_at,
  overdue: row.state === 'due' && row.due_at < row.read_at,
  grantEndedAt: row.grant_ended_at,
  mayClose:
    row.state === 'due' &&
    ['ending', 'ended', 'cancelled'].includes(row.grant_state) &&
    row.person_id !== viewer.id &&
    (Boolean(row.reviewer) || isOneOf(readers.admins, viewer)),
  closedBy: row.closed_by && row.closer_name ? { id: row.closed_by, name: row.closer_name } : null,
  closedAt: row.closed_at,
  verdict: row.verdict,
  notes: row.notes,
});

/** Newest first. */
export async function listReviews(
  db: Db,
  readers: Readers,
  viewer: Viewer,
  filter: { state?: ReviewState | undefined; cursor?: string | undefined },
): Promise<Page<ReviewView>> {
  const after = readCursor('review', filter.cursor);
  let query = reviewRows(db, viewer).where(maySee(readers, viewer));
  if (after) query = query.where('review.id', '<', after);
  if (filter.state) query = query.where('review.state', '=', filter.state);
  const page = pageOf(
    await query
      .orderBy('review.id', 'desc')
      .limit(pageSize + 1)
      .execute(),
  );
  return { items: page.items.map((row) => viewOf(row, readers, viewer)), next: page.next };
}

/** One review. Throws `not_found`. */
export async function readReview(db: Db, readers: Readers, viewer: Viewer, id: string): Promise<ReviewView> {
  const row = await reviewRows(db, viewer).where('review.id', '=', id).where(maySee(readers, viewer)).executeTakeFirst();
  if (!row) throw new Refusal('not_found', `There is no review ${id}, or it is not yours to see.`);
  return viewOf(row, readers, viewer);
}

/** How many reviews this person can close now. */
export async function countToReview(db: Db, readers: Readers, viewer: Viewer): Promise<number> {
  const row = await reviewRows(db, viewer)
    .clearSelect()
    .select(sql<number>`count(*)::int`.as('count'))
    .where('review.state', '=', 'due')
    .where('review.person_id', '<>', viewer.id)
    .where('access_grant.state', 'in', ['ending', 'ended', 'cancelled'])
    .where(isOneOf(readers.admins, viewer) ? sql<boolean>`true` : countsFor(viewer, 'reviewer'))
    .executeTakeFirstOrThrow();
  return row.count;
}
