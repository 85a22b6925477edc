/**
 * Carries messages from the outbox to the queue, at least once: a row is deleted in the transaction that has already enqueued it.
 * With Redis lost the row goes all the same: the queue then holds the job in this process, at once, and should the process die with
 * it the sweep finds the work in the due-index within seconds. Rows that were kept would only be carried a second time.
 */
import { sql } from 'kysely';
import type { OutboxMessage } from '../commands/commit.ts';
import type { Db } from '../db/pool.ts';
import { failpoint } from '../domain/failpoint.ts';
import { addAll } from '../queue/add-all.ts';
import { type Job, type JobKind, jobId, type Queue } from '../queue/port.ts';

/** Work that is due later than this stays in Postgres, where the sweep finds it in time. */
export const nearMs = 120_000;
const batch = 500;

/** The lane in which access at this target is ended. */
export const laneOf = (target: string): string => `target:${target}`;
/** The target whose lane this is. */
export const targetOf = (lane: string): string => lane.slice('target:'.length);

/** The job that a message of the outbox asks for. */
export const jobOf = (topic: JobKind, payload: OutboxMessage['payload']): Job => ({
  id: jobId(topic, payload.id, payload.epoch),
  kind: topic,
  lane: topic === 'grant-due' ? 'expiry' : laneOf(payload.target ?? ''),
  dueAt: new Date(payload.dueAt),
  subject: payload.id,
  epoch: payload.epoch,
});

/** Empties the outbox; returns how many messages it carried. */
export async function relayOutbox(db: Db, queue: Queue): Promise<number> {
  let carried = 0;
  for (;;) {
    const count = await db.transaction().execute(async (trx) => {
      const rows = await trx
        .selectFrom('outbox')
        .select(['id', 'topic', 'payload', sql<Date>`now()`.as('now')])
        .orderBy('id')
        .limit(batch)
        .forUpdate()
        .skipLocked()
        .execute();
      const jobs = rows.map((row) => ({ job: jobOf(row.topic as JobKind, row.payload as OutboxMessage['payload']), now: row.now }));
      await addAll(
        queue,
        jobs.filter(({ job, now }) => job.dueAt.getTime() - now.getTime() < nearMs).map(({ job }) => job),
      );
      if (rows.length > 0) {
        await failpoint('relay.enqueued');
        await trx
          .deleteFrom('outbox')
          .where(
            'id',
            'in',
            rows.map((row) => row.id),
          )
          .execute();
        await failpoint('relay.deleted');
      }
      return rows.length;
    });
    carried += count;
    if (count < batch) return carried;
  }
}
