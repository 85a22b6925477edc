/** A process says that it is alive: its row in `process`, every ten seconds, with its clock, its queue and what it finds wrong. Nothing is decided by it. */
import { hostname } from 'node:os';
import { sql } from 'kysely';
import type { Ctx } from '../commands/context.ts';
import { processLifeSeconds } from '../db/read-models/system.ts';
import type { ProcessTable } from '../db/schema.ts';
import { newId } from '../domain/ids.ts';
import { startDuty } from './duty.ts';
import type { Workers } from './start-workers.ts';

const everyMs = 10_000;

export interface HeartbeatParts {
  readonly ctx: Pick<Ctx, 'db' | 'log' | 'observe'>;
  readonly version: string;
  readonly web: boolean;
  readonly workers: Workers | undefined;
  readonly queue: NonNullable<ProcessTable['queue']>;
  /** What it finds wrong with itself, in sentences. */
  readonly troubles: () => readonly string[];
}

export interface Heartbeat {
  /** This machine's wall clock less PostgreSQL's, in milliseconds; undefined before it is known. */
  clockOffsetMs(): number | undefined;
  /** When it last ended well; before that, when this process began. */
  lastOk(): Date;
  /** Takes the row away: a process that ends in good order is not missed. */
  stop(): Promise<void>;
}

/** Starts it. While the database is away it goes on trying; what reads the rows sees the process die, and come back. */
export function startHeartbeat({ ctx, version, web, workers, queue, troubles }: HeartbeatParts): Heartbeat {
  const { db, log } = ctx;
  const id = newId('process');
  const roles: ProcessTable['roles'] = [...(web ? (['web'] as const) : []), ...(workers ? (['worker'] as const) : [])];
  const fixed = { id, host: hostname().slice(0, 200), pid: process.pid, version, roles };
  const began = new Date();
  const beganAt = performance.now();
  let offsetMs: number | undefined;
  const beat = async (): Promise<void> => {
    const before = Date.now();
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(db);
    const now = rows[0]?.now.getTime();
    if (now === undefined) return;
    offsetMs = Math.round((before + Date.now()) / 2 - now);
    const moving = {
      clock_offset_ms: Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, offsetMs)),
      queue: workers ? queue : null,
      queue_waiting: workers ? workers.queue.depth().waiting : null,
      troubles: troubles().map((trouble) => trouble.slice(0, 500)),
    };
    await db
      .insertInto('process')
      .values({ ...fixed, ...moving, started_at: new Date(now - (performance.now() - beganAt)) })
      .onConflict((conflict) => conflict.column('id').doUpdateSet({ ...moving, seen_at: sql<Date>`now()` }))
      .execute();
    await db.deleteFrom('process').where('seen_at', '<', sql<Date>`now() - ${processLifeSeconds} * interval '1 second'`).execute();
  };
  const duty = startDuty(log, 'heartbeat', everyMs, beat, (seconds, ok) => ctx.observe?.({ what: 'duty', duty: 'heartbeat', seconds, ok }));
  return {
    clockOffsetMs: () => offsetMs,
    lastOk: () => duty.lastOk() ?? began,
    async stop() {
      await duty.stop();
      const patience = new Promise<void>((resolve) => setTimeout(resolve, 2_000).unref());
      const gone = db
        .deleteFrom('process')
        .where('id', '=', id)
        .execute()
        .catch(() => undefined);
      await Promise.race([gone, patience]);
    },
  };
}
