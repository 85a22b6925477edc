/** A process says that it is alive: its row in `process`, every five seconds, with its clock, its queue and what it finds wrong. Nothing is decided by it. */
import { sql } from 'kysely';
import type { Ctx } from '../commands/context.ts';
import { processLifeSeconds } from '../db/read-models/system.ts';
import type { ProcessTable } from '../db/schema.ts';
import { newId } from '../domain/ids.ts';
import { startDuty } from './duty.ts';
import type { Said } from './health.ts';
import { type SelfWatch, writeFault } from './self-watch.ts';
import type { Workers } from './start-workers.ts';

const everyMs = 5_000;

export interface HeartbeatParts {
  readonly ctx: Pick<Ctx, 'db' | 'log' | 'observe'>;
  readonly version: string;
  readonly web: boolean;
  readonly workers: Workers | undefined;
  readonly queue: NonNullable<ProcessTable['queue']>;
  readonly self: SelfWatch;
  /** What the process is called, and whether the config says so. */
  readonly host: string;
  /** What it finds wrong with itself, in sentences. */
  readonly troubles: () => readonly string[];
}

export interface Heartbeat {
  /** This machine's wall clock less PostgreSQL's, in milliseconds; undefined before it is known. */
  clockOffsetMs(): number | undefined;
  /** Why the last beat could not be written, where that is a fault of the database. */
  fault(): Said | undefined;
  /** When it last ended well; before that, when this process began. */
  lastOk(): Date;
  /** Takes the row away: a process that ends in good order is not missed. */
  stop(): Promise<void>;
}

/** Starts it. While the database is away it goes on trying; what reads the rows sees the process die, and come back. */
export function startHeartbeat({ ctx, version, web, workers, queue, self, host, troubles }: HeartbeatParts): Heartbeat {
  const { db, log } = ctx;
  const id = workers?.id ?? newId('process');
  const roles: ProcessTable['roles'] = [...(web ? (['web'] as const) : []), ...(workers ? (['worker'] as const) : [])];
  const fixed = { id, host, pid: process.pid, version, roles, policy: self.policy };
  const began = new Date();
  const beganAt = performance.now();
  let offsetMs: number | undefined;
  let fault: Said | undefined;
  const look = async (): Promise<number> => {
    const [wall, steady] = [Date.now(), performance.now()];
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(db);
    const half = (performance.now() - steady) / 2;
    const now = rows[0]?.now.getTime() ?? 0;
    offsetMs = Math.round(wall + half - now);
    const others = await othersOf(db, id);
    for (const { code, message } of self.took({ steady: steady + half, wall: wall + half, database: now, others })) log.error({ code }, message);
    await self.readFile();
    return now;
  };
  const write = async (now: number): Promise<void> => {
    if (offsetMs === undefined) return;
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
  const beat = async (): Promise<void> => {
    const now = await look();
    try {
      await write(now);
      fault = undefined;
    } catch (error) {
      fault = writeFault(error);
      throw error;
    }
  };
  const duty = startDuty(log, 'heartbeat', everyMs, beat, (seconds, ok) => ctx.observe?.({ what: 'duty', duty: 'heartbeat', seconds, ok }));
  return {
    clockOffsetMs: () => offsetMs,
    fault: () => fault,
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

async function othersOf(db: Ctx['db'], id: string) {
  const rows = await db
    .selectFrom('process')
    .select(['id', 'host', 'pid', 'policy', 'seen_at'])
    .where('id', '<>', id)
    .where('seen_at', '>', sql<Date>`now() - ${processLifeSeconds} * interval '1 second'`)
    .limit(200)
    .execute();
  return rows.map(({ seen_at, ...row }) => ({ ...row, seenAt: seen_at.getTime() }));
}
