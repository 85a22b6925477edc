/**
 * Every way Halligan says no, by a stable code. Callers branch on `code`; people read `message`, which says what
 * happened and why, and `next`, which says what to do. Only `http/problem.ts` turns a code into a status.
 */
export const errorCodes = {
  bad_input: 'What was sent does not have the right form.',
  body_too_large: 'What was sent is larger than Halligan accepts.',
  conflict: 'Somebody else changed the same thing at the same moment.',
  cursor_invalid: 'The cursor is not one that Halligan gave out.',
  csrf_refused: 'A write came from a page that is not ours, or without its token.',
  database_unavailable: 'Halligan cannot reach its own database.',
  device_may_not_decide: 'A login by device code may ask and claim, but not decide.',
  duration_invalid: 'The duration is not written as a duration, or is zero.',
  duration_too_long: 'The duration is longer than the entitlement allows.',
  entitlement_unknown: 'No such entitlement.',
  break_glass_not_offered: 'One of the entitlements cannot be opened by break-glass.',
  grant_not_active: 'The grant has not started, is ending, or has ended.',
  idempotency_key_reused: 'The same Idempotency-Key came with a different request.',
  internal: 'Halligan failed in a way it did not foresee.',
  lease_conflict: 'Another claim for the same entitlement is under way.',
  lease_not_open: 'The lease is not in a state in which this can be done.',
  login_code_invalid: 'The login code is unknown, used, or too old.',
  login_pending: 'The device code has not been confirmed yet.',
  login_refused: 'The identity provider or its answer was not accepted.',
  login_slow_down: 'The device code is asked for too often.',
  media_type_unsupported: 'The body is not JSON.',
  method_not_allowed: 'The address does not take this method.',
  misdirected: 'The call was sent to another host name than the one Halligan serves.',
  not_an_approver: 'The policy does not let this person decide.',
  not_eligible: 'The policy does not let this person ask for this.',
  not_found: 'There is no such thing, or it is not yours to see.',
  not_logged_in: 'The call carries no valid login.',
  quarantine_not_on: 'Halligan is not in quarantine.',
  quarantined: 'Halligan is in quarantine: nothing is opened until an admin has looked at it.',
  policy_changed: 'The policy changed since the approval, and the approval no longer satisfies it.',
  pruned: 'That part of the log was deleted after it had been exported.',
  rate_limited: 'Too many calls in a short time.',
  request_already_decided: 'The request has already left the pending state.',
  request_lapsed: 'Nobody decided in time.',
  review_not_due: 'The review is already closed.',
  review_overdue: 'An earlier break-glass of the same person still has an overdue review.',
  reviewer_not_allowed: 'The policy does not let this person close the review.',
  seen_stale: 'What was shown is no longer what would be granted.',
  self_decision: 'Nobody decides on their own request.',
  decision_repeated: 'The same person already decided on this request.',
  session_over: 'The login session has ended.',
  target_forbids: 'The target refused: Halligan lacks a right there.',
  target_missing_role: 'What the entitlement opens does not exist at the target.',
  target_timeout: 'The target did not answer in time.',
  target_unreachable: 'The target could not be reached.',
  target_failed: 'The target answered with an error.',
  alias_taken: 'That account is already linked to somebody else, or you have another one linked.',
  delivery_not_repeatable: 'The message is not one that can be sent again.',
  groups_stale: 'Your groups were read at the identity provider too long ago for this.',
  link_code_invalid: 'The code to link an account is unknown, used, or older than ten minutes.',
  slack_may_not_decide: 'The policy does not let a request for this be decided in Slack.',
  slack_refused: 'A call that claims to come from Slack was not accepted.',
  step_up_required: 'This asks for a fresher or stronger login than the one it came with.',
  too_many_pending: 'This person has too many requests waiting.',
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** The login that would do, where a refusal is about the login it came with. In seconds; what is left out is not asked for. */
export interface LoginNeed {
  /** The most since the person proved who they are (`auth_time`). */
  readonly maxAgeSeconds?: number;
  /** How they must have proved it (`acr`): each of these. */
  readonly acrValues?: readonly string[];
  /** The most since their groups were read at the identity provider. */
  readonly groupsMaxAgeSeconds?: number;
}

/** A coded "no". `message` is for people and never carries a secret; `next` is the next step, where there is one. */
export class Refusal extends Error {
  readonly code: ErrorCode;
  readonly next: string | undefined;
  /** The faults one by one, when there are several: `path` points into what was sent. */
  readonly faults: readonly { path: string; message: string }[] | undefined;
  /** The login that would do. */
  readonly login: LoginNeed | undefined;
  constructor(code: ErrorCode, message?: string, more: { next?: string; faults?: { path: string; message: string }[]; login?: LoginNeed } = {}) {
    super(message ?? errorCodes[code]);
    this.name = 'Refusal';
    this.code = code;
    this.next = more.next;
    this.faults = more.faults;
    this.login = more.login;
  }
}

/** Whether this is a Refusal with one of these codes (any code when none is named). */
export const isRefusal = (error: unknown, ...codes: ErrorCode[]): error is Refusal =>
  error instanceof Refusal && (codes.length === 0 || codes.includes(error.code));
