/** Calls of Slack's Web API: with a deadline, without retries of their own, with the token read anew for each, so that a new one is picked up. */
import { type Logger, LogLevel, WebAPIHTTPError, WebAPIPlatformError, WebAPIRateLimitedError, WebClient } from '@slack/web-api';
import { readSecret } from '../config/secrets.ts';
import type { SlackConfig } from '../config/tell.ts';

/** Slack's libraries print whole bodies; nothing of theirs reaches our log. */
export const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  setLevel: () => undefined,
  getLevel: () => LogLevel.ERROR,
  setName: () => undefined,
};

/** Slack did not do what it was asked. `code` is Slack's own word, or `no_answer`. The message is for people and holds no secret. */
export class SlackFault extends Error {
  readonly code: string;
  /** Slack asked to wait so long. */
  readonly retryAfterSeconds: number | undefined;
  constructor(code: string, message: string, retryAfterSeconds?: number) {
    super(message);
    this.name = 'SlackFault';
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export interface SlackAnswer {
  readonly channel?: string | { readonly id?: string };
  readonly ts?: string;
  readonly team_id?: string;
  readonly app_id?: string;
  readonly response_metadata?: { readonly scopes?: readonly string[] };
}

export interface SlackApi {
  /** One call. Throws `SlackFault`. */
  call(method: string, args: Readonly<Record<string, unknown>>): Promise<SlackAnswer>;
}

const deadlineMs = 8_000;

/** Codes that say that Slack does not take our token: nothing goes until somebody mends it. */
export const tokenFaults: ReadonlySet<string> = new Set([
  'invalid_auth',
  'not_authed',
  'account_inactive',
  'token_revoked',
  'token_expired',
  'org_login_required',
  'team_access_not_granted',
  'missing_scope',
  'no_token',
]);

/** The Web API as this config reaches it. */
export function slackApi(config: Pick<SlackConfig, 'apiUrl' | 'botToken'>): SlackApi {
  const client = new WebClient(undefined, {
    slackApiUrl: config.apiUrl.endsWith('/') ? config.apiUrl : `${config.apiUrl}/`,
    allowAbsoluteUrls: false,
    retryConfig: { retries: 0 },
    rejectRateLimitedCalls: true,
    maxRequestConcurrency: 20,
    timeout: deadlineMs,
    logger: silent,
  });
  return {
    async call(method, args) {
      const token = await readSecret(config.botToken).catch(() => {
        throw new SlackFault('no_token', "Slack's bot token cannot be read: look at slack.botTokenFile");
      });
      try {
        return (await client.apiCall(method, { ...args, token })) as SlackAnswer;
      } catch (error) {
        throw asFault(error);
      }
    },
  };
}

function asFault(error: unknown): SlackFault {
  if (error instanceof WebAPIRateLimitedError) return new SlackFault('ratelimited', 'Slack asked us to slow down', error.retryAfter);
  if (error instanceof WebAPIPlatformError) {
    const { error: code } = error.data;
    const word = /^[a-z_]{1,60}$/.test(code) ? code : 'an error of its own';
    if (tokenFaults.has(word))
      return new SlackFault(word, `Slack does not take our bot token (${word}): install the app again and put the new token where slack.botTokenFile points`);
    return new SlackFault(word, `Slack answered ${word}`);
  }
  if (error instanceof WebAPIHTTPError) return new SlackFault('no_answer', `Slack answered with status ${error.statusCode}`);
  return new SlackFault('no_answer', 'Slack could not be reached, or did not answer in time');
}
