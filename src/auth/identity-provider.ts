/**
 * The client of the identity provider: discovery when first needed and again each hour, and the exchange of a code for
 * a verified ID token. openid-client does the protocol; this file pins what it may accept and gives every call 10 s.
 */
import * as oidc from 'openid-client';
import { Refusal } from '../domain/errors.ts';
import { type AuthConfig, issuerMayBePlain } from './config.ts';
import { type LoginWish, wishParameters } from './wishes.ts';

/** Signatures only a private key can make. HS256 is absent: with it, whoever holds the client secret could mint logins. */
export const signingAlgorithms = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'];
const deadlineSeconds = 10;
const discoverAgainAfterMs = 3_600_000;

/** The secrets of one login attempt. They follow from the browser's cookie and the state, and rest nowhere. */
export interface Checks {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
}

export interface ProviderClient {
  /** Where to send the browser: state, nonce and PKCE S256 always, and the wish. */
  authorizationUrl(checks: Checks, wish?: LoginWish): Promise<URL>;
  /** Exchanges the code in `query` and returns the claims of the ID token, all of it checked. Throws `login_refused`, and `NotSilently` where the provider would have to ask the person something. */
  exchange(query: URLSearchParams, checks: Checks): Promise<Record<string, unknown>>;
  /** Whether the provider answers at this moment: before a browser is sent there unasked. An answer is good for ten seconds. */
  answers(): Promise<boolean>;
  /** The provider's own logout page, when it announces one and has been discovered. */
  logoutUrl(): URL | undefined;
}

/** The provider has to ask the person something (OpenID Connect Core §3.1.2.6). */
export class NotSilently extends Error {}
const notSilently = new Set(['login_required', 'interaction_required', 'consent_required', 'account_selection_required']);

interface Known {
  readonly configuration: oidc.Configuration;
  readonly at: number;
}

export function providerClient(config: AuthConfig): ProviderClient {
  const callbackUrl = new URL('/login/callback', config.serverUrl);
  let secret: string | undefined;
  let known: Known | undefined;
  let discovering: Promise<Known> | undefined;

  // Read at the moment of each exchange, so that the configuration with its cached keys outlives a rotated secret.
  const clientAuth: oidc.ClientAuth = (server, client, body, headers) => {
    const methods = server.token_endpoint_auth_methods_supported;
    const auth =
      secret === undefined ? oidc.None() : !methods || methods.includes('client_secret_basic') ? oidc.ClientSecretBasic(secret) : oidc.ClientSecretPost(secret);
    auth(server, client, body, headers);
  };

  async function configuration(): Promise<oidc.Configuration> {
    if (known && performance.now() - known.at < discoverAgainAfterMs) return known.configuration;
    discovering ??= discover(config, clientAuth)
      .then((found) => {
        known = { configuration: found, at: performance.now() };
        return known;
      })
      .finally(() => {
        discovering = undefined;
      });
    try {
      return (await discovering).configuration;
    } catch (error) {
      if (known) return known.configuration;
      throw inWords(error);
    }
  }

  return {
    async authorizationUrl(checks, wish = {}) {
      return oidc.buildAuthorizationUrl(await configuration(), {
        redirect_uri: callbackUrl.href,
        scope: (config.scopes ?? ['openid', 'profile', 'groups']).join(' '),
        state: checks.state,
        nonce: checks.nonce,
        code_challenge: await oidc.calculatePKCECodeChallenge(checks.verifier),
        code_challenge_method: 'S256',
        ...wishParameters(wish),
      });
    },
    async exchange(query, checks) {
      const current = await configuration();
      try {
        secret = await config.clientSecret();
        const url = new URL(callbackUrl);
        url.search = query.toString();
        const tokens = await oidc.authorizationCodeGrant(current, url, {
          expectedState: checks.state,
          expectedNonce: checks.nonce,
          pkceCodeVerifier: checks.verifier,
          idTokenExpected: true,
        });
        const claims = tokens.claims();
        if (!claims) throw new Refusal('login_refused', 'The identity provider sent no ID token.');
        return { ...claims };
      } catch (error) {
        if (error instanceof oidc.AuthorizationResponseError && notSilently.has(error.error)) throw new NotSilently(error.error);
        throw inWords(error);
      }
    },
    answers: answering(config.issuer),
    logoutUrl() {
      if (!known?.configuration.serverMetadata().end_session_endpoint) return undefined;
      return oidc.buildEndSessionUrl(known.configuration, { client_id: config.clientId });
    },
  };
}

