/**
 * Halligan's own login at Vault: made when it is first needed, renewed at two thirds of its life, made anew from the
 * platform's proof (a JWT that is read again each time) when it can be renewed no more. Its loss is told at once, through
 * `warn`; until it is back, calls fail in words, and each of them tries again.
 */
import type { ProviderError, TargetOptions } from '../../domain/provider.ts';
import { failed, saidOf } from './answers.ts';
import type { VaultConfig } from './config.ts';

/** One call to Vault with the token given, or with none. `deadlineMs`: 5,000 unless set. `once`: it makes something, so it is never sent again. */
export type BareCall = (call: {
  readonly method: string;
  readonly path: string;
  readonly body?: object;
  readonly token?: string;
  readonly signal: AbortSignal;
  readonly doing: string;
  readonly deadlineMs?: number;
  readonly once?: boolean;
}) => Promise<unknown>;

export interface Login {
  /** Our token; logs in when there is none. Rejects with `target_forbids` when Vault does not know us, and as any call does. */
  token(signal: AbortSignal): Promise<string>;
  /** After a refusal: whether the token itself is gone. It is then forgotten, and the next call logs in anew. */
  isLost(token: string, signal: AbortSignal): Promise<boolean>;
  /** Forgets the token, and gives it back if a login made it. */
  close(): Promise<void>;
}

interface Held {
  readonly token: string;
  /** In `performance.now()` milliseconds; Infinity: has no end. */
  readonly endsAt: number;
  /** From here on a call takes a new token rather than one that may end on the way. */
  readonly usableTo: number;
}

const loginMs = 5_000;

/** Opens nothing yet. `options.warn` hears of a token that is lost or cannot be renewed. */
export function openLogin(name: string, config: VaultConfig, options: TargetOptions, call: BareCall): Login {
  const { auth } = config;
  let held: Held | undefined;
  let logging: Promise<Held> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  const hold = (token: string, seconds: number): Held => {
    const endsAt = seconds > 0 ? performance.now() + seconds * 1_000 : Number.POSITIVE_INFINITY;
    held = { token, endsAt, usableTo: endsAt - Math.min(2_000, seconds * 200) };
    clearTimeout(timer);
    if (seconds > 0 && !closed) timer = setTimeout(() => void keep(seconds), Math.min(2 ** 31 - 1, seconds * 667)).unref();
    return held;
  };
  const logIn = (): Promise<Held> => {
    logging ??= (async () => {
      const made = auth.method === 'token' ? await lookUp(auth, options, name, call) : await exchange(auth, options, name, call);
      return hold(made.token, made.seconds);
    })().finally(() => {
      logging = undefined;
    });
    return logging;
  };
  const keep = async (seconds: number): Promise<void> => {
    const token = held?.token;
    if (token === undefined || closed) return;
    try {
      const left = await renewed(call, auth, token, seconds);
      if (left === null) await logIn();
      else hold(token, left);
    } catch (error) {
      warnLost(error as ProviderError, seconds);
    }
  };
  const warnLost = (error: ProviderError, seconds: number): void => {
    const left = Math.max(0, Math.round(((held?.endsAt ?? 0) - performance.now()) / 1_000));
    options.warn?.(
      'vault_login_failing',
      `${name}: Halligan's own login at Vault cannot be kept (${left} s are left): ${error.message} ${error.next ?? ''}`.trim(),
    );
    if (!closed) timer = setTimeout(() => void keep(seconds), Math.min(30_000, Math.max(1_000, left * 200))).unref();
  };
  return {
    async token(signal) {
      if (held && held.usableTo > performance.now()) return held.token;
      const made = await untilAborted(logIn(), signal, name);
      return made.token;
    },
    async isLost(token, signal) {
      try {
        await call({ method: 'GET', path: 'auth/token/lookup-self', token, signal, doing: "looking at Halligan's own token" });
        return false;
      } catch (error) {
        if (saidOf(error).status !== 403) return false;
        if (held?.token === token) {
          held = undefined;
          options.warn?.(
            'vault_login_lost',
            `${name}: Vault no longer knows Halligan's own token: it was revoked there, or Vault lost it. Halligan logs in again.`,
          );
        }
        return true;
      }
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      const token = held?.token;
      held = undefined;
      if (token === undefined || auth.method === 'token') return;
      await call({ method: 'POST', path: 'auth/token/revoke-self', body: {}, token, signal: AbortSignal.timeout(2_000), doing: 'logging out' }).catch(
        () => undefined,
      );
    },
  };
}

