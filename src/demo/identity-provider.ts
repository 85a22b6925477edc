/**
 * A development identity provider: real OpenID Connect (discovery, code flow, PKCE, RS256, logout) without passwords.
 * Whoever can reach it is whoever they say they are, so it binds to loopback only. The demo and the tests use it.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { errors, interactionPolicy, type JWK, Provider } from 'oidc-provider';
import { choicePage, type DevelopmentClient, type DevelopmentPerson, messagePage, pageHeaders, secondFactor } from './identity-provider-pages.ts';
import { memoryAdapter } from './identity-provider-store.ts';

export { type DevelopmentClient, type DevelopmentPerson, secondFactor };

export interface IdentityProviderOptions {
  /** 0 or left out: any free port. */
  readonly port?: number;
  readonly clients: readonly DevelopmentClient[];
  readonly people?: readonly DevelopmentPerson[];
}

export interface IdentityProvider {
  readonly issuer: string;
  readonly url: URL;
  /** By subject. Adding an entry adds a person. */
  readonly people: Map<string, DevelopmentPerson>;
  /** From the next login on. Throws when there is no such person. */
  setGroups(subject: string, groups: readonly string[]): void;
  /** Replaces the signing key; the old one is no longer published. */
  rotateKeys(): void;
  /** Ends the provider and every open connection. Safe to call twice. */
  close(): Promise<void>;
}

/** The five people of the demo. The names of the groups are those of `config/`. */
export const demoPeople = (): DevelopmentPerson[] => [
  { subject: 'oncall', name: 'oncall', groups: ['oncall'], email: 'oncall@example.com' },
  { subject: 'lead', name: 'lead', groups: ['leads'], email: 'lead@example.com' },
  { subject: 'security', name: 'security', groups: ['security'], email: 'security@example.com' },
  { subject: 'auditor', name: 'auditor', groups: ['auditors'], email: 'auditor@example.com' },
  { subject: 'admin', name: 'admin', groups: ['admins'], email: 'admin@example.com' },
];

/** Starts the provider on 127.0.0.1. Rejects when the port is taken. */
export async function startIdentityProvider(options: IdentityProviderOptions): Promise<IdentityProvider> {
  const people = new Map((options.people ?? demoPeople()).map((person) => [person.subject, { ...person }]));
  let provider: Provider | undefined;
  const server = createServer((req, res) => void answer(provider, people, options.clients, req, res));
  await listen(server, options.port ?? 0);
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const adapter = memoryAdapter();
  const cookieKeys = [randomBytes(32).toString('base64url')];
  const build = () => newProvider({ issuer, people, clients: options.clients, adapter, cookieKeys });
  provider = build();
  return {
    issuer,
    url: new URL(issuer),
    people,
    setGroups(subject, groups) {
      const person = people.get(subject);
      if (!person) throw new Error(`no such person: ${subject}`);
      person.groups = groups;
    },
    rotateKeys() {
      provider = build();
    },
    close: () =>
      new Promise((resolve, reject) => {
        if (!server.listening) return resolve();
        server.close((error) => (error ? reject(error) : resolve()));
        server.closeAllConnections();
      }),
  };
}

const listen = (server: Server, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject);
      resolve();
    });
  });

interface ProviderParts {
  readonly issuer: string;
  readonly people: ReadonlyMap<string, DevelopmentPerson>;
  readonly clients: readonly DevelopmentClient[];
  readonly adapter: ReturnType<typeof memoryAdapter>;
  readonly cookieKeys: readonly string[];
}

function newSigningKey(): JWK {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...(privateKey.export({ format: 'jwk' }) as JWK), kid: randomBytes(8).toString('hex'), alg: 'RS256', use: 'sig' };
}

/**
 * The login prompt of every visit: a development provider that remembers people would make changing between them tedious.
 * Only where it is told to ask nothing (`prompt=none`) does it answer for who said last who they are in that browser.
 */
function alwaysAsk(): interactionPolicy.DefaultPolicy {
  const policy = interactionPolicy.base();
  policy
    .get('login')
    ?.checks.add(
      new interactionPolicy.Check('asks_each_time', 'this provider asks who you are each time', (ctx) =>
        ctx.oidc.result?.login || ctx.oidc.prompts.has('none') ? interactionPolicy.Check.NO_NEED_TO_PROMPT : interactionPolicy.Check.REQUEST_PROMPT,
      ),
    );
  return policy;
}

