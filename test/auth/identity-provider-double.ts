/**
 * An identity provider that says what it is told to say: to see forged, foreign and careless answers refused. Honest
 * answers come from the real provider; this double exists for the faults only.
 */
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose';

export interface Lie {
  /** Changes the claims of an otherwise right ID token; `undefined` removes one. */
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly header?: Readonly<Record<string, string>>;
  /** How the token is signed: by the published key unless said otherwise. */
  readonly signed?: 'by another key' | 'HS256 with the public key' | 'HS256 with the client secret' | 'not at all' | 'with a bit changed';
  /** Members of the token endpoint's answer beside or instead of the right ones. */
  readonly answer?: Readonly<Record<string, unknown>>;
  readonly status?: number;
}

export interface IdentityProviderDouble {
  readonly issuer: string;
  readonly url: URL;
  /** What the next exchange is answered with. */
  lie: Lie;
  /** Changes what discovery announces. */
  announced: Record<string, unknown>;
  /** What arrived at the token endpoint, newest last. */
  readonly exchanges: URLSearchParams[];
  /** Set from the authorization URL, as the real thing would remember it. */
  nonce: string;
  close(): Promise<void>;
}

export async function startIdentityProviderDouble(clientSecret: string): Promise<IdentityProviderDouble> {
  const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
  const other = await generateKeyPair('RS256', { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid: 'published', alg: 'RS256', use: 'sig' };
  const pem = await exportSPKI(publicKey);

  const server = createServer(async (req, res) => {
    const { pathname } = new URL(req.url ?? '/', double.url);
    const json = (value: unknown, status = 200) => void res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (pathname === '/.well-known/openid-configuration') return json(double.announced);
    if (pathname === '/jwks') return json({ keys: [jwk] });
    if (pathname !== '/token') return json({}, 404);
    let body = '';
    for await (const chunk of req) body += String(chunk);
    double.exchanges.push(new URLSearchParams(body));
    const { lie } = double;
    if (lie.status) return json(lie.answer ?? {}, lie.status);
    json({ access_token: 'at', token_type: 'Bearer', expires_in: 60, id_token: await idToken(lie), ...lie.answer });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function idToken(lie: Lie): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    const honest = {
      iss: issuer,
      sub: 'someone',
      aud: 'halligan',
      iat: now,
      exp: now + 300,
      auth_time: now,
      nonce: double.nonce,
      name: 'Someone',
      groups: ['oncall'],
    };
    const claims: Record<string, unknown> = { ...honest, ...lie.claims };
    const header = { alg: 'RS256', kid: 'published', ...lie.header };
    const unsigned = (alg: string) => `${encode({ ...header, alg })}.${encode(claims)}`;
    if (lie.signed === 'not at all') return `${unsigned('none')}.`;
    if (lie.signed?.startsWith('HS256')) {
      const secret = lie.signed === 'HS256 with the public key' ? pem : clientSecret;
      return `${unsigned('HS256')}.${createHmac('sha256', secret).update(unsigned('HS256')).digest('base64url')}`;
    }
    const key: CryptoKey = lie.signed === 'by another key' ? other.privateKey : privateKey;
    const token = await new SignJWT(claims).setProtectedHeader(header).sign(key);
    return lie.signed === 'with a bit changed'
      ? token.replace(/\.[^.]*\./, (payload) => `.${encode({ ...claims, sub: 'someone else' })}${payload.slice(-1)}`)
      : token;
  }

  const double: IdentityProviderDouble = {
    issuer,
    url: new URL(issuer),
    lie: {},
    announced: {
      issuer,
      authorization_endpoint: `${issuer}/auth`,
      token_endpoint: `${issuer}/token`,
      jwks_uri: `${issuer}/jwks`,
      response_types_supported: ['code'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256', 'HS256', 'none'],
      authorization_response_iss_parameter_supported: true,
    },
    exchanges: [],
    nonce: '',
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return double;
}

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
