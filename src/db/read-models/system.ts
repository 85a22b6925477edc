/** How the house does: what should have ended and has not, target by target; what lags; which processes are alive. For those who run it. No person is in it. */
import { sql } from 'kysely';
import { Refusal } from '../../domain/errors.ts';
import type { Db } from '../pool.ts';
import type { ProcessTable } from '../schema.ts';
import { type Readers, seesEverything, type Viewer } from './viewer.ts';

/** What presses at a target. Seconds are by PostgreSQL's clock. */
export interface TargetPressure {
  readonly target: string;
  /** Leases whose end has come and that are not cut yet. */
  readonly due: number;
  /** Those of them that are due for more than a minute. */
  readonly overdue: number;
  /** For how long the oldest is due; null when nothing is. */
  readonly oldestDueSeconds: number | null;
  /** Leases whose last try failed. They are tried again. */
  readonly retrying: number;
  readonly oldestRetryingSeconds: number | null;
  /** The next of these tries: when, how many there were, and why the last failed. */
  readonly nextTryAt: Date | null;
  readonly tries: number | null;
  readonly why: string | null;
}

export interface Lags {
  readonly outbox: { readonly rows: number; readonly oldestSeconds: number | null };
  /** Events that no checkpoint holds yet. */
  readonly log: { readonly waiting: number; readonly oldestSeconds: number | null; readonly sealedAt: Date | null };
  /** What happened and was not yet made into messages, and the messages that wait, channel by channel. */
  readonly notices: { readonly waiting: number; readonly oldestSeconds: number | null };
  readonly deliveries: readonly {
    readonly channel: string;
    readonly waiting: number;
    readonly oldestSeconds: number | null;
    readonly failing: number;
    readonly why: string | null;
  }[];
}

export interface ProcessView {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  readonly version: string;
  readonly roles: ProcessTable['roles'];
  readonly startedAt: Date;
  readonly seenAt: Date;
  readonly clockOffsetMs: number;
  readonly queue: ProcessTable['queue'];
  readonly queueWaiting: number | null;
  readonly troubles: readonly string[];
}

/** What only one process does at a time. */
export interface DutyView {
  readonly name: string;
  /** The process that holds it; null when nobody does. */
  readonly process: string | null;
  /** Since when it holds it. */
  readonly takenAt: Date | null;
  /** When a run of it last ended well, in any process. */
  readonly doneAt: Date | null;
}

export interface Pressure extends Lags {
  readonly duties: readonly DutyView[];
  /** Since when nothing is opened, because of a restore; null when that is not so. */
  readonly quarantinedAt: Date | null;
  readonly targets: readonly TargetPressure[];
  readonly processes: readonly ProcessView[];
  readonly readAt: Date;
}

export interface System extends Pressure {
  readonly targets: readonly (TargetPressure & {
    /** Leases that are open now. */
    readonly open: number;
    /** When it last read a lease back as gone, and how long cutting took, of the last hour. */
    readonly lastOkAt: Date | null;
    readonly dueToCutP99Seconds: number | null;
  })[];
}

/** A process that was not seen for so long is dead, in seconds. */
export const processLifeSeconds = 60;

const seconds = (since: string) => sql.raw(`extract(epoch FROM now() - ${since})::float8`);

/** By the grants' and leases' own ends, so that it is also seen when no worker has moved anything. */
async function readTargets(db: Db): Promise<TargetPressure[]> {
  const { rows } = await sql<TargetPressure>`
    WITH over AS (
      SELECT l.target, least(g.ends_at, l.expires_at, l.revoking_at) AS due_at, l.cut_at IS NULL AS uncut, l.revoking_at, l.next_try_at, l.tries, l.last_error
      FROM lease l JOIN access_grant g ON g.id = l.grant_id WHERE l.state = 'revoking'
      UNION ALL
      SELECT l.target, least(g.ends_at, l.expires_at), true, NULL, NULL, 0, NULL
      FROM access_grant g JOIN lease l ON l.grant_id = g.id WHERE g.state IN ('scheduled', 'active') AND g.ends_at <= now() AND l.state IN ('issuing', 'live')
      UNION ALL
      SELECT l.target, l.expires_at, true, NULL, NULL, 0, NULL
      FROM lease l JOIN access_grant g ON g.id = l.grant_id WHERE l.state = 'live' AND l.expires_at <= now() AND g.ends_at > now()
    )
    SELECT target,
      count(*) FILTER (WHERE uncut)::int AS due,
      count(*) FILTER (WHERE uncut AND due_at < now() - interval '60 seconds')::int AS overdue,
      ${seconds('min(due_at) FILTER (WHERE uncut)')} AS "oldestDueSeconds",
      count(*) FILTER (WHERE last_error IS NOT NULL)::int AS retrying,
      ${seconds('min(revoking_at) FILTER (WHERE last_error IS NOT NULL)')} AS "oldestRetryingSeconds",
      (array_agg(next_try_at ORDER BY next_try_at) FILTER (WHERE last_error IS NOT NULL))[1] AS "nextTryAt",
      (array_agg(tries ORDER BY next_try_at) FILTER (WHERE last_error IS NOT NULL))[1] AS tries,
      (array_agg(last_error ORDER BY next_try_at) FILTER (WHERE last_error IS NOT NULL))[1] AS why
    FROM over GROUP BY target ORDER BY target`.execute(db);
  return rows;
}