function answering(issuer: URL): () => Promise<boolean> {
  const address = new URL(`${issuer.href.replace(/\/$/, '')}/.well-known/openid-configuration`);
  let last: { at: number; answer: Promise<boolean> } | undefined;
  return () => {
    if (!last || performance.now() - last.at > 10_000) {
      const answer = fetch(address, { redirect: 'manual', signal: AbortSignal.timeout(2_000) }).then(
        async (response) => {
          await response.body?.cancel();
          return response.ok;
        },
        () => false,
      );
      last = { at: performance.now(), answer };
    }
    return last.answer;
  };
}

async function discover(config: AuthConfig, clientAuth: oidc.ClientAuth): Promise<oidc.Configuration> {
  const insecure = config.issuer.protocol === 'http:' && issuerMayBePlain(config.issuer);
  const execute = insecure ? [oidc.allowInsecureRequests] : [];
  const ask = () => oidc.discovery(config.issuer, config.clientId, undefined, clientAuth, { timeout: deadlineSeconds, execute });
  // One more try: the first may have met a connection that the provider closed while it was idle.
  const announced: oidc.ServerMetadata = (await ask().catch(ask)).serverMetadata();
  const supported = announced.id_token_signing_alg_values_supported ?? ['RS256'];
  const algorithms = supported.filter((algorithm) => signingAlgorithms.includes(algorithm));
  if (algorithms.length === 0) {
    throw new Refusal('login_refused', 'The identity provider signs ID tokens by no algorithm that Halligan accepts.', {
      next: `Have it sign by one of ${signingAlgorithms.join(', ')}.`,
    });
  }
  const pinned = new oidc.Configuration(
    { ...announced, id_token_signing_alg_values_supported: algorithms } as oidc.ServerMetadata,
    config.clientId,
    undefined,
    clientAuth,
  );
  pinned.timeout = deadlineSeconds;
  if (insecure) oidc.allowInsecureRequests(pinned);
  // Without this, openid-client trusts TLS and leaves the ID token's signature unread.
  oidc.enableNonRepudiationChecks(pinned);
  return pinned;
}

const reasons: Record<string, string> = {
  OAUTH_TIMEOUT: 'it did not answer within 10 s',
  OAUTH_INVALID_RESPONSE: 'it is not a valid answer',
  OAUTH_JWT_CLAIM_COMPARISON_FAILED: 'a claim of the ID token is not the expected one (issuer, audience or nonce)',
  OAUTH_JWT_TIMESTAMP_CHECK_FAILED: 'the ID token is too old, or not valid yet; do the clocks agree?',
  OAUTH_KEY_SELECTION_FAILED: 'the ID token is signed by a key that the provider does not publish; if it has just changed its keys, try again in a minute',
  OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED: 'its own description names another issuer',
  OAUTH_UNSUPPORTED_OPERATION: 'it uses what Halligan does not accept',
  OAUTH_PARSE_ERROR: 'it cannot be read',
  OAUTH_RESPONSE_IS_NOT_JSON: 'it is not JSON',
  OAUTH_RESPONSE_IS_NOT_CONFORM: 'it came with an unexpected HTTP status',
};

/** The provider's error codes are ASCII words (RFC 6749 §4.1.2.1); descriptions are not repeated, for they may hold anything. */
const codeWord = (value: unknown): string => (typeof value === 'string' && /^[a-z_]{1,60}$/.test(value) ? value : 'an error');

/** Any failure at the provider as a `login_refused` in words, without what was sent or received. */
export function inWords(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof oidc.AuthorizationResponseError || error instanceof oidc.ResponseBodyError) {
    return new Refusal('login_refused', `The identity provider refused: ${codeWord(error.error)}.`, { next: 'Log in again.' });
  }
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  if (error instanceof TypeError || code === 'OAUTH_TIMEOUT') {
    return new Refusal('login_refused', `The identity provider could not be reached${code === 'OAUTH_TIMEOUT' ? ': it did not answer within 10 s' : ''}.`, {
      next: 'Try again; logins that exist go on working meanwhile.',
    });
  }
  return new Refusal('login_refused', `The identity provider's answer was not accepted: ${reasons[code ?? ''] ?? 'it failed a check'}.`, {
    next: 'Log in again.',
  });
}
