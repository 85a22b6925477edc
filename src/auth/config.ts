/** What login needs to know. The config loader fills it in; nothing in this room reads the environment. */
export interface AuthConfig {
  /** Where people reach Halligan. Redirects, cookies and the Origin check come from here, never from a header. */
  readonly serverUrl: URL;
  readonly issuer: URL;
  readonly clientId: string;
  /** Read before each exchange, so that a rotated secret is picked up. `undefined`: a public client. */
  readonly clientSecret: () => Promise<string | undefined>;
  /** The claim of the ID token that lists a person's groups. */
  readonly groupsClaim: string;
  /** Default `openid profile groups`. */
  readonly scopes?: readonly string[];
  /** The claim with the name to show. Default `name`, then `preferred_username`. Never an identity. */
  readonly nameClaim?: string;
  /** The claim with the address that mail for a person goes to. Default `email`. Never an identity. */
  readonly emailClaim?: string;
}

const loopbackHosts = new Set(['127.0.0.1', '[::1]', 'localhost']);

const isLoopback = (url: URL): boolean => loopbackHosts.has(url.hostname);

/** Whether the issuer may be asked over plain http: on loopback, and by a name below localhost, which leads a browser to its own machine (RFC 6761 §6.3). */
export const issuerMayBePlain = (issuer: URL): boolean => isLoopback(issuer) || issuer.hostname.endsWith('.localhost');

/** Throws when a URL would carry logins in the clear: plain http is for a development machine's loopback only. */
export function assertUsable(config: AuthConfig): void {
  for (const [what, url, near] of [
    ['server.url', config.serverUrl, isLoopback(config.serverUrl)],
    ['login.issuer', config.issuer, issuerMayBePlain(config.issuer)],
  ] as const) {
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && near)) throw new Error(`${what} must be https (http only for 127.0.0.1 and localhost)`);
  }
}
