/** Starts every duty of a worker: relay, sweeps, reconcile, seal. Each runs on, whatever the others do. */
import { sql } from 'kysely';
import { batchSize, type Sealer } from '../audit/seal.ts';
import type { Ctx } from '../commands/context.ts';
import { type LaneConfig, usualLane } from '../config/lane.ts';
import type { Change } from '../db/announce.ts';
import type { Hold } from '../db/stores/duties.ts';
import { newId } from '../domain/ids.ts';
import type { Job, Queue } from '../queue/port.ts';
import { type LostTarget, openCircuits } from './circuit.ts';
import { type Duty, startDuty } from './duty.ts';
import { expirer, runGrantDue, sweepDueGrants, sweepStartsAndLapses } from './expire-grants.ts';
import { askForDuties } from './holds.ts';
import { type NotifyParts, notifier } from './notify.ts';
import type { QueueMaker } from './open-queue.ts';
import { pruner, type Retention } from './prune.ts';
import { reconcileLeases } from './reconcile-leases.ts';
import { relayOutbox, targetOf } from './relay-outbox.ts';
import { openDesk, revokeDeadlineMs, runRevokeLease, sweepRevocations } from './revoke-lease.ts';

export interface Workers {
  /** The id of this process, as in the table of processes. */
  readonly id: string;
  readonly queue: Queue;
  /** Something was committed. */
  nudge(change?: Change): void;
  /** When each duty last ended well, here or, where only one process does it, anywhere; before that, when this process began. */
  lastOks(): Record<string, Date>;
  /** Names of duties that have not ended well for 90 s: here, or anywhere where only one process does them. */
  late(): string[];
  /** What the channels that do not work last said. */
  tellingFails(): string[];
  /** Targets that do not answer, as this process sees it. */
  lostTargets(): readonly LostTarget[];
  /** The difference to Postgres' clock, in milliseconds. */
  clockOffsetMs(): number;
  stop(): Promise<void>;
}

export const sweepEveryMs = 2_000;
const reconcileEveryMs = 30_000;
/** Every worker looks this often for what the one that sweeps has left undone, and takes what is due for so long, in seconds. */
const leftoversEveryMs = 10_000;
const leftoverSeconds = 10;
/** A lane that lets fewer tries begin in a second is said at the start. */
const slowPerSecond = 5;
const pruneEveryMs = 30_000;

/**
 * Postgres' time, carried on between two readings by this machine's steady clock: its wall clock, which may be wrong or
 * be set while we run, has no part in when a job is due.
 */
function postgresClock({ db }: Pick<Ctx, 'db'>): { now(): number; read(): Promise<void>; known(): Promise<void> } {
  let ahead: number | undefined;
  const read = async (): Promise<void> => {
    const before = performance.now();
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(db);
    if (rows[0]) ahead = rows[0].now.getTime() - (before + performance.now()) / 2;
  };
  return {
    now: () => (ahead === undefined ? Date.now() : performance.now() + ahead),
    read,
    known: async () => (ahead === undefined ? read() : undefined),
  };
}

