/** Grants and their leases, with what is overdue said as such. */
import { sql } from 'kysely';
import { Refusal } from '../../domain/errors.ts';
import type { EndReason, GrantState, LeaseEndReason, LeaseState, ReviewState, Verdict } from '../../domain/lifecycle.ts';
import type { Db } from '../pool.ts';
import { type Page, pageOf, pageSize, readCursor } from './page.ts';
import { maySee, type Readers, type Viewer } from './viewer.ts';

export interface LeaseView {
  readonly id: string;
  readonly grantId: string;
  readonly entitlement: string;
  readonly target: string;
  readonly kind: string;
  readonly state: LeaseState;
  /** The public name of the credential at its target. */
  readonly handle: string;
  readonly expiresAt: Date;
  readonly createdAt: Date;
  readonly revealedAt: Date | null;
  readonly endReason: LeaseEndReason | null;
  readonly revokingAt: Date | null;
  readonly cutAt: Date | null;
  readonly readBackAt: Date | null;
  readonly tries: number;
  readonly nextTryAt: Date | null;
  readonly lastError: string | null;
  /** It should be gone and is not: a try failed, or a minute has passed. */
  readonly overdue: boolean;
}

export interface GrantView {
  readonly id: string;
  readonly requestId: string;
  readonly person: { readonly id: string; readonly name: string };
  readonly entitlements: readonly string[];
  /** As time has it: an active grant past its end reads `ending`. */
  readonly state: GrantState;
  readonly breakGlass: boolean;
  readonly incident: string | null;
  readonly reason: string;
  readonly startsAt: Date;
  readonly endsAt: Date;
  readonly endReason: EndReason | null;
  readonly endNote: string | null;
  readonly endedAt: Date | null;
  readonly leases: readonly LeaseView[];
  readonly overdue: boolean;
  readonly review: { readonly id: string; readonly state: ReviewState; readonly dueAt: Date; readonly verdict: Verdict | null } | null;
  readonly readAt: Date;
}

const grantRows = (db: Db) =>
  db
    .selectFrom('access_grant')
    .innerJoin('request', 'request.id', 'access_grant.request_id')
    .innerJoin('person', 'person.id', 'access_grant.person_id')
    .leftJoin('review', 'review.grant_id', 'access_grant.id')
    .selectAll('access_grant')
    .select(['person.name as person_name', 'request.entitlements', 'request.reason', sql<Date>`now()`.as('read_at')])
    .select(['review.id as review_id', 'review.state as review_state', 'review.due_at as review_due_at', 'review.verdict as review_verdict']);

type Row = Awaited<ReturnType<ReturnType<typeof grantRows>['execute']>>[number];

const overdueLease = sql<boolean>`(lease.state = 'revoking' AND (lease.last_error IS NOT NULL OR lease.revoking_at < now() - interval '60 seconds'))`;

async function viewsOf(db: Db, rows: readonly Row[]): Promise<GrantView[]> {
  if (rows.length === 0) return [];
  const leases = await db
    .selectFrom('lease')
    .selectAll()
    .select(overdueLease.as('overdue'))
    .where(
      'grant_id',
      'in',
      rows.map((row) => row.id),
    )
    .orderBy('id')
    .execute();
  return rows.map((row) => {
    const views = leases
      .filter((lease) => lease.grant_id === row.id)
      .map((lease) => ({
        id: lease.id,
        grantId: lease.grant_id,
        entitlement: lease.entitlement,
        target: lease.target,
        kind: lease.kind,
        state: lease.state,
        handle: lease.handle ?? lease.external_name,
        expiresAt: lease.expires_at,
        createdAt: lease.created_at,
        revealedAt: lease.revealed_at,
        endReason: lease.end_reason,
        revokingAt: lease.revoking_at,
        cutAt: lease.cut_at,
        readBackAt: lease.read_back_at,
        tries: lease.tries,
        nextTryAt: lease.next_try_at,
        lastError: lease.last_error,
        overdue: lease.overdue,
      }));
    const overdue = views.some((lease) => lease.overdue) || (row.state === 'active' && row.ends_at.getTime() + 60_000 < row.read_at.getTime());
    return {
      id: row.id,
      requestId: row.request_id,
      person: { id: row.person_id, name: row.person_name },
      entitlements: row.entitlements,
      state: row.state === 'active' && row.ends_at <= row.read_at ? 'ending' : row.state,
      breakGlass: row.break_glass,
      incident: row.incident,
      reason: row.reason,
      startsAt: row.starts_at,
      endsAt: row.ends_at,
      endReason: row.end_reason,
      endNote: row.end_note,
      endedAt: row.ended_at,
      leases: views,
      overdue,
      review:
        row.review_id && row.review_state && row.review_due_at
          ? { id: row.review_id, state: row.review_state, dueAt: row.review_due_at, verdict: row.review_verdict }
          : null,
      readAt: row.read_at,
    };
  });
}

