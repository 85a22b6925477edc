/** The words of the audit log: every type of event, and the exact line it becomes. */
import { canonicalJson, type Json } from './canonical.ts';

/** Each type and the sentence it stands for, in the past tense. `{who}` is the actor. */
export const auditEventTypes = {
  'request.submitted': '{who} asked',
  'request.approval-given': '{who} approved; more approvals are needed',
  'request.approved': '{who} approved',
  'request.denied': '{who} denied',
  'request.withdrawn': '{who} withdrew the request',
  'request.lapsed': 'nobody decided in time',
  'request.glass-broken': '{who} broke the glass',
  'decision.refused': '{who} tried to decide and was refused',
  'grant.opened': 'the grant was opened',
  'grant.started': 'the grant started',
  'grant.expired': 'time was up',
  'grant.returned': '{who} gave it back',
  'grant.revoked': '{who} ended it',
  'grant.offboarded': 'it ended because the person left',
  'grant.incident-closed': '{who} ended everything of the incident',
  'grant.ended': 'the grant ended; every lease was read back as gone',
  'lease.intended': '{who} claimed; the name of the login was fixed',
  'lease.revealed': 'the credential was made and shown to {who}, once',
  'lease.again': '{who} claimed again; one more credential of the same login is made',
  'lease.voided': 'the claim failed; nothing was made at the target',
  'lease.ending': 'the credential is being ended',
  'lease.cut': 'new logins were refused and open sessions cut',
  'lease.revocation-failed': 'ending the credential failed; it will be tried again',
  'lease.revoked': 'the credential was read back as gone',
  'lease.unexplained': 'an object at the target that no lease explains was found; it is being ended',
  'lease.adopted': 'an object at the target that no lease explained was ended',
  'lease.vanished': 'the credential was gone before its time',
  'claim.refused': '{who} tried to claim and was refused',
  'review.due': 'a review became due',
  'review.closed': '{who} closed the review',
  'login.succeeded': '{who} logged in',
  'login.refused': 'a login was refused',
  'logout.done': '{who} logged out',
  'token.issued': 'a terminal was logged in for {who}',
  'token.ended': '{who} ended a terminal login',
  'access.refused': '{who} was refused',
  'alias.linked': '{who} linked another account',
  'alias.unlinked': '{who} unlinked an account',
  'slack.refused': 'a call from Slack was refused',
  'delivery.repeated': '{who} had a message sent again',
  'quarantine.began': 'the database is not the one of before; nothing is opened until an admin lifts the quarantine',
  'quarantine.lifted': '{who} lifted the quarantine',
  'log.continued': 'the published log was longer than the one in the database, and was taken over',
  'export.made': '{who} exported the log',
  'history.pruned': 'requests that were over for long enough were deleted; the log keeps what happened',
  'log.pruned': 'entries of the log that had been exported were deleted; their hashes stay',
} as const satisfies Record<`${string}.${string}`, string>;

export type AuditEventType = keyof typeof auditEventTypes;

/** Who did it: a person through a surface, or one of Halligan's own duties. */
export type AuditActor = { readonly id: string; readonly name: string; readonly via: string } | { readonly system: string };

export interface AuditEvent {
  readonly type: AuditEventType;
  readonly actor: AuditActor;
  /** Whom it concerns, when that is not the actor. */
  readonly person?: string | undefined;
  readonly request?: string | undefined;
  readonly grant?: string | undefined;
  readonly lease?: string | undefined;
  readonly incident?: string | undefined;
  readonly entitlements?: readonly string[] | undefined;
  /** Anything else worth keeping. Never a secret. */
  readonly data?: { readonly [key: string]: Json | undefined } | undefined;
}

/**
 * The leaf: RFC 8785 JSON of the event with its id and its time (RFC 3339, UTC, milliseconds). One line, no newline at its
 * end. Broken Unicode, which RFC 8785 refuses, becomes U+FFFD: a cut-off message of a target must not stop its witness.
 */
export const auditLine = (id: string, at: Date, event: AuditEvent): string =>
  canonicalJson(wellFormed({ ...event, v: 1, id, at: at.toISOString(), actor: { ...event.actor } }));

function wellFormed(value: Json | undefined): Json {
  if (typeof value === 'string') return value.toWellFormed();
  if (value === null || value === undefined || typeof value !== 'object') return value ?? null;
  if (Array.isArray(value)) return value.map(wellFormed);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([key, member]) => [key.toWellFormed(), wellFormed(member)]));
}
