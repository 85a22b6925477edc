/** The names and attributes of our two cookies, and how one is read. */
import type { Request } from 'express';

export interface CookieAttributes {
  readonly secure: boolean;
  readonly httpOnly: true;
  readonly sameSite: 'lax';
  readonly path: '/';
}

export interface CookieNames {
  readonly session: string;
  /** For logins that are under way; see `login-attempts.ts`. */
  readonly attempts: string;
  readonly attributes: CookieAttributes;
}

/**
 * Over https the `__Host-` prefix (RFC 6265bis §4.1.3.2) makes browsers insist on Secure, Path=/ and no Domain, so that
 * no sibling domain can plant one. Plain http exists on a development machine's loopback only.
 */
export function cookiesFor(serverUrl: URL): CookieNames {
  const secure = serverUrl.protocol === 'https:';
  const prefix = secure ? '__Host-' : '';
  return { session: `${prefix}halligan`, attempts: `${prefix}halligan-login`, attributes: { secure, httpOnly: true, sameSite: 'lax', path: '/' } };
}

/** The value of a cookie of the request. When one name comes twice neither is trusted. */
export function readCookie(req: Pick<Request, 'headers'>, name: string): string | undefined {
  const values = (req.headers.cookie ?? '').split(';').flatMap((pair) => {
    const equals = pair.indexOf('=');
    return equals > 0 && pair.slice(0, equals).trim() === name ? [pair.slice(equals + 1).trim()] : [];
  });
  return values.length === 1 ? values[0] : undefined;
}