function newProvider(parts: ProviderParts): Provider {
  const provider = new Provider(parts.issuer, {
    adapter: parts.adapter,
    clients: parts.clients.map((client) => ({
      client_id: client.clientId,
      client_secret: client.clientSecret,
      redirect_uris: [...client.redirectUris],
      post_logout_redirect_uris: [...(client.postLogoutRedirectUris ?? [])],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      require_auth_time: true,
    })),
    claims: { openid: ['sub'], profile: ['name'], groups: ['groups'], email: ['email', 'email_verified'], acr: null, auth_time: null, iss: null, sid: null },
    scopes: ['openid', 'profile', 'groups', 'email'],
    acrValues: [secondFactor],
    responseTypes: ['code'],
    conformIdTokenClaims: false,
    jwks: { keys: [newSigningKey()] },
    cookies: { keys: [...parts.cookieKeys] },
    pkce: { required: () => true },
    clientBasedCORS: () => false,
    ttl: { AccessToken: 300, AuthorizationCode: 60, IdToken: 300, Interaction: 600, Session: 3600, Grant: 3600 },
    interactions: { policy: alwaysAsk(), url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.set(pageHeaders(parts.clients));
          ctx.body = messagePage('Log out?', 'This ends your login at the development identity provider.', form);
        },
        postLogoutSuccessSource: (ctx) => {
          ctx.set(pageHeaders(parts.clients));
          ctx.body = messagePage('Logged out', 'You are logged out of the development identity provider.');
        },
      },
    },
    renderError: (ctx, out) => {
      ctx.set(pageHeaders(parts.clients));
      ctx.body = messagePage('This login cannot go on', `${out.error}${out.error_description ? `: ${out.error_description}` : ''}`);
    },
    findAccount: (_ctx, sub) => {
      const person = parts.people.get(sub);
      return (
        person && {
          accountId: sub,
          claims: async () => ({ sub, name: person.name, groups: [...person.groups], ...(person.email ? { email: person.email, email_verified: true } : {}) }),
        }
      );
    },
    // Nobody is asked for consent: the client is Halligan, and it asks for a name and groups.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client?.clientId ?? '', accountId: ctx.oidc.session?.accountId ?? '' });
      grant.addOIDCScope('openid profile groups email');
      await grant.save();
      return grant;
    },
  });
  return provider;
}

/** Routes `/interaction/:uid` to the page of people; everything else is the protocol's. */
async function answer(
  provider: Provider | undefined,
  people: ReadonlyMap<string, DevelopmentPerson>,
  clients: readonly DevelopmentClient[],
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const { pathname } = new URL(req.url ?? '/', 'http://127.0.0.1');
  const show = (status: number, body: string) => void res.writeHead(status, { ...pageHeaders(clients), 'content-type': 'text/html; charset=utf-8' }).end(body);
  try {
    if (!provider) return show(503, messagePage('Starting', 'Try again in a second.'));
    if (pathname === '/') return show(200, messagePage('Development identity provider', 'Log in at Halligan; it sends you here to say who you are.'));
    // Each login starts without the one before it: two tabs, or two people one after the other, must not meet here.
    if (pathname.startsWith('/auth') && !isSilent(req)) req.headers.cookie = withoutSession(req.headers.cookie);
    if (!pathname.startsWith('/interaction/')) return void (await provider.callback()(req, res));
    const { uid, params } = await provider.interactionDetails(req, res);
    if (pathname !== `/interaction/${uid}`) return show(404, messagePage('Not found', 'There is no such login.'));
    if (req.method !== 'POST') return show(200, choicePage(uid, [...people.values()], String(params.client_id ?? ''), String(params.acr_values ?? '')));
    const form = await readForm(req);
    const subject = form.get('person') ?? '';
    if (!people.has(subject)) return show(400, messagePage('Nobody of that name', 'Go back and choose one of the people shown.'));
    return void (await provider.interactionFinished(
      req,
      res,
      { login: { accountId: subject, remember: false, ...(form.get('factor') === 'second' ? { acr: secondFactor } : {}) } },
      { mergeWithLastSubmission: false },
    ));
  } catch (error) {
    if (error instanceof errors.SessionNotFound)
      return show(400, messagePage('This login is over', 'It was too slow, or it was used already. Start again at Halligan.'));
    if (!res.headersSent) show(500, messagePage('Something failed', 'The development identity provider could not answer.'));
  }
}

const isSilent = (req: IncomingMessage): boolean => new URL(req.url ?? '/', 'http://127.0.0.1').searchParams.get('prompt') === 'none';

const withoutSession = (cookies = ''): string =>
  cookies
    .split('; ')
    .filter((cookie) => !/^_session(\.|=)/.test(cookie))
    .join('; ');

/** A form of at most 4 kB. */
async function readForm(req: IncomingMessage): Promise<URLSearchParams> {
  let text = '';
  for await (const chunk of req) {
    text += String(chunk);
    if (text.length > 4096) throw new Error('form too large');
  }
  return new URLSearchParams(text);
}
