/** The way to one Vault target: node-vault with our own login, deadlines on every call, and answers whose form is checked. */
import nodeVault from 'node-vault';
import { z } from 'zod';
import { ProviderError, type TargetOptions } from '../../domain/provider.ts';
import { asFailure, failed, saidOf } from './answers.ts';
import type { VaultConfig } from './config.ts';
import { type BareCall, openLogin } from './login.ts';
import { openSender, type Sender } from './send.ts';

export interface Call<T> {
  readonly method: 'GET' | 'POST' | 'LIST' | 'DELETE';
  readonly path: string;
  readonly body?: object;
  /** Another token than our own: that of a lease. */
  readonly token?: string;
  readonly signal: AbortSignal;
  /** Finishes the sentence "… while". */
  readonly doing: string;
  /** What the answer must look like. */
  readonly shape: z.ZodType<T>;
  /** Milliseconds, 5,000 unless set; never longer than `signal`. */
  readonly deadlineMs?: number;
  /** Makes something, so it is sent once only. */
  readonly once?: boolean;
}

export interface Vault {
  readonly name: string;
  readonly config: VaultConfig;
  /** Throws `ProviderError` only. */
  call<T>(call: Call<T>): Promise<T>;
  /** Logs in when that is not done yet, after which `skewMs` is known. */
  ready(signal: AbortSignal): Promise<void>;
  /** By how many milliseconds Vault's clock is ahead of ours: as `learnSkew` told, unless a later answer shows that a clock was set anew; otherwise to about a second. */
  skewMs(): number;
  learnSkew(ms: number): void;
  close(): Promise<void>;
}

/** For answers of which nothing is read. */
export const anything = z.unknown();

/** Opens nothing yet: the first call logs in. */
export function openVault(name: string, config: VaultConfig, options: TargetOptions): Vault {
  const address = config.address.replace(/\/$/, '');
  const { tlsCaFile } = config;
  const authority = (file: string): Promise<string> =>
    options.readSecret({ file }).catch((error: unknown) => {
      const words = `${name}: the authority by which Vault is known cannot be had: ${(error as Error).message}.`;
      throw failed('target_unreachable', words, { status: 0, message: '' }, { next: 'Mount it, or correct "tlsCaFile"; it is read again at the next try.' });
    });
  const sender = openSender(() => (tlsCaFile === undefined ? undefined : authority(tlsCaFile)));
  const bare = bareCalls(name, address, config.namespace, sender);
  const login = openLogin(name, config, options, bare);

  const send = async <T>(call: Call<T>, token: string): Promise<T> => {
    const { shape, ...rest } = call;
    const answer = await bare({ ...rest, token });
    const parsed = shape.safeParse(answer);
    if (parsed.success) return parsed.data;
    throw failed(
      'target_failed',
      `${name}: what answered at ${address} while ${call.doing} does not look like Vault.`,
      { status: 0, message: '' },
      { next: 'Correct "address".' },
    );
  };
  let precise: number | undefined;
  return {
    name,
    config,
    async ready(signal) {
      if (signal.aborted) throw asFailure({ code: 'ABORT_ERR' }, name, address, 'logging in', true);
      await login.token(signal).catch((error: unknown) => {
        throw asFailure(error, name, address, 'logging in', false);
      });
    },
    skewMs: () => (precise !== undefined && Math.abs(precise - sender.skewMs()) < 2_000 ? precise : sender.skewMs()),
    learnSkew(ms) {
      precise = ms;
    },
    async call(call) {
      try {
        if (call.signal.aborted) throw asFailure({ code: 'ABORT_ERR' }, name, address, call.doing, true);
        if (call.token !== undefined) return await send(call, call.token);
        const token = await login.token(call.signal);
        try {
          return await send(call, token);
        } catch (error) {
          if (saidOf(error).status !== 403 || !(await login.isLost(token, call.signal))) throw error;
        }
        return await send(call, await login.token(call.signal));
      } catch (error) {
        if (error instanceof ProviderError) throw error;
        throw failed('target_failed', `${name}: Halligan failed while ${call.doing}: ${(error as Error).message}.`, { status: 0, message: '' });
      }
    },
    async close() {
      await login.close();
      sender.close();
    },
  };
}

/** Calls through node-vault, each with its deadline; the token is the caller's. */
function bareCalls(name: string, address: string, namespace: string | undefined, sender: Sender): BareCall {
  // What is left out of these options node-vault takes from the environment, so each is set, and again where "" counts as left out.
  const client = nodeVault({ endpoint: address, apiVersion: 'v1', debug: () => undefined, 'request-promise': { defaults: () => sender.send } });
  Object.assign(client, { token: '', namespace: namespace ?? '', pathPrefix: '', noCustomHTTPVerbs: false });

  return async ({ method, path, body, token, signal, doing, deadlineMs = 5_000, once = false }) => {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]);
    try {
      return await client.request({
        // Vault's own verb LIST is not HTTP's, and some balancers refuse it; Vault reads this as the same.
        path: `/${path.split('/').map(encodeURIComponent).join('/')}${method === 'LIST' ? '?list=true' : ''}`,
        method: method === 'LIST' ? 'GET' : method,
        ...(body === undefined ? {} : { json: body }),
        headers: token === undefined ? {} : { 'X-Vault-Token': token },
        signal: limited,
        once,
      });
    } catch (error) {
      throw asFailure(error, name, address, doing, limited.aborted);
    }
  };
}
