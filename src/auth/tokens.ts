/** Tokens of terminals: `hgt_` and 43 characters of base64url. Only their SHA-256 is kept, and they last twelve hours at most. */
import type { Request } from 'express';
import { sql } from 'kysely';
import type pg from 'pg';
import type { Tx } from '../commands/commit.ts';
import type { PersonActor } from '../commands/context.ts';
import { newId } from '../domain/ids.ts';
import { hashOf, newSecret } from './secrets.ts';

export interface IssuedToken {
  /** The one time it is seen. */
  readonly token: string;
  readonly expiresAt: Date;
}

const form = /^hgt_[A-Za-z0-9_-]{43}$/;

/** Whether the call brings a bearer token (RFC 6750 §2.1). It then counts for nothing but that token, whatever cookies come along. */
export const bringsBearer = (req: Pick<Request, 'get'>): boolean => /^bearer(\s|$)/i.test(req.get('authorization') ?? '');

/** The bearer token; `undefined` when it does not have the form of one of ours. */
export function bearerOf(req: Pick<Request, 'get'>): string | undefined {
  const token = /^bearer +(\S+)$/i.exec(req.get('authorization') ?? '')?.[1];
  return token !== undefined && form.test(token) ? token : undefined;
}

/** Makes a token for a person, in the caller's transaction, and witnesses it. */
export async function issueToken(
  tx: Tx,
  owner: { personId: string; via: 'cli' | 'device'; label: string; authAt: Date; acr: string | null },
): Promise<IssuedToken> {
  const token = `hgt_${newSecret()}`;
  const id = newId('token');
  const { rows } = await sql<{ expires_at: Date }>`
    INSERT INTO token (id, secret_hash, person_id, via, label, auth_at, acr, expires_at)
    VALUES (${id}, ${hashOf(token)}, ${owner.personId}, ${owner.via}, ${owner.label}, ${owner.authAt}, ${owner.acr}, now() + interval '12 hours') RETURNING expires_at`.execute(
    tx.sql,
  );
  tx.witness({ type: 'token.issued', data: { token: id, via: owner.via, label: owner.label } });
  return { token, expiresAt: (rows[0] as { expires_at: Date }).expires_at };
}

interface TokenRow {
  readonly id: string;
  readonly via: 'cli' | 'device';
  readonly auth_at: Date;
  readonly acr: string | null;
  readonly person_id: string;
  readonly subject: string;
  readonly name: string;
  readonly groups: string[];
  readonly unseen: boolean;
}

/** Whose token this is, in one query; `undefined` when it is unknown, ended or expired. */
export async function tokenActor(pool: pg.Pool, token: string): Promise<PersonActor | undefined> {
  const { rows } = await pool.query<TokenRow>({
    name: 'token-login',
    text: `SELECT t.id, t.via, t.auth_at, t.acr, p.id AS person_id, p.subject, p.name, p.groups, coalesce(t.seen_at < now() - interval '1 minute', true) AS unseen
           FROM token t JOIN person p ON p.id = t.person_id WHERE t.secret_hash = $1 AND t.expires_at > now()`,
    values: [hashOf(token)],
  });
  const [row] = rows;
  if (!row) return undefined;
  if (row.unseen) await pool.query('UPDATE token SET seen_at = now() WHERE id = $1', [row.id]);
  return {
    id: row.person_id,
    subject: row.subject,
    groups: row.groups,
    name: row.name,
    via: row.via,
    loginId: row.id,
    authAt: row.auth_at,
    acr: row.acr,
  };
}
