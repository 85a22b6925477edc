/**
 * The way to a cluster's API server, and what its answers mean: deadlines, one more try where that can help, and the
 * translation of every failure into a `ProviderError`. The library's own errors hold headers and bodies and go no further.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ApiException,
  AuthenticationV1Api,
  AuthorizationV1Api,
  CoreV1Api,
  createConfiguration,
  type HttpInfo,
  KubeConfig,
  RbacAuthorizationV1Api,
  type RequestContext,
  ServerConfiguration,
  VersionApi,
} from '@kubernetes/client-node';
import { ProviderError, type TargetOptions } from '../../domain/provider.ts';
import { type Access, readAccess } from './access.ts';
import type { TargetConfig } from './config.ts';
import { oneLine } from './marker.ts';

/** The parts of the API that Halligan uses. */
export interface Apis {
  readonly rbac: RbacAuthorizationV1Api;
  readonly core: CoreV1Api;
  readonly authorization: AuthorizationV1Api;
  readonly authentication: AuthenticationV1Api;
  readonly version: VersionApi;
}

export interface Answer<T> {
  readonly data: T;
  /** The API server's clock when it answered, in whole seconds (RFC 9110 §6.6.1); null when it did not say. */
  readonly at: Date | null;
}

/** One cluster. `call` never throws anything but a `ProviderError`. */
export interface Door {
  readonly name: string;
  readonly config: TargetConfig;
  /**
   * One call, and once more when it was throttled, when the server stumbled or when the connection broke: so never more
   * than twice. `doing` says what for: `making the binding`. What must not be done twice must survive it.
   */
  call<T>(signal: AbortSignal, doing: string, send: (apis: Apis) => Promise<HttpInfo<T>>): Promise<Answer<T>>;
  access(): Promise<Access>;
  readonly options: TargetOptions;
  close(): Promise<void>;
}

/** A single call that takes longer is given up, so that one dead connection does not eat the whole time. */
const callMs = 5_000;
/** Asked to wait longer than this, the caller is told when to come back instead. */
const longestWaitMs = 5_000;

type Dispatcher = NonNullable<ReturnType<RequestContext['getDispatcher']>>;

/** Connects nothing yet: the first call does. */
export function openDoor(name: string, config: TargetConfig, options: TargetOptions): Door {
  const connections = connectionKeeper();
  const access = () => readAccess(name, config, options);
  const once = async <T>(signal: AbortSignal, send: (apis: Apis) => Promise<HttpInfo<T>>): Promise<Answer<T>> => {
    const info = await send(apisFor(await access(), connections, AbortSignal.any([signal, AbortSignal.timeout(callMs)])));
    return { data: info.data, at: dateOf(info.headers) };
  };
  return {
    name,
    config,
    options,
    access,
    close: connections.close,
    async call(signal, doing, send) {
      for (let tries = 1; ; tries += 1) {
        if (signal.aborted) throw timedOut(name, doing);
        try {
          return await once(signal, send);
        } catch (error) {
          const wait = tries === 1 && !signal.aborted ? waitBefore(error) : null;
          if (wait === null) throw asProviderError(error, name, doing, signal);
          await sleep(wait, undefined, { signal }).catch(() => undefined);
        }
      }
    },
  };
}

/** Milliseconds to wait before trying again, or null when trying again would not help. */
function waitBefore(error: unknown): number | null {
  if (error instanceof ProviderError) return null;
  const { status, reason, retryAfterMs, dead } = factsOf(error);
  if (retryAfterMs !== null && retryAfterMs > longestWaitMs) return null;
  const again = [429, 500, 502, 503, 504].includes(status) || (status === 409 && reason === 'Conflict') || dead;
  return again ? (retryAfterMs ?? 0) + 50 + Math.random() * 250 : null;
}

/** The library makes a new pool of connections for each call; these are kept as long as they stand for the same server, authority and certificate. */
function connectionKeeper() {
  let kept: { key: string; dispatcher: Dispatcher } | undefined;
  const drop = (): Promise<void> => kept?.dispatcher.close().catch(() => undefined) ?? Promise.resolve();
  return {
    use(context: RequestContext, { cluster, user }: Access): void {
      const fresh = context.getDispatcher();
      if (!fresh) return;
      const key = createHash('sha256')
        .update(JSON.stringify([cluster, user.certData, user.keyData]))
        .digest('hex');
      if (kept?.key !== key) {
        void drop();
        kept = { key, dispatcher: fresh };
      }
      context.setDispatcher(kept.dispatcher);
    },
    close: async (): Promise<void> => {
      await drop();
      kept = undefined;
    },
  };
}

