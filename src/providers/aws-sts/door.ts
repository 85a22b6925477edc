/**
 * The way to one AWS account, and what its answers mean: clients of STS and IAM with Halligan's own access, a deadline on
 * every call, one jittered repetition at most, AWS's own clock, and the translation of every failure into a
 * `ProviderError`. Nothing outside this file sees an error of the SDK, because those carry the request.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { IAMClient } from '@aws-sdk/client-iam';
import { AssumeRoleWithWebIdentityCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { ProviderError, type TargetOptions } from '../../domain/provider.ts';
import type { TargetConfig } from './config.ts';

/** One attempt has this long; nobody else's attempt is waited for. */
export const attemptMs = 3_000;
/** A `Retry-After` that is longer is not waited for, but told. */
const longestPauseMs = 2_000;

type Keys = Awaited<ReturnType<STSClient['config']['credentials']>>;

export interface Clients {
  readonly sts: STSClient;
  readonly iam: IAMClient;
}

/** One account's calls. `run` never throws anything but a `ProviderError`. */
export interface Door {
  readonly name: string;
  readonly config: TargetConfig;
  /** AWS's time, from its last answer; ours before the first. Not ahead of theirs, at most about a second behind. */
  now(): Date;
  /** How far our clock was ahead of AWS's at the last answer, in seconds, beyond what the answer's whole seconds explain; 0 before the first. */
  skewSeconds(): number;
  /** Asks AWS for nothing but its time. */
  readClock(signal: AbortSignal): Promise<Date>;
  /** Halligan's own access keys are those of a session, so that a session made with them lasts an hour at most ("role chaining"). */
  chained(signal: AbortSignal): Promise<boolean>;
  /** Calls AWS, a second time when that may help. */
  run<T>(signal: AbortSignal, doing: string, call: (clients: Clients, abortSignal: AbortSignal) => Promise<T>): Promise<T>;
  close(): void;
}

/** What AWS said: its word for the error, its text, its status. For branching; the text is one line without control characters. */
export interface Said {
  readonly code: string;
  readonly message: string;
  readonly status: number;
}

/** Opens nothing yet: the first call does. */
export function openDoor(name: string, config: TargetConfig, options: TargetOptions): Door {
  const clock = openClock();
  const settings = {
    region: config.region,
    maxAttempts: 1,
    requestHandler: { connectionTimeout: 2_500, requestTimeout: attemptMs, throwOnRequestTimeout: true },
  };
  const at = (address: string | undefined) => (address === undefined ? {} : { endpoint: address });
  const unsigned = new STSClient({ ...settings, ...at(config.endpoint) });
  const login = config.webIdentity ? { credentials: webIdentity(name, config.webIdentity, options, unsigned) } : {};
  const sts = new STSClient({ ...settings, ...at(config.endpoint), ...login });
  const iam = new IAMClient({ ...settings, ...at(config.iamEndpoint), credentials: () => sts.config.credentials() });
  clock.listenTo(sts);
  clock.listenTo(iam);
  const keys = async (): Promise<Keys> => {
    const found = await sts.config.credentials();
    if (found.sessionToken || config.allowStaticKeys) return found;
    throw new ProviderError('target_forbids', `${name}: Halligan's own access is an access key that never ends (${found.accessKeyId}), which is refused.`, {
      next: 'Give Halligan a role (web identity, instance or task role) and unset the access key; or say allowStaticKeys: true for the target.',
      nothingMade: true,
    });
  };
  const door: Door = {
    name,
    config,
    now: clock.now,
    skewSeconds: clock.skewSeconds,
    async readClock(signal) {
      await door.run(signal, 'reading its clock', ({ sts }, abortSignal) => sts.send(new GetCallerIdentityCommand({}), { abortSignal }));
      return clock.now();
    },
    chained: (signal) => bounded(signal, name, "looking for Halligan's own access", async () => Boolean((await keys()).sessionToken)),
    run: (signal, doing, call) =>
      bounded(signal, name, doing, async () => {
        await keys();
        try {
          return await call({ sts, iam }, signal);
        } catch (error) {
          const pause = pauseBefore(error);
          if (pause === null || signal.aborted) throw error;
          await sleep(pause, undefined, { signal });
          return await call({ sts, iam }, signal);
        }
      }),
    close() {
      for (const client of [unsigned, sts, iam]) client.destroy();
    },
  };
  return door;
}

