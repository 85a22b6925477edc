/**
 * What is judged at each commit, by rules written down here a second time: which moves are lawful, which event each of them
 * has, and what must be true when a grant opens, a lease is made, shown, ended and believed gone. It shares no code with
 * what it judges, but for the hash of what was shown.
 */
import type { Selectable } from 'kysely';
import { shownOf } from '../../src/commands/decide-request.ts';
import type { Schema } from '../../src/db/schema.ts';
import type { Entitlement, People } from '../../src/domain/entitlement.ts';
import { seenHash } from '../../src/domain/seen.ts';
import type { Store, Tx, Witnessed, Write } from './store.ts';
import { failedAfterCut } from './target.ts';
import type { World } from './world.ts';

export type GrantRow = Selectable<Schema['access_grant']>;
export type LeaseRow = Selectable<Schema['lease']>;
export type RequestRow = Selectable<Schema['request']>;
export type DecisionRow = Selectable<Schema['decision']>;
export type PersonRow = Selectable<Schema['person']>;
type ReviewRow = Selectable<Schema['review']>;

export interface Judged {
  readonly world: World;
  readonly store: Store;
  readonly entitlements: ReadonlyMap<string, Entitlement>;
  /** The human behind a person of the store. */
  readonly humanOf: (personId: string) => string;
  /** The groups that a person had at any time since then: nobody's but the holder's are locked while a claim is judged. */
  readonly groupsSince: (person: PersonRow, since: number) => readonly string[];
  /** Whether something usable is at the target under this name although its claim may make nothing any more. */
  readonly presentAt: (lease: LeaseRow) => boolean;
}

const early = ['grant.returned', 'grant.revoked', 'grant.offboarded', 'grant.incident-closed'];
const over = ['grant.expired', ...early];
/** Every lawful move and the event of each; an empty list is a move of the epoch alone that has none of its own. */
const lawful: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  request: {
    '→pending': ['request.submitted'],
    '→approved': ['request.submitted'],
    'pending→pending': ['request.approval-given'],
    'pending→approved': ['request.approved'],
    'pending→denied': ['request.denied'],
    'pending→withdrawn': ['request.withdrawn'],
    'pending→lapsed': ['request.lapsed'],
  },
  access_grant: {
    '→scheduled': ['grant.opened'],
    '→active': ['grant.opened'],
    'scheduled→active': ['grant.started'],
    'scheduled→cancelled': over,
    'active→ending': over,
    'ending→ended': ['grant.ended'],
  },
  lease: {
    '→issuing': ['lease.intended'],
    'issuing→live': ['lease.revealed'],
    'issuing→revoking': ['lease.ending'],
    'live→revoking': ['lease.ending'],
    'issuing→void': ['lease.voided'],
    'revoking→revoked': ['lease.revoked'],
    'live→live': ['lease.again', 'lease.revealed', ''],
    'revoking→revoking': ['lease.revocation-failed', ''],
  },
  review: { '→due': ['review.due'], 'due→closed': ['review.closed'] },
};
/** Where an event names what it is about. */
const about: Readonly<Record<string, keyof Witnessed>> = { request: 'request', access_grant: 'grant', lease: 'lease', review: 'grant' };
/** Events that say something beside a move, or of nothing that moves. */
const beside = new Set([
  'lease.cut',
  'lease.vanished',
  'lease.unexplained',
  'lease.adopted',
  'claim.refused',
  'access.refused',
  'decision.refused',
  'request.glass-broken',
]);

/** Judges one transaction at the moment at which others can see it. */
export function judgeCommit(judged: Judged, tx: Tx): void {
  const { world } = judged;
  const unexplained = [...tx.events];
  for (const write of tx.writes) judgeMove(judged, write, unexplained);
  for (const event of unexplained)
    if (!beside.has(event.type)) world.breaks('19', `${event.type} was witnessed, and nothing that was written in the same transaction is such a change`);
  const glass = tx.events.filter((event) => event.type === 'request.glass-broken');
  for (const event of glass)
    if (!tx.events.some((other) => other.type === 'review.due' && other.request === event.request))
      world.breaks('17', `the glass of ${event.request} was broken and no review is owed`);
  for (const write of tx.writes) {
    if (!write.after || write.after['deleted']) continue;
    if (write.table === 'access_grant' && !write.before) judgeOpening(judged, tx, write.after as unknown as GrantRow);
    if (write.table === 'access_grant' && write.before) judgeEnding(judged, tx, write);
    if (write.table === 'lease') judgeLease(judged, tx, write);
    if (write.table === 'decision') judgeDecision(judged, tx, write.after as unknown as DecisionRow);
    if (write.table === 'review' && write.before) {
      const review = write.after as unknown as ReviewRow;
      if (review.closed_by && judged.humanOf(review.closed_by) === judged.humanOf(review.person_id)) world.breaks('13', 'somebody reviewed their own use');
    }
  }
}

