/** Audit events written into a test database as `commands/commit.ts` writes them, and a sealer to go with it. */
import type pg from 'pg';
import { generateSigningKey, signerFrom } from '../../src/audit/checkpoint.ts';
import { createSealer, type Sealer, type SealerOptions, type SealLog } from '../../src/audit/seal.ts';
import { type AuditEvent, auditLine } from '../../src/domain/audit-event.ts';
import { newId } from '../../src/domain/ids.ts';

export const testKey = generateSigningKey('halligan.test/audit');

/** Inserts events in one transaction; answers with their ids. */
export async function insertEvents(pool: pg.Pool, events: readonly AuditEvent[]): Promise<string[]> {
  const at = new Date();
  const rows = events.map((event) => {
    const id = newId('event');
    return { id, event, line: auditLine(id, at, event) };
  });
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    for (const { id, event, line } of rows) {
      await client.query(
        `INSERT INTO audit_event (id, at, type, actor_id, person_id, request_id, grant_id, lease_id, incident, entitlements, line)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
        [
          id,
          at,
          event.type,
          'id' in event.actor ? event.actor.id : null,
          event.person ?? null,
          event.request ?? null,
          event.grant ?? null,
          event.lease ?? null,
          event.incident ?? null,
          event.entitlements ?? [],
          line,
        ],
      );
    }
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
  return rows.map((row) => row.id);
}

export const someEvent = (step: number): AuditEvent => ({ type: 'login.succeeded', actor: { id: 'per_1', name: 'léa', via: 'web' }, data: { step } });
export const someEvents = (count: number): AuditEvent[] => Array.from({ length: count }, (_, step) => someEvent(step));

export interface Logged {
  readonly level: 'info' | 'warn' | 'error';
  readonly facts: object;
  readonly message: string;
}

/** A sealer that keeps what it logs. */
export function sealerFor(options: Pick<SealerOptions, 'pool' | 'directory'> & Partial<SealerOptions>): Sealer & { logged: Logged[] } {
  const logged: Logged[] = [];
  const at =
    (level: Logged['level']) =>
    (facts: object, message: string): void => {
      logged.push({ level, facts, message });
    };
  const log: SealLog = { info: at('info'), warn: at('warn'), error: at('error') };
  return { ...createSealer({ signer: signerFrom(testKey.signingKey), log, ...options }), logged };
}

/** Seals until nothing waits. */
export async function sealAll(sealer: Sealer): Promise<void> {
  while (await sealer.sealOnce());
}