/** AWS's clock as its answers tell it. The time since the last answer is measured, not read from a clock that may be set. */
function openClock() {
  let last: { awsMs: number; aheadMs: number; since: number } | undefined;
  return {
    now: (): Date => (last ? new Date(last.awsMs + performance.now() - last.since) : new Date()),
    skewSeconds: (): number => (last ? last.aheadMs / 1_000 : 0),
    listenTo(client: STSClient | IAMClient): void {
      const hear = (headers: Record<string, string>): void => {
        const awsMs = Date.parse(headers['date'] ?? '');
        // The header has whole seconds: the true time is up to one second later.
        const [before, after] = [Date.now() - awsMs - 1_000, Date.now() - awsMs];
        if (!Number.isNaN(awsMs)) last = { awsMs, aheadMs: before > 0 ? before : Math.min(0, after), since: performance.now() };
      };
      (client as STSClient).middlewareStack.add(
        (next) => async (args) => {
          const answer = await next(args);
          hear((answer.response as { headers?: Record<string, string> } | undefined)?.headers ?? {});
          return answer;
        },
        { step: 'deserialize', priority: 'low', name: 'halliganHearsTheClock' },
      );
    },
  };
}

/** Halligan's own role by a token from a file: the file is read again each time the session is renewed. */
function webIdentity(name: string, { role, tokenFile }: NonNullable<TargetConfig['webIdentity']>, options: TargetOptions, sts: STSClient) {
  return async () => {
    const token = await options.readSecret({ file: tokenFile }).catch((error: Error) => {
      throw new ProviderError('target_forbids', `${name}: Halligan's own token cannot be used: ${oneLine(error.message)}.`, {
        next: 'Correct webIdentity.tokenFile, or mount the token again.',
        nothingMade: true,
      });
    });
    const { Credentials: made } = await sts.send(
      new AssumeRoleWithWebIdentityCommand({ RoleArn: role, RoleSessionName: 'halligan', WebIdentityToken: token, DurationSeconds: 3_600 }),
      { abortSignal: AbortSignal.timeout(attemptMs) },
    );
    if (!made?.AccessKeyId || !made.SecretAccessKey || !made.SessionToken || !made.Expiration)
      throw new ProviderError('target_failed', `${name} answered Halligan's own login without credentials.`, { nothingMade: true });
    return { accessKeyId: made.AccessKeyId, secretAccessKey: made.SecretAccessKey, sessionToken: made.SessionToken, expiration: made.Expiration };
  };
}

