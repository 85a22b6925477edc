/** What the rounds of the story share: calls to the API, a session that notices its end, and the end of access as it is seen from outside. */
import pg from 'pg';
import type { House } from './house.ts';

export const stepNames = [
  'ready',
  'login',
  'requested',
  'self-approval-refused',
  'approved',
  'claimed',
  'connected',
  'session-cut',
  'login-refused',
  'role-gone',
  'break-glass',
  'review-due',
  'vault',
  'slack',
  'audit-verified',
  'tamper-found',
] as const;
export type StepName = (typeof stepNames)[number];

export interface Step {
  readonly step: StepName;
  readonly ok: boolean;
  /** How long the step took. */
  readonly ms: number;
  readonly says: string;
  /** What was measured in it, in milliseconds. */
  readonly measured?: Readonly<Record<string, number>>;
}

/** Told each step's work; a step that throws ends the story. */
export type Tell = (step: StepName, work: () => Promise<string | { says: string; measured: Record<string, number> }>) => Promise<void>;

export type Api = (method: 'GET' | 'POST', path: string, body?: object) => Promise<{ status: number; body: Record<string, unknown>; text: string }>;

export const deadlineMs = 20_000;
export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Calls the API as one person, with the token that their terminal got. */
export function apiOf(url: string, token: string): Api {
  return async (method, path, body) => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body ? { 'content-type': 'application/json' } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
      signal: AbortSignal.timeout(deadlineMs),
    });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.includes('json') && !response.headers.get('content-type')?.includes('jsonl');
    return { status: response.status, body: isJson ? (JSON.parse(text) as Record<string, unknown>) : {}, text };
  };
}

export function expect(condition: unknown, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}

export interface Credential {
  readonly lease: string;
  readonly handle: string;
  readonly password: string;
}

/** Claims one entitlement of a grant. */
export async function claim(oncall: Api, grantId: string, entitlement: string): Promise<Credential> {
  const claimed = await oncall('POST', `/grants/${grantId}/leases`, { entitlement });
  expect(claimed.status === 201, `the claim was refused: ${claimed.text}`);
  return { lease: String(claimed.body['lease']), handle: String(claimed.body['handle']), password: (claimed.body['secret'] as { password: string }).password };
}

const loginOf = (house: House, credential: Credential): pg.ClientConfig => ({
  host: '127.0.0.1',
  port: house.postgres.port,
  database: 'orders',
  user: credential.handle,
  password: credential.password,
  connectionTimeoutMillis: 5_000,
});

export interface OpenSession {
  readonly client: pg.Client;
  readonly cutAt: Promise<number>;
}

/** A session that notices at once when it is cut. */
export async function openSession(house: House, credential: Credential): Promise<OpenSession> {
  const client = new pg.Client(loginOf(house, credential));
  const cutAt = new Promise<number>((resolve) => {
    client.on('error', () => resolve(Date.now()));
    client.on('end', () => resolve(Date.now()));
  });
  await client.connect();
  return { client, cutAt };
}

/** The database must say no: rights, not something else. */
export async function expectDenied(client: pg.Client, statement: string): Promise<void> {
  const code = await client.query(statement).then(
    () => undefined,
    (error: { code?: string }) => error.code,
  );
  expect(code === '42501', `${statement} should be denied, and was answered with ${code ?? 'success'}`);
}

/** Time runs out: the open session is cut, a new login is refused, the role is gone. `earlyMs`: how much before its time the target may cut it, in milliseconds. */
export async function endOfAccess(house: House, credential: Credential, open: OpenSession, endsAt: Date, tell: Tell, earlyMs = 250): Promise<void> {
  const refusedAt = firstRefusal(house, credential, endsAt);
  await tell('session-cut', async () => {
    const cutAt = await Promise.race([open.cutAt, sleep(endsAt.getTime() - Date.now() + deadlineMs).then(() => undefined)]);
    expect(cutAt !== undefined, 'the open session was not cut');
    expect(cutAt >= endsAt.getTime() - earlyMs, `the open session was cut ${endsAt.getTime() - cutAt} ms before its time`);
    return { says: 'time is up: the open session is cut', measured: { 'due → open session cut': cutAt - endsAt.getTime() } };
  });
  await tell('login-refused', async () => {
    const at = await refusedAt;
    return { says: 'a new login with the same password is refused', measured: { 'due → new login refused': Math.max(0, at - endsAt.getTime()) } };
  });
  await tell('role-gone', async () => {
    const admin = new pg.Client({ connectionString: house.targetUrl, connectionTimeoutMillis: 5_000 });
    await admin.connect();
    try {
      for (const until = Date.now() + deadlineMs; ; await sleep(50)) {
        const { rowCount } = await admin.query('SELECT FROM pg_roles WHERE rolname = $1', [credential.handle]);
        if (rowCount === 0) return 'the role is gone from pg_roles';
        expect(Date.now() < until, 'the role is still in pg_roles');
      }
    } finally {
      await admin.end();
    }
  });
}

/** Tries the password again and again around the end, and says when it stopped working. */
async function firstRefusal(house: House, credential: Credential, endsAt: Date): Promise<number> {
  await sleep(Math.max(0, endsAt.getTime() - Date.now() - 300));
  for (;;) {
    const client = new pg.Client(loginOf(house, credential));
    client.on('error', () => undefined);
    const tried = Date.now();
    const code = await client.connect().then(
      () => undefined,
      (error: { code?: string }) => error.code ?? 'lost',
    );
    await client.end().catch(() => undefined);
    if (code === '28P01' || code === '28000') return tried;
    expect(tried < endsAt.getTime() + deadlineMs, 'a new login still works long after the end');
    await sleep(20);
  }
}

/** Steps that are part of another one: only what they measured is kept. */
export const quietly =
  (measured: Record<string, number>): Tell =>
  async (_step, work) => {
    const result = await work();
    if (typeof result !== 'string') Object.assign(measured, result.measured);
  };