/** The grants of these requests, by request id. */
export async function grantsOf(db: Db, requestIds: readonly string[]): Promise<Map<string, GrantView>> {
  const rows = await grantRows(db)
    .where('access_grant.request_id', 'in', [...requestIds])
    .execute();
  return new Map((await viewsOf(db, rows)).map((view) => [view.requestId, view]));
}

/** One grant. Throws `not_found` for one that is not there or not theirs to see. */
export async function readGrant(db: Db, readers: Readers, viewer: Viewer, id: string): Promise<GrantView> {
  const rows = await grantRows(db).where('access_grant.id', '=', id).where(maySee(readers, viewer)).execute();
  const [view] = await viewsOf(db, rows);
  if (!view) throw new Refusal('not_found', `There is no grant ${id}, or it is not yours to see.`);
  return view;
}

export interface GrantFilter {
  readonly state?: GrantState | 'open' | undefined;
  readonly mine?: boolean | undefined;
  readonly incident?: string | undefined;
  readonly cursor?: string | undefined;
}

/** Newest first. `open` is everything that has not ended. */
export async function listGrants(db: Db, readers: Readers, viewer: Viewer, filter: GrantFilter): Promise<Page<GrantView>> {
  const after = readCursor('grant', filter.cursor);
  let query = grantRows(db).where(maySee(readers, viewer));
  if (after) query = query.where('access_grant.id', '<', after);
  if (filter.mine) query = query.where('access_grant.person_id', '=', viewer.id);
  if (filter.incident) query = query.where('access_grant.incident', '=', filter.incident);
  if (filter.state === 'open') query = query.where('access_grant.state', 'in', ['scheduled', 'active', 'ending']);
  else if (filter.state) query = query.where('access_grant.state', '=', filter.state);
  const page = pageOf(
    await query
      .orderBy('access_grant.id', 'desc')
      .limit(pageSize + 1)
      .execute(),
  );
  return { items: await viewsOf(db, page.items), next: page.next };
}

/** Everything that is open, overdue ones first and then by their end, with what ended in the last hour; at most 300. */
export async function activeGrants(db: Db, readers: Readers, viewer: Viewer): Promise<GrantView[]> {
  const rows = await grantRows(db)
    .where(maySee(readers, viewer))
    .where((eb) =>
      eb.or([eb('access_grant.state', 'in', ['scheduled', 'active', 'ending']), eb('access_grant.ended_at', '>', sql<Date>`now() - interval '1 hour'`)]),
    )
    .orderBy(sql`access_grant.state IN ('ended', 'cancelled')`)
    .orderBy('access_grant.ends_at')
    .limit(300)
    .execute();
  const views = await viewsOf(db, rows);
  return views.sort((a, b) => Number(b.overdue) - Number(a.overdue));
}

/** Medians and tails of "due → cut" over the last hour, in seconds; null when nothing ended. By the log's times, which stand in order: a look through every lease that ever was would take longer each month. */
export async function dueToCut(db: Db): Promise<{ count: number; p50: number | null; p99: number | null }> {
  const row = await sql<{ count: number; p50: number | null; p99: number | null }>`
    SELECT count(*)::int AS count,
      percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM lease.cut_at - access_grant.ends_at)) AS p50,
      percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM lease.cut_at - access_grant.ends_at)) AS p99
    FROM audit_event JOIN lease ON lease.id = audit_event.lease_id JOIN access_grant ON access_grant.id = lease.grant_id
    WHERE audit_event.at > now() - interval '1 hour' AND audit_event.type = 'lease.cut' AND lease.end_reason = 'expired'`.execute(db);
  return row.rows[0] ?? { count: 0, p50: null, p99: null };
}
