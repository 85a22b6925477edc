/** Requests as lists and pages show them. */
import { sql } from 'kysely';
import { durationInWords, formatDuration } from '../../domain/duration.ts';
import { type Entitlement, type PolicySnapshot, peopleInWords, policyInWords } from '../../domain/entitlement.ts';
import { Refusal } from '../../domain/errors.ts';
import type { RequestState } from '../../domain/lifecycle.ts';
import { fillRules, type Member, mayDecide } from '../../domain/policy.ts';
import { seenHash } from '../../domain/seen.ts';
import type { Db } from '../pool.ts';
import { type GrantView, grantsOf } from './grants.ts';
import { type Page, pageOf, pageSize, readCursor } from './page.ts';
import { countsFor, maySee, type Readers, type Viewer } from './viewer.ts';

export interface PersonRef {
  readonly id: string;
  readonly name: string;
}

export interface EntitlementView {
  readonly name: string;
  readonly opens: string;
  readonly target: string;
  readonly kind: string;
  readonly grant: string;
  readonly owner: string;
  readonly policy: readonly string[];
  /** In the target's own terms, read when it was asked for; null with `unreadable` when that failed. */
  readonly described: { readonly summary: string; readonly details: readonly string[] } | null;
  readonly unreadable: string | null;
}

export interface RuleView {
  readonly entitlement: string;
  readonly of: string;
  readonly count: number;
  readonly filled: number;
}

export interface DecisionView {
  readonly id: string;
  readonly person: PersonRef;
  readonly decision: 'approve' | 'deny';
  readonly reason: string;
  readonly via: string;
  readonly at: Date;
}

export interface RequestView {
  readonly id: string;
  /** As time has it: a pending request past its time reads `lapsed`. */
  readonly state: RequestState;
  readonly person: PersonRef;
  readonly entitlements: readonly EntitlementView[];
  readonly durationSeconds: number;
  readonly duration: string;
  readonly durationInWords: string;
  readonly reason: string;
  readonly incident: string | null;
  readonly startAt: Date | null;
  readonly breakGlass: boolean;
  readonly createdAt: Date;
  readonly lapsesAt: Date;
  readonly decidedAt: Date | null;
  readonly rules: readonly RuleView[];
  readonly decisions: readonly DecisionView[];
  /** People known to Halligan who can decide it, at most twelve; who never logged in is not known. */
  readonly deciders: readonly PersonRef[];
  readonly decidersInWords: string;
  readonly mine: boolean;
  readonly mayDecide: boolean;
  /** What a decision must carry. */
  readonly seen: string;
  readonly grant: GrantView | null;
}

export interface RequestFilter {
  readonly state?: RequestState | undefined;
  readonly mine?: boolean | undefined;
  readonly toDecide?: boolean | undefined;
  readonly cursor?: string | undefined;
}

type Loaded = ReadonlyMap<string, Entitlement>;

/** Newest first; a request of somebody else is listed only to those who may see it. */
export async function listRequests(db: Db, readers: Readers, loaded: Loaded, viewer: Viewer, filter: RequestFilter): Promise<Page<RequestView>> {
  const after = readCursor('request', filter.cursor);
  const lapsed = sql<boolean>`(request.state = 'pending' AND request.lapses_at <= now())`;
  let query = requestRows(db).where(maySee(readers, viewer));
  if (after) query = query.where('request.id', '<', after);
  if (filter.mine) query = query.where('request.person_id', '=', viewer.id);
  if (filter.state === 'lapsed') query = query.where((eb) => eb.or([eb('request.state', '=', 'lapsed'), lapsed]));
  else if (filter.state) query = query.where('request.state', '=', filter.state).where(sql<boolean>`NOT ${lapsed}`);
  if (filter.toDecide) {
    query = query
      .where('request.state', '=', 'pending')
      .where('request.lapses_at', '>', sql<Date>`now()`)
      .where('request.person_id', '<>', viewer.id)
      .where(countsFor(viewer, 'approver'))
      .where(({ not, exists, selectFrom }) =>
        not(exists(selectFrom('decision').select('id').whereRef('decision.request_id', '=', 'request.id').where('decision.person_id', '=', viewer.id))),
      );
  }
  const rows = await query
    .orderBy('request.id', 'desc')
    .limit(pageSize + 1)
    .execute();
  const page = pageOf(rows);
  return { items: await viewsOf(db, loaded, viewer, page.items), next: page.next };
}

/** One request. Throws `not_found` for one that is not there or not theirs to see. */
export async function readRequest(db: Db, readers: Readers, loaded: Loaded, viewer: Viewer, id: string): Promise<RequestView> {
  const rows = await requestRows(db).where('request.id', '=', id).where(maySee(readers, viewer)).execute();
  const [view] = await viewsOf(db, loaded, viewer, rows);
  if (!view) throw new Refusal('not_found', `There is no request ${id}, or it is not yours to see.`);
  return view;
}

const nobody: Viewer = { id: '', name: '', subject: '', groups: [] };

/** One request as it is told to others than its readers: nothing in it depends on who looks. Throws `not_found`. */
export async function requestForStory(db: Db, loaded: Loaded, id: string): Promise<RequestView> {
  const [view] = await viewsOf(db, loaded, nobody, await requestRows(db).where('request.id', '=', id).execute());
  if (!view) throw new Refusal('not_found');
  return view;
}

