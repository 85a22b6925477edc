/**
 * Web sessions: express-session over the table `session`, of which only the SHA-256 of the id is kept. A row is made in
 * one place, the login's own transaction (`people.ts`); the store only ever updates or deletes, so a slow request cannot
 * bring back a session that a logout has ended. Postgres' clock measures both limits.
 */
import type { Request, RequestHandler } from 'express';
import session from 'express-session';
import type pg from 'pg';
import type { PersonActor } from '../commands/context.ts';
import type { CookieNames } from './cookies.ts';
import { derived, hashOf, newSecret } from './secrets.ts';
import { bringsBearer } from './tokens.ts';

/** Fifteen minutes without a person's doing anything, and twelve hours in all: the conditions every read of a session carries. */
export const sessionIsLive = `s.seen_at > now() - interval '15 minutes' AND s.created_at > now() - interval '12 hours'`;

/** What a session's row says about its person. */
interface LoginRow {
  readonly id: string;
  readonly data: { readonly authAt?: string; readonly acr?: string; readonly page?: object };
  readonly created_at: Date;
  readonly person_id: string;
  readonly subject: string;
  readonly name: string;
  readonly groups: string[];
  readonly unseen: boolean;
}

// The signature express-session demands adds nothing: the id is 256 random bits that only a lookup of its hash can
// confirm. A constant keeps every process in agreement without one more secret to guard.
const cookieSecret = 'halligan: the session id is the secret, not this';

interface Known {
  readonly row: LoginRow;
  readonly req: Request;
}

/** Rows by the session object they became. */
const known = new WeakMap<object, Known>();

class SessionStore extends session.Store {
  readonly #pool: pg.Pool;
  readonly #cookie: CookieNames['attributes'];
  readonly #rows = new WeakMap<object, LoginRow>();

  constructor(pool: pg.Pool, cookie: CookieNames['attributes']) {
    super();
    this.#pool = pool;
    this.#cookie = cookie;
  }

  override get(sid: string, done: (error: unknown, data?: session.SessionData | null) => void): void {
    this.#pool
      .query<LoginRow>({
        name: 'session-login',
        text: `SELECT s.id, s.data, s.created_at, p.id AS person_id, p.subject, p.name, p.groups, s.seen_at < now() - interval '1 minute' AS unseen
               FROM session s JOIN person p ON p.id = s.person_id WHERE s.id_hash = $1 AND ${sessionIsLive}`,
        values: [hashOf(sid)],
      })
      .then(({ rows: [row] }) => {
        if (!row) return done(null, null);
        const data = { ...row.data.page, cookie: { ...this.#cookie, originalMaxAge: null } };
        this.#rows.set(data, row);
        done(null, data);
      })
      .catch(done);
  }

  override createSession(req: Request, data: session.SessionData): session.Session & session.SessionData {
    const created = super.createSession(req, data);
    const row = this.#rows.get(data);
    if (row) known.set(created, { row, req });
    return created;
  }

  /** What pages keep in the session. Never makes a row. */
  override set(sid: string, data: session.SessionData, done?: (error?: unknown) => void): void {
    const { cookie: _, ...page } = data;
    this.#run(
      `UPDATE session SET data = jsonb_set(data, '{page}', $2::jsonb) WHERE id_hash = $1 AND person_id IS NOT NULL`,
      [hashOf(sid), JSON.stringify(page)],
      done,
    );
  }

  override destroy(sid: string, done?: (error?: unknown) => void): void {
    this.#run('DELETE FROM session WHERE id_hash = $1', [hashOf(sid)], done);
  }

  /** At most once a minute, and not for what a page fetches by itself: a forgotten tab must not keep a session alive. */
  override touch(sid: string, data: session.SessionData, done?: () => void): void {
    const login = known.get(data);
    if (!login?.row.unseen || isBackground(login.req)) return void done?.();
    this.#run(`UPDATE session s SET seen_at = now() WHERE id_hash = $1 AND ${sessionIsLive}`, [hashOf(sid)], done);
  }

  #run(text: string, values: unknown[], done: ((error?: unknown) => void) | undefined): void {
    this.#pool.query(text, values).then(
      () => done?.(),
      (error) => done?.(error),
    );
  }
}

/** A GET by a script (fetch, EventSource), which browsers mark. */
const isBackground = (req: Request): boolean => req.method === 'GET' && req.get('sec-fetch-dest') === 'empty';

/** express-session with our store. Calls with a bearer token pass by it. */
export function sessionMiddleware(pool: pg.Pool, cookies: CookieNames): RequestHandler {
  const handle = session({
    name: cookies.session,
    secret: cookieSecret,
    store: new SessionStore(pool, cookies.attributes),
    genid: newSecret,
    cookie: { ...cookies.attributes },
    resave: false,
    saveUninitialized: false,
    rolling: false,
  });
  return (req, res, next) => {
    if (bringsBearer(req)) return next();
    // Whether the way to the browser is https is what server.url says, not what a header claims: express-session asks here.
    if (cookies.attributes.secure) Object.defineProperty(req, 'secure', { value: true, configurable: true });
    handle(req, res, next);
  };
}

/** The person of this request's session, if it has one. No query: the row came with the session. */
export function sessionActor(req: Request): PersonActor | undefined {
  const login = req.session && known.get(req.session);
  if (!login) return undefined;
  const { row } = login;
  return {
    id: row.person_id,
    subject: row.subject,
    groups: row.groups,
    name: row.name,
    via: 'web',
    loginId: row.id,
    authAt: new Date(row.data.authAt ?? 0),
    acr: row.data.acr ?? null,
  };
}

/** The token that every form and script of this session sends back. It follows from the session id; '' without a session. */
export const csrfTokenFor = (req: Request): string => (sessionActor(req) ? derived(req.sessionID, 'csrf') : '');

/** A new session id for this browser; the old session, if any, is gone. Its row is then the caller's to make. */
export const regenerate = (req: Request): Promise<string> =>
  new Promise((resolve, reject) => req.session.regenerate((error) => (error ? reject(error) : resolve(req.sessionID))));
