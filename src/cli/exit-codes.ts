/** What the number that `halligan` exits with means, and which number each refusal becomes. The only table of its kind; a test keeps it complete. */
import type { ErrorCode } from '../domain/errors.ts';

export const exit = { ok: 0, error: 1, usage: 2, timedOut: 3, notLoggedIn: 4, denied: 5, notEligible: 6, pending: 8, interrupted: 130 } as const;

/** Each exit code with its meaning, for `halligan help exit-codes` and docs/cli.md. */
export const exitMeanings: readonly (readonly [code: number, meaning: string])[] = [
  [exit.ok, 'it is granted, or it is done'],
  [exit.error, 'an error; the words on stderr say which'],
  [exit.usage, 'the command was not written as it must be'],
  [exit.timedOut, 'nobody decided in time, or the request was withdrawn'],
  [exit.notLoggedIn, 'not logged in: halligan login'],
  [exit.denied, 'denied, or the access is closed'],
  [exit.notEligible, 'you are not one of those who may do this'],
  [exit.pending, 'the request waits for a decision (--no-wait)'],
  [exit.interrupted, 'ended by Ctrl-C; a request that was waiting still waits'],
];

const codes: Record<ErrorCode, number> = {
  bad_input: exit.usage,
  body_too_large: exit.usage,
  break_glass_not_offered: exit.usage,
  conflict: exit.error,
  csrf_refused: exit.error,
  cursor_invalid: exit.error,
  database_unavailable: exit.error,
  decision_repeated: exit.error,
  device_may_not_decide: exit.notEligible,
  duration_invalid: exit.usage,
  duration_too_long: exit.usage,
  entitlement_unknown: exit.usage,
  grant_not_active: exit.denied,
  idempotency_key_reused: exit.error,
  internal: exit.error,
  lease_conflict: exit.error,
  lease_not_open: exit.denied,
  login_code_invalid: exit.notLoggedIn,
  login_pending: exit.notLoggedIn,
  login_refused: exit.notLoggedIn,
  login_slow_down: exit.notLoggedIn,
  media_type_unsupported: exit.error,
  method_not_allowed: exit.error,
  misdirected: exit.error,
  not_an_approver: exit.notEligible,
  not_eligible: exit.notEligible,
  not_found: exit.error,
  not_logged_in: exit.notLoggedIn,
  policy_changed: exit.denied,
  rate_limited: exit.error,
  request_already_decided: exit.error,
  request_lapsed: exit.timedOut,
  review_not_due: exit.error,
  review_overdue: exit.notEligible,
  reviewer_not_allowed: exit.notEligible,
  seen_stale: exit.error,
  self_decision: exit.notEligible,
  session_over: exit.notLoggedIn,
  target_failed: exit.error,
  target_forbids: exit.error,
  target_missing_role: exit.error,
  target_timeout: exit.error,
  target_unreachable: exit.error,
  alias_taken: exit.error,
  delivery_not_repeatable: exit.error,
  groups_stale: exit.notLoggedIn,
  link_code_invalid: exit.error,
  slack_may_not_decide: exit.notEligible,
  slack_refused: exit.error,
  step_up_required: exit.notLoggedIn,
  too_many_pending: exit.error,
};

/** The exit code of a refusal; 1 for a code of a newer server that this table does not know. */
export const exitCodeOf = (code: string): number => (Object.hasOwn(codes, code) ? codes[code as ErrorCode] : exit.error);
