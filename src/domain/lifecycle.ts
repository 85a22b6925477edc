/**
 * The states of requests, grants, leases and reviews, and the only place that knows them. Each machine is a table of
 * every state × every event: an outcome, a function of the facts that gives one, or a coded refusal. Nothing here
 * reads a clock or a database; `commands/commit.ts` brings the facts and writes what comes out.
 */
import type { AuditEventType } from './audit-event.ts';
import type { ErrorCode } from './errors.ts';

export type RequestState = 'pending' | 'approved' | 'denied' | 'withdrawn' | 'lapsed';
export type GrantState = 'scheduled' | 'active' | 'ending' | 'ended' | 'cancelled';
export type LeaseState = 'issuing' | 'live' | 'revoking' | 'revoked' | 'void';
export type ReviewState = 'due' | 'closed';

export type EndReason = 'expired' | 'returned' | 'revoked' | 'offboarded' | 'incident-closed';
export type LeaseEndReason = EndReason | 'replaced' | 'unfinished' | 'vanished';
export type Verdict = 'justified' | 'drill' | 'follow-up' | 'misuse';

/** What must follow in the same transaction: a grant is opened, a job is put in the outbox, a review is owed. */
export type Effect = 'open-grant' | 'end-leases' | 'revoke-at-target' | 'owe-review';

export interface Outcome<State> {
  readonly to: State;
  readonly auditEvent: AuditEventType;
  readonly effects: readonly Effect[];
}
export interface Refused {
  readonly refuse: ErrorCode;
}
type Rule<State, Facts> = Outcome<State> | Refused | ((facts: Facts, now: Date) => Outcome<State> | Refused);
/** Every state × event pair: the type itself refuses a table with a hole. */
export type Machine<State extends string, Event extends string, Facts> = Readonly<Record<State, Readonly<Record<Event, Rule<State, Facts>>>>>;

const goes = <State>(to: State, auditEvent: AuditEventType, ...effects: Effect[]): Outcome<State> => ({ to, auditEvent, effects });
const no = (code: ErrorCode): Refused => ({ refuse: code });

/** Reads a machine. Pure: the same arguments always give the same answer. */
export function transition<State extends string, Event extends string, Facts>(
  machine: Machine<State, Event, Facts>,
  state: State,
  event: Event,
  facts: Facts,
  now: Date,
): Outcome<State> | Refused {
  const rule = machine[state][event];
  return typeof rule === 'function' ? rule(facts, now) : rule;
}

// ---- request

export type RequestEvent = 'approve' | 'deny' | 'withdraw' | 'lapse' | 'break-glass';
export interface RequestFacts {
  /** Whether the approvals, with this one, satisfy every rule. */
  readonly quorumMet: boolean;
  readonly lapsesAt: Date;
}
const decided = {
  approve: no('request_already_decided'),
  deny: no('request_already_decided'),
  withdraw: no('request_already_decided'),
  lapse: no('request_already_decided'),
  'break-glass': no('request_already_decided'),
};
const lapsed = { ...decided, approve: no('request_lapsed'), deny: no('request_lapsed'), 'break-glass': no('request_lapsed') };

/** Lateness is judged by the time of the decision, whether or not the sweep has marked the request as lapsed. */
export const requestMachine: Machine<RequestState, RequestEvent, RequestFacts> = {
  pending: {
    approve: (facts, now) => {
      if (now >= facts.lapsesAt) return no('request_lapsed');
      return facts.quorumMet ? goes('approved', 'request.approved', 'open-grant') : goes('pending', 'request.approval-given');
    },
    deny: (facts, now) => (now >= facts.lapsesAt ? no('request_lapsed') : goes('denied', 'request.denied')),
    withdraw: goes('withdrawn', 'request.withdrawn'),
    lapse: (facts, now) => (now >= facts.lapsesAt ? goes('lapsed', 'request.lapsed') : no('conflict')),
    'break-glass': (facts, now) => (now >= facts.lapsesAt ? no('request_lapsed') : goes('approved', 'request.glass-broken', 'open-grant', 'owe-review')),
  },
  approved: decided,
  denied: decided,
  withdrawn: decided,
  lapsed,
};

// ---- grant