type Auth = VaultConfig['auth'];

/** The seconds that renewing gave. Null: less than half of the first time's, or nothing, so that a new login is due; a token that was given to us can only be renewed. */
async function renewed(call: BareCall, auth: Auth, token: string, seconds: number): Promise<number | null> {
  const doing = "renewing Halligan's own token";
  const renewing = call({ method: 'POST', path: 'auth/token/renew-self', body: {}, token, signal: AbortSignal.timeout(loginMs), doing }).then(
    (answer) => authOf(answer).seconds,
  );
  if (auth.method === 'token') return renewing;
  const left = await renewing.catch(() => 0);
  return left > seconds / 2 ? left : null;
}

async function exchange(
  auth: Exclude<Auth, { method: 'token' }>,
  options: TargetOptions,
  name: string,
  call: BareCall,
): Promise<{ token: string; seconds: number }> {
  const mount = auth.mount ?? auth.method;
  const proof =
    auth.method === 'approle'
      ? await secret(options, name, auth.secretIdFile === undefined ? { env: auth.secretIdEnv ?? '' } : { file: auth.secretIdFile })
      : (await secret(options, name, { file: auth.jwtFile })).trim();
  const body = auth.method === 'approle' ? { role_id: auth.roleId, secret_id: proof } : { role: auth.role, jwt: proof };
  try {
    return authOf(await call({ method: 'POST', path: `auth/${mount}/login`, body, signal: AbortSignal.timeout(loginMs), doing: 'logging in' }));
  } catch (error) {
    const said = saidOf(error);
    if (said.status !== 400 && said.status !== 403 && said.status !== 404) throw error;
    const who = auth.method === 'approle' ? `auth/${mount}` : `auth/${mount}, role ${auth.role}`;
    throw failed('target_forbids', `${name}: Vault does not accept Halligan's own login (${who}): ${said.message || `status ${said.status}`}.`, said, {
      next:
        auth.method === 'approle'
          ? 'Check the role id and the secret id, which may have expired or been used up.'
          : `Check the role at auth/${mount} and what it binds, and that ${auth.jwtFile} holds a JWT that is still valid.`,
    });
  }
}

async function lookUp(
  auth: Extract<Auth, { method: 'token' }>,
  options: TargetOptions,
  name: string,
  call: BareCall,
): Promise<{ token: string; seconds: number }> {
  const token = (await secret(options, name, auth.tokenFile === undefined ? { env: auth.tokenEnv ?? '' } : { file: auth.tokenFile })).trim();
  const answer = await call({
    method: 'GET',
    path: 'auth/token/lookup-self',
    token,
    signal: AbortSignal.timeout(loginMs),
    doing: "looking at Halligan's own token",
  });
  const ttl = (answer as { data?: { ttl?: unknown } } | null)?.data?.ttl;
  return { token, seconds: typeof ttl === 'number' ? ttl : 0 };
}

async function secret(options: TargetOptions, name: string, ref: { file: string } | { env: string }): Promise<string> {
  try {
    return await options.readSecret(ref);
  } catch (error) {
    throw failed(
      'target_forbids',
      `${name}: Halligan's own proof for Vault cannot be had: ${(error as Error).message}.`,
      { status: 0, message: '' },
      {
        next: 'Mount or write it; it is read again at the next try.',
      },
    );
  }
}

function authOf(answer: unknown): { token: string; seconds: number } {
  const auth = (answer as { auth?: { client_token?: unknown; lease_duration?: unknown } } | null)?.auth;
  if (typeof auth?.client_token !== 'string') throw new Error('Vault answered a login without a token');
  return { token: auth.client_token, seconds: typeof auth.lease_duration === 'number' ? auth.lease_duration : 0 };
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal, name: string): Promise<T> {
  work.catch(() => undefined);
  return new Promise((resolve, reject) => {
    const stop = () => reject(failed('target_timeout', `${name}: logging in to Vault took too long.`, { status: 0, message: '' }));
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
