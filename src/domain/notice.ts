/** What people are told without asking, where it is sent, and in which order. Pure. */
import type { AuditEventType } from './audit-event.ts';

/** The events that people are told of. The database's row of one is written in the event's own transaction. */
export const toldEvents = [
  'request.submitted',
  'request.approval-given',
  'request.approved',
  'request.denied',
  'request.withdrawn',
  'request.lapsed',
  'request.glass-broken',
  'lease.revealed',
  'grant.started',
  'grant.expired',
  'grant.returned',
  'grant.revoked',
  'grant.offboarded',
  'grant.incident-closed',
  'lease.revoked',
  'lease.revocation-failed',
  'grant.ended',
  'review.due',
  'review.closed',
] as const satisfies readonly AuditEventType[];

/** An event, or what time alone brings: a grant that ends in ten or two minutes. */
export type NoticeType = (typeof toldEvents)[number] | 'grant.ends-soon';

/** Whether people are told of this type of event. */
export const isTold = (type: AuditEventType): type is (typeof toldEvents)[number] => (toldEvents as readonly string[]).includes(type);

/** Stands in a route for whoever may decide, each by themselves. */
export const approvers = 'approvers';

/** One step of a ladder: whom to tell, and how long after the request. A step whose time comes after the decision is left out. */
export interface RouteStep {
  readonly afterSeconds: number;
  /** Slack channels (ids) and `approvers`. */
  readonly slack: readonly string[];
  /** Mail addresses and `approvers`. */
  readonly email: readonly string[];
  /** Names of webhooks. */
  readonly webhooks: readonly string[];
}

/** How long before its end a holder is reminded, in seconds. */
export const remindBeforeSeconds = [600, 120] as const;