/** Starts the duties and the queue of this process. `stop` lets what runs come to its end. */
export function startWorkers(
  ctx: Ctx,
  sealer: Sealer,
  tell: NotifyParts,
  makeQueue: QueueMaker,
  lanes: ReadonlyMap<string, LaneConfig> = new Map(),
  retention: Retention = {},
): Workers {
  const started = Date.now();
  const clock = postgresClock(ctx);
  const at = (target: string): LaneConfig => lanes.get(target) ?? usualLane;
  const queue = makeQueue({
    lanes: (lane) => (lane === 'expiry' ? { concurrency: 100, deadlineMs: 15_000 } : { ...at(targetOf(lane)), deadlineMs: revokeDeadlineMs }),
    now: clock.now,
    onFailure: (job, error) =>
      ctx.log.warn({ code: 'job_failed', job: job.id, why: (error as Error).message }, 'a job failed; the sweep will find its work again'),
  });
  for (const [target, { perSecond = Number.POSITIVE_INFINITY }] of lanes)
    if (perSecond < slowPerSecond)
      ctx.log.warn(
        { code: 'lane_slow', target, perSecond },
        `targets.${target}.lane.perSecond lets ${perSecond * 60} leases end there in a minute: of more that end at once, some are late`,
      );
  const expire = expirer(ctx);
  const desk = openDesk(ctx, (target) => at(target).concurrency);
  const circuits = openCircuits({ ctx, desk, queue, wake: () => sweep.nudge() });
  queue.start(async (job: Job, signal) =>
    job.kind === 'grant-due' ? runGrantDue(expire, job.subject) : circuits.saw(await runRevokeLease(ctx, desk, job.subject, job.epoch, signal)),
  );

  const duty = (name: string, everyMs: number, work: Parameters<typeof startDuty>[3]) =>
    startDuty(ctx.log, name, everyMs, work, (seconds, ok) => ctx.observe?.({ what: 'duty', duty: name, seconds, ok }));
  const id = newId('process');
  const single: Record<string, Duty> = {};
  const names = ['seal-audit', 'expire-grants', 'prune'];
  const holds = askForDuties({ db: ctx.db, log: ctx.log, holder: id, names, taken: (name) => single[name]?.nudge() });
  /** What one process does for all. */
  const alone = (name: (typeof names)[number], everyMs: number, work: (hold: Hold) => Promise<void>): Duty => {
    const one = duty(name, everyMs, () => holds.under(name, work));
    single[name] = one;
    return one;
  };
  const relay = duty('relay-outbox', 1_000, async () => {
    await clock.known();
    await relayOutbox(ctx.db, queue);
  });
  const lost = (): string[] => circuits.lost().map(({ target }) => target);
  // The sweep writes nothing by itself: it puts ids on the queue and calls commands, and each of them moves a row only from the epoch that it has just
  // read. One who slept in it and goes on can do no harm; it stops all the same.
  const sweep = alone('expire-grants', sweepEveryMs, async () => {
    const goOn = (): boolean => holds.held('expire-grants') !== undefined;
    await clock.read();
    await sweepDueGrants(ctx, queue, { goOn });
    await sweepRevocations(ctx, queue, lost(), { goOn });
    if (goOn()) await sweepStartsAndLapses(ctx);
  });
  // Whoever sweeps may be alive and still not get on: cut off from a target, or with all its lanes hanging.
  const leftovers = duty('sweep-leftovers', leftoversEveryMs, async () => {
    if (holds.held('expire-grants')) return;
    await clock.read();
    await sweepDueGrants(ctx, queue, { overdueSeconds: leftoverSeconds });
    await sweepRevocations(ctx, queue, lost(), { overdueSeconds: leftoverSeconds });
  });
  const reconcile = duty('reconcile-leases', reconcileEveryMs, () => reconcileLeases(ctx));
  const seal = alone('seal-audit', 500, async (hold) => {
    // One checkpoint for all that has gathered; another at once only when there was more than fits in one.
    while (((await sealer.sealOnce(hold))?.sealed ?? 0) >= batchSize);
  });
  const prune = alone('prune', pruneEveryMs, pruner(ctx, retention));
  const telling = notifier(ctx, tell);
  const notify = duty('notify', 1_000, telling.run);
  const duties = {
    'relay-outbox': relay,
    'expire-grants': sweep,
    'sweep-leftovers': leftovers,
    'reconcile-leases': reconcile,
    'seal-audit': seal,
    prune,
    notify,
  };
  const lastOk = (name: string, one: Duty): number => {
    const elsewhereMs = name in single ? holds.doneMsAgo(name) : undefined;
    return Math.max(one.lastOk()?.getTime() ?? started, elsewhereMs === undefined ? started : Date.now() - elsewhereMs);
  };
  return {
    id,
    queue,
    nudge(change) {
      if (change?.outbox !== false) relay.nudge();
      if (!change?.onlyTold) notify.nudge();
    },
    tellingFails: () => telling.lanes.flatMap((lane) => lane.trouble() ?? []),
    lastOks: () => Object.fromEntries(Object.entries(duties).map(([name, one]) => [name, new Date(lastOk(name, one))])),
    late: () => Object.entries(duties).flatMap(([name, one]) => (lastOk(name, one) < Date.now() - 90_000 ? [name] : [])),
    lostTargets: circuits.lost,
    clockOffsetMs: () => clock.now() - Date.now(),
    async stop() {
      // Others sweep while this process lets its jobs end; it seals what they write until they have.
      holds.leave(['expire-grants', 'prune']);
      await Promise.all([relay.stop(), sweep.stop(), leftovers.stop(), reconcile.stop(), notify.stop(), prune.stop()]);
      await Promise.all([queue.stop(20_000), circuits.stop(), telling.stop()]);
      await seal.stop();
      await holds.stop();
    },
  };
}