function judgeMove({ world }: Judged, { table, before, after }: Write, unexplained: Witnessed[]): undefined {
  const moves = lawful[table];
  if (!moves || !after) return;
  const move = `${before ? before['state'] : ''}→${after['state']}`;
  const events = moves[move];
  if (!events) return world.breaks(table === 'request' ? '14' : '9', `${table} ${after.id} moved ${move}, which no rule allows`);
  if (before && after['epoch'] !== (before['epoch'] as number) + 1)
    world.breaks('9', `${table} ${after.id} moved ${move} from epoch ${before['epoch']} to ${after['epoch']}`);
  const id = table === 'review' ? after['grant_id'] : after.id;
  const at = unexplained.findIndex((event) => events.includes(event.type) && event[about[table] ?? 'lease'] === id);
  if (at >= 0) unexplained.splice(at, 1);
  else if (!events.includes('')) world.breaks('19', `${table} ${after.id} moved ${move} and no event says so in the same transaction`);
}

/** Every rule of every entitlement has seats, filled by different humans, none of them the requester. Tried out one by one. */
export function quorumHolds(judged: Judged, tx: Tx, request: RequestRow, entitlements: readonly (Entitlement | undefined)[]): boolean {
  const approvers = judged.store
    .rows<DecisionRow>('decision')
    .filter((decision) => decision.request_id === request.id && decision.decision === 'approve')
    .flatMap((decision) => judged.store.row<PersonRow>('person', decision.person_id) ?? []);
  const humans = new Map(approvers.map((person) => [judged.humanOf(person.id), { ...person, groups: [...judged.groupsSince(person, tx.startedAt)] }]));
  humans.delete(judged.humanOf(request.person_id));
  return entitlements.every((entitlement) => {
    if (!entitlement || entitlement.approval.length === 0) return false;
    const seats = entitlement.approval.flatMap((rule) => Array.from({ length: rule.count }, () => rule.of));
    return canSit(seats, [...humans.values()]);
  });
}

function canSit(seats: readonly People[], people: readonly PersonRow[]): boolean {
  const [seat, ...rest] = seats;
  if (!seat) return true;
  return people.some(
    (person) =>
      belongs(seat, person) &&
      canSit(
        rest,
        people.filter((other) => other !== person),
      ),
  );
}

const belongs = (people: People, person: PersonRow): boolean =>
  people.subjects.includes(person.subject) || person.groups.some((group) => people.groups.includes(group));

function judgeOpening(judged: Judged, tx: Tx, grant: GrantRow): undefined {
  const { world, store } = judged;
  const request = store.row<RequestRow>('request', grant.request_id);
  if (!request) return world.breaks('14', `the grant ${grant.id} is of no request`);
  if (store.rows<GrantRow>('access_grant').filter((other) => other.request_id === request.id).length > 1)
    world.breaks('14', `two grants were opened for ${request.id}`);
  const entitlements = request.entitlements.map((name) => judged.entitlements.get(name));
  if (!request.break_glass) {
    const own = store
      .rows<DecisionRow>('decision')
      .find((decision) => decision.request_id === request.id && judged.humanOf(decision.person_id) === judged.humanOf(request.person_id));
    if (own) world.breaks('13', `the human who asked for ${request.id} decided on it as ${own.person_id}`);
    if (!quorumHolds(judged, tx, request, entitlements)) world.breaks('14', `the grant ${grant.id} was opened without enough different people`);
  }
  const starts = Math.max(tx.startedAt, request.start_at?.getTime() ?? 0);
  const most = Math.min(
    request.duration_seconds,
    ...entitlements.map((one) => (request.break_glass ? one?.breakGlass?.maxDurationSeconds : one?.maxDurationSeconds) ?? 0),
  );
  if (grant.starts_at.getTime() !== starts || grant.ends_at.getTime() !== starts + most * 1_000)
    world.breaks(
      '11',
      `the grant ${grant.id} lasts from ${grant.starts_at.toISOString()} to ${grant.ends_at.toISOString()}; by the store's clock it is ${new Date(starts).toISOString()} for ${most} s`,
    );
}

