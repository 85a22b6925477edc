/**
 * A terminal's login through the browser on the same machine (RFC 8252): the person confirms on a page of ours, the
 * browser carries a code to the terminal's loopback port, the terminal exchanges it with its PKCE verifier. One use,
 * 60 seconds; a wrong exchange uses the code up as well.
 */
import { sql } from 'kysely';
import { commit } from '../commands/commit.ts';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { Refusal } from '../domain/errors.ts';
import { refuseLogin } from './logins.ts';
import { challengeOf, hashOf, newSecret, sameSecret } from './secrets.ts';
import { type IssuedToken, issueToken } from './tokens.ts';
import { plainLine } from './untrusted-text.ts';

/** What a terminal asks for in the query of `/login/cli`. */
export interface CliLoginAsk {
  readonly redirectUri: string;
  readonly state: string;
  readonly challenge: string;
  readonly label: string;
}

export interface LoggedIn extends IssuedToken {
  readonly person: { readonly id: string; readonly name: string; readonly subject: string; readonly groups: readonly string[] };
}

/** Checks the query of `/login/cli`. Throws `bad_input` with every fault: S256 only, and only this machine's loopback (RFC 8252 §7.3). */
export function readCliAsk(query: Readonly<Record<string, unknown>>): CliLoginAsk {
  const text = (name: string): string => (typeof query[name] === 'string' ? (query[name] as string) : '');
  const faults: { path: string; message: string }[] = [];
  const check = (path: string, good: boolean, message: string) => void (good || faults.push({ path, message }));
  check('redirect_uri', isLoopbackRedirect(text('redirect_uri')), 'must be http://127.0.0.1:PORT/… or http://[::1]:PORT/…');
  check('state', /^[\x21-\x7e]{8,200}$/.test(text('state')), 'must be 8 to 200 visible ASCII characters');
  check('code_challenge_method', text('code_challenge_method') === 'S256', 'must be S256; plain is refused');
  check('code_challenge', /^[A-Za-z0-9_-]{43}$/.test(text('code_challenge')), 'must be the base64url of a SHA-256');
  if (faults.length > 0) throw new Refusal('bad_input', 'This login was not started the way Halligan accepts.', { next: 'Run halligan login again.', faults });
  return { redirectUri: text('redirect_uri'), state: text('state'), challenge: text('code_challenge'), label: plainLine(query.label, 80) || 'a terminal' };
}

function isLoopbackRedirect(text: string): boolean {
  if (text.length > 200 || !URL.canParse(text)) return false;
  const url = new URL(text);
  return (
    url.protocol === 'http:' &&
    (url.hostname === '127.0.0.1' || url.hostname === '[::1]') &&
    url.port !== '' &&
    url.username === '' &&
    url.password === '' &&
    url.hash === ''
  );
}

/** Confirmed by the person at the web: makes the code and returns where to send the browser. */
export async function confirmCliLogin(ctx: Ctx, actor: PersonActor, ask: CliLoginAsk): Promise<URL> {
  const code = newSecret();
  await commit(ctx, actor, async (tx) => {
    await sql`INSERT INTO login_code (code_hash, kind, person_id, challenge, redirect_uri, label, auth_at, acr, expires_at)
      VALUES (${hashOf(code)}, 'cli', ${actor.id}, ${ask.challenge}, ${ask.redirectUri}, ${ask.label}, ${actor.authAt}, ${actor.acr ?? null}, now() + interval '60 seconds')`.execute(
      tx.sql,
    );
  });
  return answerTo(ask, { code });
}

/** Where the browser goes when the person said no. */
export const cliLoginDenied = (ask: CliLoginAsk): URL => answerTo(ask, { error: 'access_denied' });

function answerTo(ask: CliLoginAsk, parameters: Record<string, string>): URL {
  const url = new URL(ask.redirectUri);
  for (const [name, value] of Object.entries({ ...parameters, state: ask.state })) url.searchParams.set(name, value);
  return url;
}

export interface CodeOwner {
  readonly id: string;
  readonly name: string;
  readonly subject: string;
  readonly groups: string[];
}

/** Who confirmed this code, so that what comes of it is written in their name. */
export async function ownerOf(ctx: Ctx, code: string): Promise<CodeOwner | undefined> {
  const { rows } = await ctx.pool.query<CodeOwner>(
    'SELECT p.id, p.name, p.subject, p.groups FROM login_code c JOIN person p ON p.id = c.person_id WHERE c.code_hash = $1',
    [hashOf(code)],
  );
  return rows[0];
}

/** Exchanges a code for a token. Throws `login_code_invalid`, which is witnessed, for a wrong, used or late one. */
export async function exchangeCliCode(ctx: Ctx, sent: { code: string; verifier: string; redirectUri: string }): Promise<LoggedIn> {
  const owner = await ownerOf(ctx, sent.code);
  const invalid = (reason: string) =>
    refuseLogin(
      ctx,
      new Refusal('login_code_invalid', undefined, { next: 'Run halligan login again.' }),
      { way: 'cli', reason },
      owner && { ...owner, via: 'cli', loginId: '', authAt: new Date(0) },
    );
  if (!owner) throw await invalid('unknown or used');
  const actor: PersonActor = { ...owner, via: 'cli', loginId: '', authAt: new Date(0) };
  const result = await commit(ctx, actor, async (tx) => {
    // Returned, not thrown: a throw would roll back the deletion that makes the code one-use.
    const { rows } = await sql<{ challenge: string; redirect_uri: string; label: string; auth_at: Date; acr: string | null; late: boolean }>`
      DELETE FROM login_code WHERE code_hash = ${hashOf(sent.code)} AND kind = 'cli' RETURNING challenge, redirect_uri, label, auth_at, acr, expires_at <= now() AS late`.execute(
      tx.sql,
    );
    const [row] = rows;
    if (!row) return 'unknown or used';
    if (row.late) return 'late';
    if (row.redirect_uri !== sent.redirectUri) return 'another redirect_uri';
    if (!sameSecret(challengeOf(sent.verifier), row.challenge)) return 'the PKCE verifier does not fit';
    return issueToken(tx, { personId: owner.id, via: 'cli', label: row.label, authAt: row.auth_at, acr: row.acr });
  });
  if (typeof result === 'string') throw await invalid(result);
  return { ...result, person: owner };
}
