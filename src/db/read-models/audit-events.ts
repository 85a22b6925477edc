/** The log as people search it, and its head. */
import { sql } from 'kysely';
import type { AuditActor, AuditEventType } from '../../domain/audit-event.ts';
import type { Json } from '../../domain/canonical.ts';
import type { Db } from '../pool.ts';
import { type Page, pageOf, pageSize, readCursor } from './page.ts';
import { maySee, type Readers, seesEverything, type Viewer } from './viewer.ts';

export interface AuditEventView {
  readonly id: string;
  /** The place in the sealed log; null for the last few seconds' events. */
  readonly index: number | null;
  readonly at: Date;
  readonly type: AuditEventType;
  readonly actor: AuditActor;
  readonly person: { readonly id: string; readonly name: string } | null;
  readonly request: string | null;
  readonly grant: string | null;
  readonly lease: string | null;
  readonly incident: string | null;
  readonly entitlements: readonly string[];
  readonly data: { readonly [key: string]: Json };
}

export interface AuditFilter {
  /** A person's id, or a part of their name. */
  readonly person?: string | undefined;
  readonly entitlement?: string | undefined;
  readonly incident?: string | undefined;
  readonly request?: string | undefined;
  readonly grant?: string | undefined;
  readonly type?: string | undefined;
  readonly from?: Date | undefined;
  readonly to?: Date | undefined;
  readonly cursor?: string | undefined;
}

const eventRows = (db: Db) =>
  db
    .selectFrom('audit_event')
    .leftJoin('audit_leaf', 'audit_leaf.event_id', 'audit_event.id')
    .leftJoin('person', 'person.id', 'audit_event.person_id')
    .leftJoin('request', 'request.id', 'audit_event.request_id')
    .select([
      'audit_event.id',
      'audit_event.at',
      'audit_event.type',
      'audit_event.line',
      'audit_event.person_id',
      'audit_event.request_id',
      'audit_event.grant_id',
      'audit_event.lease_id',
    ])
    .select(['audit_event.incident', 'audit_event.entitlements', 'audit_leaf.index', 'person.name as person_name']);

type Row = Awaited<ReturnType<ReturnType<typeof eventRows>['execute']>>[number];

function viewOf(row: Row): AuditEventView {
  const line = JSON.parse(row.line) as { actor: AuditActor; data?: { [key: string]: Json } };
  return {
    id: row.id,
    index: row.index,
    at: row.at,
    type: row.type as AuditEventType,
    actor: line.actor,
    person: row.person_id && row.person_name ? { id: row.person_id, name: row.person_name } : null,
    request: row.request_id,
    grant: row.grant_id,
    lease: row.lease_id,
    incident: row.incident,
    entitlements: row.entitlements,
    data: line.data ?? {},
  };
}

/** Newest first. Auditors and admins read everything; others what they did, what concerns them, and what they may decide. */
export async function listAuditEvents(db: Db, readers: Readers, viewer: Viewer, filter: AuditFilter): Promise<Page<AuditEventView>> {
  const after = readCursor('event', filter.cursor);
  let query = eventRows(db);
  if (!seesEverything(readers, viewer)) {
    query = query.where((eb) =>
      eb.or([
        eb('audit_event.actor_id', '=', viewer.id),
        eb('audit_event.person_id', '=', viewer.id),
        eb.and([eb('request.id', 'is not', null), maySee(readers, viewer)]),
      ]),
    );
  }
  if (after) query = query.where('audit_event.id', '<', after);
  const { person, entitlement } = filter;
  if (person)
    query = query.where((eb) =>
      eb.or([
        eb('audit_event.person_id', '=', person),
        eb('audit_event.actor_id', '=', person),
        eb('person.name', 'ilike', `%${person.replace(/[\\%_]/g, '\\$&')}%`),
      ]),
    );
  if (entitlement) query = query.where(sql<boolean>`${entitlement} = ANY (audit_event.entitlements)`);
  if (filter.incident) query = query.where('audit_event.incident', '=', filter.incident);
  if (filter.request) query = query.where('audit_event.request_id', '=', filter.request);
  if (filter.grant) query = query.where('audit_event.grant_id', '=', filter.grant);
  if (filter.type) query = query.where('audit_event.type', '=', filter.type);
  if (filter.from) query = query.where('audit_event.at', '>=', filter.from);
  if (filter.to) query = query.where('audit_event.at', '<', filter.to);
  const page = pageOf(
    await query
      .orderBy('audit_event.id', 'desc')
      .limit(pageSize + 1)
      .execute(),
  );
  return { items: page.items.map(viewOf), next: page.next };
}

/** What happened to one request, oldest first, at most 500 events. The caller has checked that the viewer may see the request. */
export async function storyOf(db: Db, requestId: string): Promise<AuditEventView[]> {
  const rows = await eventRows(db)
    .where((eb) =>
      eb.or([
        eb('audit_event.request_id', '=', requestId),
        eb('audit_event.grant_id', '=', eb.selectFrom('access_grant').select('id').where('access_grant.request_id', '=', requestId)),
      ]),
    )
    .orderBy('audit_event.position')
    .limit(500)
    .execute();
  return rows.map(viewOf);
}

export interface LogHead {
  /** Sealed entries. */
  readonly size: number;
  readonly sealedAt: Date | null;
  /** Events that are not sealed yet. */
  readonly waiting: number;
  readonly readAt: Date;
}

export async function readHead(db: Db): Promise<LogHead> {
  const { rows } = await sql<{ size: number | null; sealed_at: Date | null; waiting: number; read_at: Date }>`
    SELECT c.size, c.signed_at AS sealed_at, (SELECT count(*)::int FROM audit_pending) AS waiting, now() AS read_at
    FROM (SELECT 1) one LEFT JOIN LATERAL (SELECT size, signed_at FROM audit_checkpoint ORDER BY size DESC LIMIT 1) c ON true`.execute(db);
  const row = rows[0];
  return { size: row?.size ?? 0, sealedAt: row?.sealed_at ?? null, waiting: row?.waiting ?? 0, readAt: row?.read_at ?? new Date(0) };
}