function apisFor(access: Access, connections: ReturnType<typeof connectionKeeper>, signal: AbortSignal): Apis {
  const config = new KubeConfig();
  config.loadFromClusterAndUser(access.cluster, access.user);
  const configuration = createConfiguration({
    baseServer: new ServerConfiguration(access.cluster.server.replace(/\/+$/, ''), {}),
    authMethods: {
      default: {
        getName: () => 'halligan',
        applySecurityAuthentication: async (context: RequestContext) => {
          await config.applySecurityAuthentication(context);
          connections.use(context, access);
          context.setSignal(signal);
          context.setHeaderParam('User-Agent', 'halligan');
        },
      },
    },
  });
  return {
    rbac: new RbacAuthorizationV1Api(configuration),
    core: new CoreV1Api(configuration),
    authorization: new AuthorizationV1Api(configuration),
    authentication: new AuthenticationV1Api(configuration),
    version: new VersionApi(configuration),
  };
}

const dateOf = (headers: Readonly<Record<string, string>>): Date | null => {
  const at = new Date(headers['date'] ?? '');
  return Number.isNaN(at.getTime()) ? null : at;
};

interface Facts {
  /** 0 when there was no answer. */
  readonly status: number;
  readonly reason: string;
  readonly message: string;
  readonly retryAfterMs: number | null;
  /** The connection failed or no answer came, so whether the call was carried out is not known. */
  readonly dead: boolean;
}

/** What an error of the library, or one that is translated already, says. */
export function factsOf(error: unknown): Facts {
  if (error instanceof ProviderError)
    return (error.cause as Facts | undefined) ?? { status: 0, reason: '', message: error.message, retryAfterMs: null, dead: false };
  if (error instanceof ApiException) {
    const headers = (error.headers ?? {}) as Record<string, string>;
    const body = bodyOf(error.body);
    const after = Number(headers['retry-after']);
    return {
      status: error.code,
      reason: body.reason,
      message: body.message || `status ${error.code}`,
      retryAfterMs: headers['retry-after'] !== undefined && Number.isFinite(after) ? Math.max(0, after * 1_000) : null,
      dead: false,
    };
  }
  const { name, code, message } = deepest(error);
  return {
    status: 0,
    reason: code || name,
    message: oneLine(message),
    retryAfterMs: null,
    dead: !/CERT|SIGNATURE|ALTNAME|SELF_SIGNED|ERR_TLS|ERR_SSL/.test(code),
  };
}

/** Error bodies are strings; a `Status` object in them says why (Kubernetes API conventions, "Response Status Kind"). */
function bodyOf(body: unknown): { reason: string; message: string } {
  try {
    const status = (typeof body === 'string' ? JSON.parse(body) : (body ?? {})) as { reason?: unknown; message?: unknown };
    return { reason: typeof status.reason === 'string' ? status.reason : '', message: typeof status.message === 'string' ? oneLine(status.message) : '' };
  } catch {
    return { reason: '', message: '' };
  }
}

function deepest(error: unknown): { name: string; code: string; message: string } {
  let at = error as { name?: string; code?: unknown; message?: string; cause?: unknown };
  for (let depth = 0; depth < 5 && at.cause instanceof Error; depth += 1) at = at.cause as typeof at;
  return { name: at.name ?? '', code: typeof at.code === 'string' ? at.code : '', message: at.message ?? String(error) };
}

const timedOut = (name: string, doing: string): ProviderError => new ProviderError('target_timeout', `${name} did not answer in time while ${doing}.`);

function asProviderError(error: unknown, name: string, doing: string, signal: AbortSignal): ProviderError {
  if (error instanceof ProviderError) return error;
  const facts = factsOf(error);
  const { status, reason, message, retryAfterMs } = facts;
  const made = (code: ConstructorParameters<typeof ProviderError>[0], text: string, next?: string): ProviderError => {
    const retryAt = retryAfterMs === null ? {} : { retryAt: new Date(Date.now() + retryAfterMs) };
    const translated = new ProviderError(code, text, { ...(next === undefined ? {} : { next }), ...retryAt });
    Object.defineProperty(translated, 'cause', { value: facts, enumerable: false });
    return translated;
  };
  if (status === 0) {
    if (signal.aborted || ['TimeoutError', 'AbortError'].includes(reason)) return made('target_timeout', `${name} did not answer in time while ${doing}.`);
    if (facts.dead) return made('target_unreachable', `${name} could not be reached while ${doing} (${reason || message}).`);
    return made(
      'target_unreachable',
      `${name} could not prove who it is: ${message} (${reason}).`,
      "Set caFile to the authority that signed the API server's certificate.",
    );
  }
  if (status === 401)
    return made(
      'target_forbids',
      `${name} does not know Halligan's own token (401).`,
      'Look whether the token is over, was made for another audience, or its service account is gone.',
    );
  if (status === 403 || (status === 422 && message.includes('denied request')))
    return made(
      'target_forbids',
      `${name} refused while ${doing}: ${message}.`,
      'Compare with what halligan print k8s-rbac prints for this config (docs/providers.md).',
    );
  if (status === 429 || status >= 500) return made('target_unreachable', `${name} takes no call now while ${doing} (${status}): ${message}.`);
  return made('target_failed', `${name} failed while ${doing}: ${message} (${status}).`);
}