/** Ends with the signal, whatever the work does, and translates what it throws. */
export async function bounded<T>(signal: AbortSignal, name: string, doing: string, work: () => Promise<T>): Promise<T> {
  let stop: () => void = () => undefined;
  const stopped = new Promise<never>((_, reject) => {
    stop = () => reject(new ProviderError('target_timeout', `${name} did not answer in time while ${doing}.`));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  stopped.catch(() => undefined);
  try {
    return await Promise.race([stopped, signal.aborted ? stopped : work()]);
  } catch (error) {
    throw signal.aborted && !(error instanceof ProviderError)
      ? new ProviderError('target_timeout', `${name} did not answer in time while ${doing}.`)
      : asProviderError(error, name, doing);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** One line, without control characters, at most 300 long. */
export const oneLine = (text: string): string => {
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
  return line.length > 300 ? `${line.slice(0, 299)}…` : line;
};

interface SdkError {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
  readonly $metadata?: { httpStatusCode?: number };
  readonly $response?: { headers?: Record<string, string> };
}

/** AWS's word for what went wrong, also of an error that is already translated. */
export function saidOf(error: unknown): Said {
  if (error instanceof ProviderError && error.cause) return error.cause as Said;
  const { name, code, message, $metadata } = (error ?? {}) as SdkError;
  const word = typeof code === 'string' && /^E[A-Z_]+$/.test(code) ? code : String(name ?? '');
  return { code: word.replace(/Exception$/, ''), message: oneLine(String(message ?? '')), status: $metadata?.httpStatusCode ?? 0 };
}

const isThrottled = ({ code, status }: Said): boolean => status === 429 || /Throttl|TooManyRequests|RequestLimitExceeded|SlowDown/.test(code);
const isNetwork = ({ code, status, message }: Said): boolean =>
  status === 0 && (/^E[A-Z_]+$/.test(code) || code === 'TimeoutError' || /socket hang up|network/i.test(message));
const isPassing = (said: Said): boolean =>
  isThrottled(said) || said.status >= 500 || isNetwork(said) || said.code === 'ConcurrentModification' || said.code === 'RequestTimeTooSkewed';

/** How long to wait before the one repetition, or null when there shall be none. */
function pauseBefore(error: unknown): number | null {
  if (error instanceof ProviderError) return null;
  const said = saidOf(error);
  if (!isPassing(said)) return null;
  const asked = retryAfterMs(error);
  if (asked > longestPauseMs) return null;
  return asked + 100 + Math.random() * 400;
}

/** What `Retry-After` asks for in milliseconds (RFC 9110 §10.2.3: seconds, or a date); 0 when it asks for nothing. */
function retryAfterMs(error: unknown): number {
  const headers = (error as SdkError)?.$response?.headers ?? {};
  const value = headers['retry-after'];
  if (value === undefined) return 0;
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), 300_000) : 0;
}

/** Whether AWS may have done what was asked although it failed: only an answer that refuses says that it did not. */
export function mayHaveHappened(error: unknown): boolean {
  if (error instanceof ProviderError && error.nothingMade) return false;
  const said = saidOf(error);
  return !(said.status >= 400 && said.status < 500);
}

function asProviderError(error: unknown, name: string, doing: string): ProviderError {
  if (error instanceof ProviderError) return error;
  const said = saidOf(error);
  const [type, text, next] = inWords(said, name, doing);
  const pause = retryAfterMs(error);
  const translated = new ProviderError(type, text, {
    ...(next === undefined ? {} : { next }),
    ...(pause > 0 ? { retryAt: new Date(Date.now() + pause) } : {}),
  });
  // For our own branching. The text is AWS's, which holds names but no keys.
  Object.defineProperty(translated, 'cause', { value: said, enumerable: false });
  return translated;
}

type Words = [type: ConstructorParameters<typeof ProviderError>[0], text: string, next?: string];
const printRights = 'Compare its rights with what halligan print aws-policy and aws-trust print (docs/providers.md).';

function inWords(said: Said, name: string, doing: string): Words {
  const { code, message, status } = said;
  if (isThrottled(said))
    return [
      'target_unreachable',
      `${name}: AWS takes no more calls now while ${doing} (${code || status}).`,
      'It is tried again; look for who else calls IAM much.',
    ];
  switch (code) {
    case 'AccessDenied':
      return ['target_forbids', `${name} refused while ${doing}: ${message}.`, printRights];
    case 'NoSuchEntity':
      return ['target_missing_role', `${name}: ${message}.`, "Make it there, or correct the entitlement's grant."];
    case 'PackedPolicyTooLarge':
      return [
        'target_forbids',
        `${name}: the session policy and the tags together are larger than AWS takes: ${message}.`,
        "Shorten the policy of the entitlement's grant, or its tags.",
      ];
    case 'MalformedPolicyDocument':
      return ['target_forbids', `${name}: AWS does not understand the session policy: ${message}.`, "Correct the policy of the entitlement's grant."];
    case 'ExpiredToken':
    case 'InvalidClientTokenId':
    case 'SignatureDoesNotMatch':
    case 'UnrecognizedClient':
    case 'InvalidIdentityToken':
    case 'IDPRejectedClaim':
      return [
        'target_forbids',
        `${name} does not accept Halligan's own access: ${message || code}.`,
        "Renew Halligan's own credentials, and look at its clock.",
      ];
    case 'RequestExpired':
    case 'RequestTimeTooSkewed':
      return ['target_failed', `${name}: AWS refuses calls from a clock that is so far off: ${message}.`, 'Synchronise the clock of this machine (NTP).'];
    case 'CredentialsProviderError':
      return [
        'target_forbids',
        `${name}: Halligan finds no AWS access of its own: ${message}.`,
        'Give it a role (web identity, instance or task role), or set webIdentity for the target.',
      ];
    case 'RegionDisabled':
      return ['target_forbids', `${name}: STS is turned off for this region: ${message}.`, 'Turn it on in the account settings of IAM, or correct "region".'];
    default:
  }
  if (code === 'TimeoutError' || code === 'ETIMEDOUT') return ['target_timeout', `${name} did not answer in time while ${doing}.`];
  if (/CERT|TLS|SSL|SELF_SIGNED/.test(code))
    return ['target_unreachable', `${name} could not prove who it is: ${message}.`, 'Look at the endpoint and at the certificates that this machine trusts.'];
  if (isNetwork(said)) return ['target_unreachable', `${name}: AWS could not be reached while ${doing} (${code}).`];
  return ['target_failed', `${name} failed while ${doing}: ${message || code}${status ? ` (${status})` : ''}.`];
}