async function readLags(db: Db): Promise<Lags & Pick<Pressure, 'quarantinedAt' | 'readAt'>> {
  const { rows } = await sql<{
    outbox: Lags['outbox'];
    log: Pick<Lags['log'], 'waiting' | 'oldestSeconds'>;
    sealedAt: Date | null;
    notices: Lags['notices'];
    deliveries: Lags['deliveries'];
    quarantinedAt: Date | null;
    readAt: Date;
  }>`SELECT
      (SELECT json_build_object('rows', count(*), 'oldestSeconds', ${seconds('min(created_at)')}) FROM outbox) AS outbox,
      (SELECT json_build_object('waiting', count(*), 'oldestSeconds', (SELECT ${seconds('e.at')} FROM audit_event e WHERE e.position = min(p.position))) FROM audit_pending p) AS log,
      (SELECT signed_at FROM audit_checkpoint ORDER BY size DESC LIMIT 1) AS "sealedAt",
      (SELECT json_build_object('waiting', count(*), 'oldestSeconds', ${seconds('min(due_at)')}) FROM notice WHERE spread_at IS NULL AND due_at <= now()) AS notices,
      (SELECT coalesce(json_agg(c ORDER BY c.channel), '[]') FROM (
        SELECT channel, count(*) AS waiting, ${seconds('min(created_at)')} AS "oldestSeconds", count(last_error) AS failing,
          (array_agg(last_error ORDER BY created_at) FILTER (WHERE last_error IS NOT NULL))[1] AS why
        FROM delivery WHERE state = 'waiting' GROUP BY channel) c) AS deliveries,
      (SELECT began_at FROM quarantine WHERE lifted_at IS NULL) AS "quarantinedAt",
      now() AS "readAt"`.execute(db);
  const [row] = rows;
  if (!row) throw new Error('no answer');
  const { sealedAt, log, ...rest } = row;
  return { ...rest, log: { ...log, sealedAt } };
}

const readProcesses = (db: Db): Promise<ProcessView[]> =>
  db
    .selectFrom('process')
    .select(['id', 'host', 'pid', 'version', 'roles', 'started_at as startedAt', 'seen_at as seenAt', 'clock_offset_ms as clockOffsetMs'])
    .select(['queue', 'queue_waiting as queueWaiting', 'troubles'])
    .where('seen_at', '>', sql<Date>`now() - ${processLifeSeconds} * interval '1 second'`)
    .orderBy('started_at')
    .orderBy('id')
    .execute();

async function readDuties(db: Db): Promise<DutyView[]> {
  const { rows } = await sql<DutyView>`
    SELECT name, CASE WHEN held_until > now() THEN holder END AS process, CASE WHEN held_until > now() THEN taken_at END AS "takenAt", done_at AS "doneAt"
    FROM duty ORDER BY name`.execute(db);
  return rows;
}

/** What metrics show: read by index, with no look at what is merely open. */
export async function readPressure(db: Db): Promise<Pressure> {
  const targets = await readTargets(db);
  const lags = await readLags(db);
  return { ...lags, targets, processes: await readProcesses(db), duties: await readDuties(db) };
}

const calm = (target: string): TargetPressure => ({
  target,
  due: 0,
  overdue: 0,
  oldestDueSeconds: null,
  retrying: 0,
  oldestRetryingSeconds: null,
  nextTryAt: null,
  tries: null,
  why: null,
});

/** All of it, with a line for every target that is given or that holds anything. Throws `not_eligible` for all but auditors and admins. */
export async function readSystem(db: Db, readers: Readers, viewer: Viewer, targets: Iterable<string>): Promise<System> {
  if (!seesEverything(readers, viewer))
    throw new Refusal('not_eligible', 'Only auditors and admins see how Halligan itself does.', { next: 'roles.admins in the config says who they are.' });
  const pressure = await readPressure(db);
  const { rows: opened } = await sql<{ target: string; open: number }>`
    SELECT target, count(*)::int AS open FROM lease WHERE state IN ('issuing', 'live', 'revoking') GROUP BY target`.execute(db);
  // By the log's times, which stand in order: a look through every lease that ever was would take longer each month.
  const { rows: ended } = await sql<{ target: string; lastOkAt: Date | null; p99: number | null }>`
    SELECT l.target, max(l.read_back_at) AS "lastOkAt",
      percentile_cont(0.99) WITHIN GROUP (ORDER BY greatest(0, extract(epoch FROM l.cut_at - least(g.ends_at, l.expires_at, l.revoking_at)))) AS p99
    FROM audit_event e JOIN lease l ON l.id = e.lease_id JOIN access_grant g ON g.id = l.grant_id
    WHERE e.at > now() - interval '1 hour' AND e.type = 'lease.cut' GROUP BY l.target`.execute(db);
  const names = new Set([...targets, ...opened.map((row) => row.target), ...pressure.targets.map((row) => row.target)]);
  const { outbox, log, notices, deliveries, processes, duties, quarantinedAt, readAt } = pressure;
  const all = [...names].sort().map((name) => {
    const recent = ended.find((row) => row.target === name);
    return {
      ...(pressure.targets.find((row) => row.target === name) ?? calm(name)),
      open: opened.find((row) => row.target === name)?.open ?? 0,
      lastOkAt: recent?.lastOkAt ?? null,
      dueToCutP99Seconds: recent?.p99 ?? null,
    };
  });
  return { targets: all, processes, duties, outbox, log, notices, deliveries, quarantinedAt, readAt };
}
