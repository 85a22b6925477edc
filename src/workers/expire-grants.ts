/** The sweep over the due-index: what is over ends, what is near is put on the queue, what should start starts, what nobody decided lapses. It needs Postgres only. */
import { sql } from 'kysely';
import type { Ctx } from '../commands/context.ts';
import { expireGrants } from '../commands/end-grant.ts';
import { endOver } from '../commands/record-revocation.ts';
import { startGrant } from '../commands/start-grant.ts';
import { lapseRequest } from '../commands/withdraw-request.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { failpoint } from '../domain/failpoint.ts';
import { eachOf, together } from '../domain/together.ts';
import { addAll } from '../queue/add-all.ts';
import type { Queue } from '../queue/port.ts';
import { jobOf, nearMs } from './relay-outbox.ts';

type Small = Pick<Ctx, 'db' | 'log' | 'nudge'>;
const batch = 1_000;
const near = sql<Date>`now() + ${nearMs / 1_000} * interval '1 second'`;

export interface Sweep {
  /** Only what is due for so long; what is due within two minutes unless set. */
  readonly overdueSeconds?: number;
  /** Asked before each; a sweep that is no longer this process' ends early. */
  readonly goOn?: () => boolean;
}

/** Puts every grant that ends within two minutes on the queue. A grant whose end is past goes first. */
export async function sweepDueGrants(ctx: Small, queue: Queue, { overdueSeconds, goOn = () => true }: Sweep = {}): Promise<void> {
  const rows = await ctx.db
    .selectFrom('access_grant')
    .select(['id', 'epoch', 'ends_at'])
    .where('state', 'in', ['scheduled', 'active'])
    .where('ends_at', '<', overdueSeconds === undefined ? near : sql<Date>`now() - ${overdueSeconds} * interval '1 second'`)
    .orderBy('ends_at')
    .limit(batch * 20)
    .execute();
  const jobs = rows.map((row) => jobOf('grant-due', { id: row.id, epoch: row.epoch, dueAt: row.ends_at.toISOString() }));
  await addAll(queue, jobs, goOn);
  if (rows.length > 0) await failpoint('expire.queued');
}

/** Ends a grant whose time is up, and tells whether it was: by Postgres' clock it may be still to come. */
export type Expire = (grantId: string) => Promise<boolean>;

/** Those that end at one instant end in few transactions: whatever comes while one is under way is in the next. */
export function expirer(ctx: Small): Expire {
  return together({ most: 100, atOnce: 2 }, (grantIds: readonly string[]) =>
    eachOf(grantIds, async (ids) => {
      const early = await expireGrants(ctx, ids);
      return ids.map((id) => !early.has(id));
    }),
  );
}

/** The job: ends one grant. When this process' clock ran ahead of Postgres', it says so by throwing `conflict`, and the sweep tries again. */
export async function runGrantDue(expire: Expire, grantId: string): Promise<void> {
  for (let tries = 0; !(await expire(grantId)); tries++) {
    if (tries >= 20) throw new Refusal('conflict');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await failpoint('expire.ended');
}

/** Starts scheduled grants whose time has come, ends leases whose own end comes before their grant's, and marks requests that lapsed. One that somebody else moved first is passed over. */
export async function sweepStartsAndLapses(ctx: Small): Promise<void> {
  const starts = await ctx.db
    .selectFrom('access_grant')
    .select('id')
    .where('state', '=', 'scheduled')
    .where('starts_at', '<=', sql<Date>`now()`)
    .limit(batch)
    .execute();
  for (const { id } of starts) await passing(startGrant(ctx, id));
  const over = await ctx.db
    .selectFrom('lease')
    .innerJoin('access_grant', 'access_grant.id', 'lease.grant_id')
    .select('lease.id')
    .where('lease.state', '=', 'live')
    .where('lease.expires_at', '<=', sql<Date>`now()`)
    // One that ends with its grant is ended by the grant.
    .where('access_grant.ends_at', '>', sql<Date>`now() + interval '5 seconds'`)
    .limit(batch)
    .execute();
  for (const { id } of over) await passing(endOver(ctx, id));
  const lapses = await ctx.db
    .selectFrom('request')
    .select('id')
    .where('state', '=', 'pending')
    .where('lapses_at', '<=', sql<Date>`now()`)
    .limit(batch)
    .execute();
  for (const { id } of lapses) await passing(lapseRequest(ctx, id));
}

async function passing(work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => {
    if (!isRefusal(error)) throw error;
  });
}