function judgeEnding({ world }: Judged, tx: Tx, { after }: Write): void {
  const grant = after as unknown as GrantRow;
  if (grant.state !== 'ended' && grant.end_reason === 'expired' && tx.startedAt < grant.ends_at.getTime())
    world.breaks('8', `the grant ${grant.id} was ended as expired ${(grant.ends_at.getTime() - tx.startedAt) / 1_000} s before its end`);
}

function judgeLease(judged: Judged, tx: Tx, { before, after }: Write): undefined {
  const { world, store } = judged;
  const lease = after as unknown as LeaseRow;
  const was = before as unknown as LeaseRow | undefined;
  const grant = store.row<GrantRow>('access_grant', lease.grant_id);
  if (!grant) return world.breaks('4', `the lease ${lease.id} is of no grant`);
  if (lease.expires_at > grant.ends_at) world.breaks('3', `the lease ${lease.id} is shown to last longer than its grant`);
  if (!was) return judgeIntent(judged, tx, lease, grant);
  if (lease.state === 'live' && tx.events.some((event) => event.type === 'lease.revealed' && event.lease === lease.id)) {
    if (grant.state !== 'active' || tx.startedAt >= grant.ends_at.getTime())
      world.breaks('9', `a credential of ${lease.id} was revealed under a grant that is ${grant.state}, or past its end`);
  }
  if (lease.state === 'revoking' && was.state !== 'revoking') {
    const ofGrant = !['replaced', 'unfinished', 'vanished'].includes(lease.end_reason ?? '');
    const atOwnEnd = lease.end_reason === 'expired' && lease.expires_at.getTime() <= tx.startedAt;
    if (ofGrant && !atOwnEnd && (grant.state === 'active' || grant.state === 'scheduled'))
      world.breaks('6', `the lease ${lease.id} was ended as ${lease.end_reason} although its grant is ${grant.state}`);
  }
  if (lease.state === 'revoked' && was.state === 'revoking' && judged.presentAt(lease))
    world.breaks('5', `the lease ${lease.id} is written down as revoked, and its target still has the object`);
  if (was.cut_at && !lease.cut_at) world.breaks('9', `the lease ${lease.id} forgot that it was cut`);
  const said = tx.events.some((event) => event.type === 'lease.cut' && event.lease === lease.id);
  if (said !== (!was.cut_at && lease.cut_at !== null)) world.breaks('19', `the lease ${lease.id}: a cut and its event do not go together`);
  if (lease.last_error?.includes(failedAfterCut) && !lease.cut_at)
    world.breaks('7', `the lease ${lease.id} was cut at its target, clean-up failed, and the cut was not written down`);
}

/** A claim is judged again, whole, when it is made. */
function judgeIntent(judged: Judged, tx: Tx, lease: LeaseRow, grant: GrantRow): undefined {
  const { world, store } = judged;
  const open = store
    .rows<LeaseRow>('lease')
    .filter((other) => other.grant_id === grant.id && other.entitlement === lease.entitlement && ['issuing', 'live'].includes(other.state));
  if (open.length > 1) world.breaks('23', `${open.length} leases of ${lease.entitlement} are open under the grant ${grant.id} at once`);
  if (grant.state !== 'active' || tx.startedAt >= grant.ends_at.getTime())
    world.breaks('9', `a claim began under a grant that is ${grant.state}, or past its end`);
  const request = store.row<RequestRow>('request', grant.request_id);
  const holder = store.row<PersonRow>('person', grant.person_id);
  if (!request || !holder) return;
  const entitlements = request.entitlements.map((name) => judged.entitlements.get(name));
  const may = entitlements.every(
    (one) => one && (request.break_glass ? one.breakGlass !== null && belongs(one.breakGlass.eligible, holder) : belongs(one.eligible, holder)),
  );
  if (!may) world.breaks('16', `the holder of ${grant.id} no longer belongs to those who may use it, and a claim began`);
  if (!request.break_glass && !quorumHolds(judged, tx, request, entitlements))
    world.breaks('16', `the approvals of ${request.id} no longer carry it, and a claim began`);
}

function judgeDecision({ world, store, entitlements }: Judged, tx: Tx, decision: DecisionRow): void {
  const request = store.row<RequestRow>('request', decision.request_id);
  const requester = store.row<PersonRow>('person', decision.requester_id);
  if (!request || !requester) return;
  if (tx.startedAt >= request.lapses_at.getTime()) world.breaks('14', `somebody decided on ${request.id} after its time`);
  const current = request.entitlements.map((name) => entitlements.get(name) ?? null);
  if (decision.seen !== seenHash(shownOf(request, { id: requester.id, name: requester.name }, current)))
    world.breaks('15', `somebody decided on ${request.id} by another picture than what it is`);
}
