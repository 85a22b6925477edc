/** How the house does, as it travels. */
import { z } from 'zod';
import { at } from './common.ts';

const seconds = z.number().nullable();

export const system = z.object({
  targets: z.array(
    z.object({
      target: z.string(),
      open: z.int(),
      due: z.int().describe('Leases whose end has come and that are not cut yet.'),
      overdue: z.int().describe('Those of them that are due for more than a minute.'),
      oldestDueSeconds: seconds,
      retrying: z.int().describe('Leases whose last try to end them failed.'),
      oldestRetryingSeconds: seconds,
      nextTryAt: at.nullable(),
      tries: z.int().nullable(),
      why: z.string().nullable(),
      lastOkAt: at.nullable().describe('When a lease was last read back as gone, in the last hour.'),
      dueToCutP99Seconds: seconds,
    }),
  ),
  outbox: z.object({ rows: z.int(), oldestSeconds: seconds }),
  log: z.object({ waiting: z.int(), oldestSeconds: seconds, sealedAt: at.nullable() }),
  notices: z.object({ waiting: z.int(), oldestSeconds: seconds }),
  deliveries: z.array(z.object({ channel: z.string(), waiting: z.int(), oldestSeconds: seconds, failing: z.int(), why: z.string().nullable() })),
  processes: z.array(
    z.object({
      id: z.string(),
      host: z.string(),
      pid: z.int(),
      version: z.string(),
      roles: z.array(z.enum(['web', 'worker'])),
      startedAt: at,
      seenAt: at,
      clockOffsetMs: z.int().describe("Its own clock less PostgreSQL's."),
      queue: z.enum(['memory', 'redis']).nullable(),
      queueWaiting: z.int().nullable(),
      troubles: z.array(z.string()),
    }),
  ),
  quarantinedAt: at.nullable().describe('Since when nothing is opened because of a restore: see GET /quarantine.'),
  duties: z
    .array(
      z.object({
        name: z.string(),
        process: z.string().nullable().describe('The id of the process that does it now; null when none does.'),
        takenAt: at.nullable(),
        doneAt: at.nullable().describe('When a run of it last ended well, in any process.'),
      }),
    )
    .describe('What only one process does at a time.'),
  readAt: at,
});
