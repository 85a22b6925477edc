/**
 * A terminal's login without a browser beside it (the shape of RFC 8628): the terminal shows a short code, the person
 * types it in at the web and confirms, the terminal polls. Such a login may ask and claim but not decide, because
 * somebody can be talked into confirming a code that is not theirs.
 */
import { randomInt } from 'node:crypto';
import { sql } from 'kysely';
import { commit } from '../commands/commit.ts';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { Refusal } from '../domain/errors.ts';
import { type LoggedIn, ownerOf } from './cli-codes.ts';
import { refuseLogin } from './logins.ts';
import { hashOf, newSecret } from './secrets.ts';
import { issueToken } from './tokens.ts';
import { plainLine } from './untrusted-text.ts';

/** Seconds between two polls, and the life of a code. */
export const pollSeconds = 2;
export const deviceCodeSeconds = 600;

// RFC 8628 §6.1: consonants only, so that no word comes out and no letter looks like another.
const letters = 'BCDFGHJKLMNPQRSTVWXZ';

export interface StartedDeviceLogin {
  readonly deviceCode: string;
  readonly userCode: string;
}

/** Starts a device login. It belongs to nobody until somebody confirms it. */
export async function startDeviceLogin(ctx: Ctx, label: string): Promise<StartedDeviceLogin> {
  const deviceCode = newSecret();
  const eight = Array.from({ length: 8 }, () => letters[randomInt(letters.length)]).join('');
  await commit(ctx, { system: 'login' }, async (tx) => {
    await sql`INSERT INTO login_code (code_hash, user_code_hash, kind, label, expires_at)
      VALUES (${hashOf(deviceCode)}, ${hashOf(eight)}, 'device', ${plainLine(label, 80) || 'a terminal'}, now() + interval '10 minutes')`.execute(tx.sql);
  });
  return { deviceCode, userCode: `${eight.slice(0, 4)}-${eight.slice(4)}` };
}

/** As people type it: any case, with or without the hyphen. `undefined` when it cannot be one. */
export function readUserCode(typed: unknown): string | undefined {
  const code = typeof typed === 'string' && typed.length <= 40 ? typed.toUpperCase().replace(/[\s\-–—]/g, '') : '';
  return new RegExp(`^[${letters}]{8}$`).test(code) ? code : undefined;
}

const unknownCode = () =>
  new Refusal('login_code_invalid', 'No terminal is waiting with this code: it is mistyped, used, or older than 10 minutes.', {
    next: 'Compare it with what the terminal shows, or start again there.',
  });

/** What the terminal called itself. Throws `login_code_invalid`. */
export async function waitingDevice(ctx: Ctx, userCode: string): Promise<{ label: string }> {
  const { rows } = await ctx.pool.query<{ label: string }>(
    `SELECT label FROM login_code WHERE user_code_hash = $1 AND kind = 'device' AND person_id IS NULL AND NOT denied AND expires_at > now()`,
    [hashOf(userCode)],
  );
  if (!rows[0]) throw unknownCode();
  return rows[0];
}

/** The person's answer. A denial is witnessed here; a confirmation becomes a login, and an event, when the terminal fetches its token. */
export async function decideDeviceLogin(ctx: Ctx, actor: PersonActor, userCode: string, decision: 'confirm' | 'deny'): Promise<void> {
  if (actor.via !== 'web') throw new Refusal('login_refused', 'A terminal is logged in from a browser only.');
  await commit(ctx, actor, async (tx) => {
    const { rows } = await sql<{ label: string }>`
      UPDATE login_code SET person_id = ${decision === 'confirm' ? actor.id : null}, auth_at = ${actor.authAt}, acr = ${actor.acr ?? null}, denied = ${decision === 'deny'}
      WHERE user_code_hash = ${hashOf(userCode)} AND kind = 'device' AND person_id IS NULL AND NOT denied AND expires_at > now() RETURNING label`.execute(
      tx.sql,
    );
    const [row] = rows;
    if (!row) throw unknownCode();
    if (decision === 'deny') tx.witness({ type: 'login.refused', data: { way: 'device', reason: 'denied by the person', label: row.label } });
  });
}

type Polled = 'login_pending' | 'login_slow_down' | 'login_code_invalid' | 'login_refused';

/** The terminal's poll. Throws `login_pending`, `login_slow_down` (polled faster than every 2 s), `login_refused` (denied) or `login_code_invalid`. */
export async function pollDeviceLogin(ctx: Ctx, deviceCode: string): Promise<LoggedIn> {
  const owner = await ownerOf(ctx, deviceCode);
  const actor = owner ? { ...owner, via: 'device' as const, loginId: '', authAt: new Date(0) } : { system: 'login' };
  const result = await commit(ctx, actor, async (tx) => {
    const { rows } = await sql<{ person_id: string | null; denied: boolean; label: string; auth_at: Date; acr: string | null; late: boolean; hasty: boolean }>`
      SELECT person_id, denied, label, auth_at, acr, expires_at <= now() AS late, coalesce(polled_at > now() - interval '1.5 seconds', false) AS hasty
      FROM login_code WHERE code_hash = ${hashOf(deviceCode)} AND kind = 'device' FOR UPDATE`.execute(tx.sql);
    const [row] = rows;
    if (!row || row.late) return 'login_code_invalid' satisfies Polled;
    await sql`UPDATE login_code SET polled_at = now() WHERE code_hash = ${hashOf(deviceCode)}`.execute(tx.sql);
    if (row.hasty) return 'login_slow_down' satisfies Polled;
    // Confirmed between our two reads: the next poll has it.
    if (!row.denied && row.person_id !== (owner?.id ?? null)) return 'login_pending' satisfies Polled;
    if (!row.denied && row.person_id === null) return 'login_pending' satisfies Polled;
    await sql`DELETE FROM login_code WHERE code_hash = ${hashOf(deviceCode)}`.execute(tx.sql);
    if (row.denied || row.person_id === null) return 'login_refused' satisfies Polled;
    return issueToken(tx, { personId: row.person_id, via: 'device', label: row.label, authAt: row.auth_at, acr: row.acr });
  });
  if (typeof result === 'object' && owner) return { ...result, person: owner };
  throw await pollRefusal(ctx, result as Polled);
}

async function pollRefusal(ctx: Ctx, code: Polled): Promise<Refusal> {
  if (code === 'login_pending') return new Refusal(code, undefined, { next: `Ask again in ${pollSeconds} s.` });
  if (code === 'login_slow_down') return new Refusal(code, undefined, { next: `Wait ${pollSeconds} s between two calls.` });
  if (code === 'login_refused') return new Refusal(code, 'The person at the browser said no.', { next: 'Start again if that was a mistake.' });
  return refuseLogin(ctx, new Refusal(code, undefined, { next: 'Run halligan login again.' }), { way: 'device', reason: 'unknown, used or late' });
}