/** How many requests wait for this person's decision. */
export async function countToDecide(db: Db, viewer: Viewer): Promise<number> {
  const row = await db
    .selectFrom('request')
    .select(sql<number>`count(*)::int`.as('count'))
    .where('request.state', '=', 'pending')
    .where('request.lapses_at', '>', sql<Date>`now()`)
    .where('request.person_id', '<>', viewer.id)
    .where(countsFor(viewer, 'approver'))
    .where(({ not, exists, selectFrom }) =>
      not(exists(selectFrom('decision').select('id').whereRef('decision.request_id', '=', 'request.id').where('decision.person_id', '=', viewer.id))),
    )
    .executeTakeFirstOrThrow();
  return row.count;
}

const requestRows = (db: Db) =>
  db
    .selectFrom('request')
    .innerJoin('person', 'person.id', 'request.person_id')
    .selectAll('request')
    .select(['person.name as person_name', sql<Date>`now()`.as('read_at')]);

type Row = Awaited<ReturnType<ReturnType<typeof requestRows>['execute']>>[number];

async function viewsOf(db: Db, loaded: Loaded, viewer: Viewer, rows: readonly Row[]): Promise<RequestView[]> {
  if (rows.length === 0) return [];
  const ids = rows.map((row) => row.id);
  const [decisions, grants, known] = await Promise.all([
    db
      .selectFrom('decision')
      .innerJoin('person', 'person.id', 'decision.person_id')
      .selectAll('decision')
      .select(['person.name', 'person.subject', 'person.groups'])
      .where('request_id', 'in', ids)
      .orderBy('decision.id')
      .execute(),
    grantsOf(db, ids),
    knownDeciders(db, rows),
  ]);
  return rows.map((row) => {
    const mine = decisions.filter((decision) => decision.request_id === row.id);
    return viewOf(row, loaded, viewer, mine, grants.get(row.id) ?? null, known);
  });
}

type DecisionRow = {
  id: string;
  request_id: string;
  person_id: string;
  decision: 'approve' | 'deny';
  reason: string;
  via: string;
  decided_at: Date;
  name: string;
  subject: string;
  groups: string[];
};
type Known = Member & { name: string };

function viewOf(row: Row, loaded: Loaded, viewer: Viewer, decisions: DecisionRow[], grant: GrantView | null, known: readonly Known[]): RequestView {
  const asked = row.policy.map((snapshot) => snapshot.entitlement);
  const current = row.entitlements.map((name) => loaded.get(name) ?? null);
  const approvers = decisions
    .filter((decision) => decision.decision === 'approve')
    .map((decision) => ({ id: decision.person_id, subject: decision.subject, groups: decision.groups }));
  const state = row.state === 'pending' && row.lapses_at <= row.read_at ? 'lapsed' : row.state;
  const deciders = known.filter((person) => person.id !== row.person_id && mayDecide(asked, person)).slice(0, 12);
  const rules = [...new Set(asked.flatMap((entitlement) => entitlement.approval.map((rule) => peopleInWords(rule.of))))];
  return {
    id: row.id,
    state,
    person: { id: row.person_id, name: row.person_name },
    entitlements: row.policy.map(entitlementView),
    durationSeconds: row.duration_seconds,
    duration: formatDuration(row.duration_seconds),
    durationInWords: durationInWords(row.duration_seconds),
    reason: row.reason,
    incident: row.incident,
    startAt: row.start_at,
    breakGlass: row.break_glass,
    createdAt: row.created_at,
    lapsesAt: row.lapses_at,
    decidedAt: row.decided_at,
    rules: asked.flatMap((entitlement) => {
      const filled = fillRules(entitlement.approval, approvers);
      return entitlement.approval.map((rule, index) => ({
        entitlement: entitlement.name,
        of: peopleInWords(rule.of),
        count: rule.count,
        filled: filled[index] ?? 0,
      }));
    }),
    decisions: decisions.map((decision) => ({
      id: decision.id,
      person: { id: decision.person_id, name: decision.name },
      decision: decision.decision,
      reason: decision.reason,
      via: decision.via,
      at: decision.decided_at,
    })),
    deciders: deciders.map(({ id, name }) => ({ id, name })),
    decidersInWords: rules.join('; '),
    mine: row.person_id === viewer.id,
    mayDecide:
      state === 'pending' && row.person_id !== viewer.id && mayDecide(asked, viewer) && !decisions.some((decision) => decision.person_id === viewer.id),
    seen: seenHash({
      requestId: row.id,
      requester: { id: row.person_id, name: row.person_name },
      entitlements: row.entitlements,
      durationSeconds: row.duration_seconds,
      reason: row.reason,
      incident: row.incident,
      startAt: row.start_at,
      breakGlass: row.break_glass,
      policyHash: row.policy_hash,
      current,
    }),
    grant,
  };
}

export const entitlementView = ({ entitlement, described }: PolicySnapshot): EntitlementView => ({
  name: entitlement.name,
  opens: entitlement.opens,
  target: entitlement.target,
  kind: entitlement.kind,
  grant: entitlement.grantInWords,
  owner: entitlement.owner,
  policy: policyInWords(entitlement),
  described: 'summary' in described ? described : null,
  unreadable: 'unreadable' in described ? described.unreadable : null,
});

async function knownDeciders(db: Db, rows: readonly Row[]): Promise<Known[]> {
  const groups = [...new Set(rows.flatMap((row) => row.approver_groups))];
  const subjects = [...new Set(rows.flatMap((row) => row.approver_subjects))];
  return db
    .selectFrom('person')
    .select(['id', 'name', 'subject', 'groups'])
    .where(sql<boolean>`(groups && ${sql.val(groups)}::text[] OR subject = ANY (${sql.val(subjects)}::text[]))`)
    .orderBy('name')
    .limit(200)
    .execute();
}