export type GrantEvent = 'start' | 'expire' | 'return' | 'revoke' | 'offboard' | 'close-incident' | 'leases-gone';
export interface GrantFacts {
  readonly startsAt: Date;
  readonly endsAt: Date;
  /** Leases that are not yet proven gone. */
  readonly openLeases: number;
}
const endsEarly = {
  return: goes<GrantState>('ending', 'grant.returned', 'end-leases'),
  revoke: goes<GrantState>('ending', 'grant.revoked', 'end-leases'),
  offboard: goes<GrantState>('ending', 'grant.offboarded', 'end-leases'),
  'close-incident': goes<GrantState>('ending', 'grant.incident-closed', 'end-leases'),
};
const over = {
  start: no('grant_not_active'),
  expire: no('grant_not_active'),
  return: no('grant_not_active'),
  revoke: no('grant_not_active'),
  offboard: no('grant_not_active'),
  'close-incident': no('grant_not_active'),
  'leases-gone': no('grant_not_active'),
};
const cancels = (auditEvent: AuditEventType) => goes<GrantState>('cancelled', auditEvent);

export const grantMachine: Machine<GrantState, GrantEvent, GrantFacts> = {
  scheduled: {
    start: (facts, now) => (now >= facts.startsAt && now < facts.endsAt ? goes('active', 'grant.started') : no('grant_not_active')),
    // Nobody was there to start it before its window passed.
    expire: (facts, now) => (now >= facts.endsAt ? cancels('grant.expired') : no('conflict')),
    return: cancels('grant.returned'),
    revoke: cancels('grant.revoked'),
    offboard: cancels('grant.offboarded'),
    'close-incident': cancels('grant.incident-closed'),
    'leases-gone': no('grant_not_active'),
  },
  active: {
    start: no('conflict'),
    expire: (facts, now) => (now >= facts.endsAt ? goes('ending', 'grant.expired', 'end-leases') : no('conflict')),
    ...endsEarly,
    'leases-gone': no('conflict'),
  },
  ending: { ...over, 'leases-gone': (facts) => (facts.openLeases === 0 ? goes('ended', 'grant.ended') : no('conflict')) },
  ended: over,
  cancelled: over,
};

// ---- lease

export type LeaseEvent = 'issued' | 'end' | 'gone' | 'never-existed' | 'try-failed';
const notOpen = {
  issued: no('lease_not_open'),
  end: no('lease_not_open'),
  gone: no('lease_not_open'),
  'never-existed': no('lease_not_open'),
  'try-failed': no('lease_not_open'),
};

/** `end` during `issuing` wins over a late `issued`: the answer that comes afterwards is refused and its object destroyed. */
export const leaseMachine: Machine<LeaseState, LeaseEvent, Record<string, never>> = {
  issuing: {
    issued: goes('live', 'lease.revealed'),
    end: goes('revoking', 'lease.ending', 'revoke-at-target'),
    gone: no('conflict'),
    'never-existed': goes('void', 'lease.voided'),
    'try-failed': no('conflict'),
  },
  live: {
    issued: no('conflict'),
    end: goes('revoking', 'lease.ending', 'revoke-at-target'),
    gone: no('conflict'),
    'never-existed': no('conflict'),
    'try-failed': no('conflict'),
  },
  revoking: {
    issued: no('grant_not_active'),
    end: no('lease_not_open'),
    gone: goes('revoked', 'lease.revoked'),
    'never-existed': no('conflict'),
    'try-failed': goes('revoking', 'lease.revocation-failed', 'revoke-at-target'),
  },
  revoked: notOpen,
  void: notOpen,
};

// ---- review

export type ReviewEvent = 'close';
export interface ReviewFacts {
  /** The grant is over: a use is reviewed when it has ended, not while it lasts. */
  readonly grantOver: boolean;
}
export const reviewMachine: Machine<ReviewState, ReviewEvent, ReviewFacts> = {
  due: { close: (facts) => (facts.grantOver ? goes('closed', 'review.closed') : no('review_not_due')) },
  closed: { close: no('review_not_due') },
};

/** Seconds until the next try of a revocation that failed `tries` times: 1, 2, 4 … at most 300. It never stops. */
export const nextTryInSeconds = (tries: number): number => Math.min(300, 2 ** Math.max(0, tries - 1));
