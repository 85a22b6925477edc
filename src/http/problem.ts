/** The only place that turns an error code into a status, and an error into an answer (RFC 9457). */
import type { NextFunction, Request, Response } from 'express';
import type { Logger } from 'pino';
import { type ErrorCode, errorCodes, isRefusal, type LoginNeed, Refusal } from '../domain/errors.ts';

export const statusOf: Record<ErrorCode, number> = {
  bad_input: 400,
  body_too_large: 413,
  break_glass_not_offered: 422,
  conflict: 409,
  csrf_refused: 403,
  cursor_invalid: 400,
  database_unavailable: 503,
  decision_repeated: 409,
  device_may_not_decide: 403,
  duration_invalid: 400,
  duration_too_long: 422,
  entitlement_unknown: 404,
  grant_not_active: 409,
  idempotency_key_reused: 422,
  internal: 500,
  lease_conflict: 409,
  lease_not_open: 409,
  login_code_invalid: 400,
  login_pending: 400,
  login_refused: 401,
  login_slow_down: 429,
  media_type_unsupported: 415,
  method_not_allowed: 405,
  misdirected: 421,
  not_an_approver: 403,
  not_eligible: 403,
  not_found: 404,
  not_logged_in: 401,
  policy_changed: 409,
  quarantine_not_on: 409,
  quarantined: 503,
  pruned: 410,
  rate_limited: 429,
  request_already_decided: 409,
  request_lapsed: 409,
  review_not_due: 409,
  review_overdue: 403,
  reviewer_not_allowed: 403,
  seen_stale: 409,
  self_decision: 403,
  session_over: 401,
  target_failed: 502,
  target_forbids: 502,
  target_missing_role: 502,
  target_timeout: 504,
  target_unreachable: 502,
  alias_taken: 409,
  delivery_not_repeatable: 409,
  groups_stale: 401,
  link_code_invalid: 400,
  slack_may_not_decide: 403,
  slack_refused: 401,
  step_up_required: 401,
  too_many_pending: 429,
};

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly detail: string;
  readonly next?: string;
  readonly faults?: readonly { path: string; message: string }[];
  /** The login that would do; see `LoginNeed`. */
  readonly maxAge?: number;
  readonly acrValues?: readonly string[];
  readonly groupsMaxAge?: number;
}

export const problemOf = (refusal: Refusal): Problem => ({
  type: `urn:halligan:error:${refusal.code}`,
  title: errorCodes[refusal.code],
  status: statusOf[refusal.code],
  code: refusal.code,
  detail: refusal.message,
  ...(refusal.next === undefined ? {} : { next: refusal.next }),
  ...(refusal.faults === undefined ? {} : { faults: refusal.faults }),
  ...loginMembers(refusal.login),
});

const loginMembers = ({ maxAgeSeconds, acrValues, groupsMaxAgeSeconds }: LoginNeed = {}): Pick<Problem, 'maxAge' | 'acrValues' | 'groupsMaxAge'> => ({
  ...(maxAgeSeconds === undefined ? {} : { maxAge: maxAgeSeconds }),
  ...(acrValues === undefined ? {} : { acrValues }),
  ...(groupsMaxAgeSeconds === undefined ? {} : { groupsMaxAge: groupsMaxAgeSeconds }),
});

/**
 * The challenge of a 401. Where a fresher or stronger login is what is missing, it is that of RFC 9470 §3;
 * `groups_max_age` is our own parameter beside it, which RFC 9110 §11.6.1 allows.
 */
function challengeOf({ login, message }: Refusal): string {
  if (!login) return 'Bearer realm="halligan"';
  // RFC 6750 §3: a description has no quote, no backslash, and nothing beyond ASCII.
  const description = message.replace(/[^\x20-\x7e]|["\\]/g, '?');
  const { maxAgeSeconds, acrValues, groupsMaxAgeSeconds } = login;
  return [
    'Bearer realm="halligan"',
    'error="insufficient_user_authentication"',
    `error_description="${description}"`,
    ...(maxAgeSeconds === undefined ? [] : [`max_age="${maxAgeSeconds}"`]),
    ...(acrValues === undefined ? [] : [`acr_values="${acrValues.join(' ')}"`]),
    ...(groupsMaxAgeSeconds === undefined ? [] : [`groups_max_age="${groupsMaxAgeSeconds}"`]),
  ].join(', ');
}

/** What any error is to a caller: a refusal stays itself; what the parser, the database or a bug threw gets its code and keeps its inside to the log. */
export function refusalOf(error: unknown, log: Logger): Refusal {
  if (isRefusal(error)) return error;
  const { type, status, code, message } = (error ?? {}) as { type?: string; status?: number; code?: string; message?: string };
  if (type === 'entity.too.large') return new Refusal('body_too_large', 'The body is larger than 256 kB.');
  if (type === 'entity.parse.failed') return new Refusal('bad_input', 'The body is not valid JSON.');
  if (type?.startsWith('encoding.') || type?.startsWith('charset.') || type === 'entity.verify.failed')
    return new Refusal('bad_input', 'The body is in an encoding that Halligan does not read.');
  if (status === 400 && error instanceof URIError) return new Refusal('bad_input', 'The address is not well formed.');
  if (isDatabaseLoss(code, message)) {
    log.error({ code: 'database_unavailable', why: message }, 'the database did not answer');
    return new Refusal('database_unavailable', undefined, { next: 'Try again in a few seconds. What was open still ends on time.' });
  }
  if (typeof status === 'number' && status >= 400 && status < 500) return new Refusal('bad_input', 'The request could not be read.');
  log.error({ code: 'internal', why: message, stack: error instanceof Error ? error.stack : undefined }, 'an error that was not foreseen');
  return new Refusal('internal', undefined, { next: 'The log of the server says more.' });
}

const lost = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOTFOUND',
  'ETIMEDOUT',
  'EPIPE',
  '57P01',
  '57P02',
  '57P03',
  '53300',
  '53100',
  '25006',
  '08006',
  '08001',
  '08003',
]);
const isDatabaseLoss = (code: string | undefined, message: string | undefined): boolean =>
  (code !== undefined && lost.has(code)) || /Connection terminated|timeout exceeded when trying to connect|Query read timeout/.test(message ?? '');

/** Sends a problem. `WWW-Authenticate` goes with every 401, `Retry-After` with every 429 and 503. */
export function sendProblem(response: Response, refusal: Refusal): void {
  const problem = problemOf(refusal);
  if (problem.status === 401) response.setHeader('WWW-Authenticate', challengeOf(refusal));
  if (problem.status === 429 || problem.status === 503) response.setHeader('Retry-After', '5');
  response.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
}

/** The last handler of the API. */
export const problemHandler = (log: Logger) => (error: unknown, _request: Request, response: Response, next: NextFunction) => {
  if (response.headersSent) return next(error);
  sendProblem(response, refusalOf(error, log));
};
