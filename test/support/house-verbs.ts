/** What people do in a test house, each in one line: ask, be granted, claim, log in at the target. */
import pg from 'pg';
import type { Answer, House } from './house.ts';

export interface ClaimedAnswer {
  readonly lease: string;
  readonly grant: string;
  readonly handle: string;
  readonly expiresAt: string;
  readonly connection: Record<string, string>;
  readonly secret: { readonly password: string };
}

interface Asked {
  readonly entitlement?: string;
  readonly duration?: string;
  readonly by?: string;
  readonly incident?: string;
  readonly reason?: string;
}

/** Someone asks. Gives the request as the answer shows it. */
export async function ask(house: House, asked: Asked = {}): Promise<{ id: string; seen: string }> {
  const api = await house.apiAs(asked.by ?? 'oncall');
  const answer = await api.post<{ id: string; seen: string }>('/requests', {
    entitlements: [asked.entitlement ?? 'orders-readonly'],
    duration: asked.duration ?? '10m',
    reason: asked.reason ?? 'the payments queue grows',
    ...(asked.incident ? { incident: asked.incident } : {}),
  });
  if (answer.status !== 201) throw new Error(`asking was refused: ${answer.text}`);
  return answer.body;
}

/** Someone asks and a lead approves. */
export async function granted(house: House, asked: Asked = {}): Promise<{ request: string; grant: string }> {
  const request = await ask(house, asked);
  const lead = await house.apiAs('lead');
  const answer = await lead.post<{ grant: { id: string } | null }>(`/requests/${request.id}/decisions`, {
    decision: 'approve',
    reason: 'go on',
    seen: request.seen,
  });
  if (answer.status !== 200 || !answer.body.grant) throw new Error(`the approval was refused: ${answer.text}`);
  return { request: request.id, grant: answer.body.grant.id };
}

/** The holder claims. Gives the whole answer, refused or not. */
export const claim = async (house: House, grant: string, by = 'oncall', entitlement = 'orders-readonly'): Promise<Answer<ClaimedAnswer>> =>
  (await house.apiAs(by)).post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement });

/** A claim that must succeed. */
export async function claimed(house: House, grant: string, by = 'oncall'): Promise<ClaimedAnswer> {
  const answer = await claim(house, grant, by);
  if (answer.status !== 201) throw new Error(`the claim was refused: ${answer.text}`);
  return answer.body;
}

/** Logs in at the target with what was claimed. */
export async function connectWith(issued: ClaimedAnswer): Promise<pg.Client> {
  const { host = '', port = '', database = '' } = issued.connection;
  const client = new pg.Client({
    host,
    port: Number(port),
    database,
    user: issued.handle,
    password: issued.secret.password,
    connectionTimeoutMillis: 5_000,
    query_timeout: 10_000,
  });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** The SQLSTATE with which a login is refused, or `let in`. */
export async function loginAnswer(issued: ClaimedAnswer): Promise<string> {
  try {
    const client = await connectWith(issued);
    await client.end();
    return 'let in';
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).message;
  }
}

/** Moves the end of a grant to this many milliseconds from Postgres' now; its next sweep, or its job, finds it. For tests that cannot wait. */
export async function endsIn(house: House, grant: string, milliseconds: number): Promise<void> {
  await house.database.superuser.query(
    `UPDATE access_grant SET ends_at = greatest(starts_at + interval '1 ms', clock_timestamp() + $2 * interval '1 ms') WHERE id = $1`,
    [grant, milliseconds],
  );
}

/** The events of one grant or request, oldest first. */
export async function eventsOf(house: House, column: 'grant_id' | 'request_id' | 'lease_id', id: string): Promise<string[]> {
  const { rows } = await house.database.superuser.query<{ type: string }>(`SELECT type FROM audit_event WHERE ${column} = $1 ORDER BY position`, [id]);
  return rows.map((row) => row.type);
}
