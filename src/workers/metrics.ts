/**
 * The metrics of a process, as Prometheus reads them. What happens is counted as it happens, in memory; what stands in the
 * database is read when somebody scrapes, seldom and within a deadline. Labels are names of targets, lanes, duties, channels
 * and codes: never a person, an id, a reason or an incident.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Observe, Observed } from '../commands/observed.ts';
import type { Db } from '../db/pool.ts';
import { type Pressure, readPressure } from '../db/read-models/system.ts';
import { errorCodes } from '../domain/errors.ts';
import type { LaneDepth } from '../queue/port.ts';
import type { Heartbeat } from './heartbeat.ts';
import { lately } from './lately.ts';
import type { Workers } from './start-workers.ts';

export interface MetricsParts {
  readonly db: Db;
  readonly version: string;
  /** Targets of the config: each has its series from the start, so that a first failure is a rise and no new line. */
  readonly targets: readonly string[];
  /** What runs in this process by now. */
  readonly running: () => { readonly workers: Workers | undefined; readonly heartbeat: Heartbeat | undefined };
}

export interface Metrics {
  readonly observe: Observe;
  readonly contentType: string;
  /** The text of a scrape. Ends within three seconds, whatever the database and the queue do. */
  scrape(): Promise<string>;
}

const keepMs = 5_000;
const databaseDeadlineMs = 2_000;
const queueDeadlineMs = 1_000;
/** From a tenth of a second, which is usual, to the minute, which is an alarm. */
const cutBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800];
const dutyBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60];

/** Makes them; nothing is read before the first scrape. */
export function createMetrics({ db, version, targets, running }: MetricsParts): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const counted = counters(registry, targets);
  const shown = gauges(registry);
  shown.build.set({ version, node: process.version }, 1);
  const pressure = lately(() => readPressure(db), { keepMs, deadlineMs: databaseDeadlineMs });
  const lanes = lately(async () => (await running().workers?.queue.lanes?.()) ?? [], { keepMs: 1_000, deadlineMs: queueDeadlineMs });
  return {
    observe(seen) {
      // Counting must not break what is counted.
      try {
        counted(seen);
      } catch {
        // A value that cannot be counted is left out.
      }
    },
    contentType: registry.contentType,
    async scrape() {
      const [now, queue] = await Promise.all([pressure(), lanes()]);
      const { workers, heartbeat } = running();
      shown.databaseUp.set(now ? 1 : 0);
      showPressure(shown, now, targets);
      shown.queue.reset();
      // A lane that nothing has been in yet is empty, and not unknown.
      if (workers && queue) for (const lane of ['expiry', ...targets.map((target) => `target:${target}`)]) showLane(shown, { lane, waiting: 0, running: 0 });
      for (const lane of queue ?? []) showLane(shown, lane);
      showCircuits(shown, workers, targets);
      const lastOks = { ...workers?.lastOks(), ...(heartbeat ? { heartbeat: heartbeat.lastOk() } : {}) };
      for (const [duty, at] of Object.entries(lastOks)) shown.dutyLast.set({ duty }, at.getTime() / 1_000);
      const offset = heartbeat?.clockOffsetMs();
      if (offset !== undefined) shown.clock.set(offset / 1_000);
      return registry.metrics();
    },
  };
}

/** A code of Halligan's own, and nothing else, becomes a label. */
const codeLabel = (code: unknown): string => (typeof code === 'string' && Object.hasOwn(errorCodes, code) ? code : 'other');

/** What becomes of a request, and what somebody decided, by the type of its event. */
const requestOutcome = /^request\.(submitted|approved|denied|withdrawn|lapsed|glass-broken)$/;
const decisions: Record<string, string> = { 'request.approval-given': 'approve', 'request.approved': 'approve', 'request.denied': 'deny' };

/** The instruments that count as things happen. */
function counters(registry: Registry, targets: readonly string[]): Observe {
  const registers = [registry];
  const cut = new Histogram({
    name: 'halligan_revocation_due_to_cut_seconds',
    help: 'From when access was due to end until new logins were refused and sessions cut.',
    labelNames: ['target'],
    buckets: cutBuckets,
    registers,
  });
  const retries = new Counter({
    name: 'halligan_revocation_retries_total',
    help: 'Tries to end access that failed.',
    labelNames: ['target', 'code'],
    registers,
  });
  const claims = new Counter({
    name: 'halligan_claims_total',
    help: 'Claims, by what came of them: given, or the code of the refusal.',
    labelNames: ['target', 'outcome'],
    registers,
  });
  const requests = new Counter({ name: 'halligan_requests_total', help: 'What became of requests.', labelNames: ['outcome'], registers });
  const decided = new Counter({ name: 'halligan_decisions_total', help: 'Decisions of people.', labelNames: ['outcome'], registers });
  const refusals = new Counter({ name: 'halligan_refusals_total', help: 'What was refused and witnessed.', labelNames: ['code'], registers });
  const duties = new Histogram({
    name: 'halligan_duty_duration_seconds',
    help: 'How long a run of a duty took.',
    labelNames: ['duty', 'outcome'],
    buckets: dutyBuckets,
    registers,
  });
  for (const target of targets) {
    cut.zero({ target });
    claims.inc({ target, outcome: 'given' }, 0);
  }
  for (const outcome of ['submitted', 'approved', 'denied', 'withdrawn', 'lapsed', 'glass-broken']) requests.inc({ outcome }, 0);
  for (const outcome of ['approve', 'deny', 'refused']) decided.inc({ outcome }, 0);
  const event = ({ type, data }: { type: string; data?: { readonly code?: unknown } | undefined }): void => {
    const outcome = requestOutcome.exec(type)?.[1];
    if (outcome) requests.inc({ outcome });
    const decision = decisions[type] ?? (type === 'decision.refused' ? 'refused' : undefined);
    if (decision) decided.inc({ outcome: decision });
    if (type.endsWith('.refused')) refusals.inc({ code: codeLabel(data?.code) });
  };
  return (seen: Observed) => {
    if (seen.what === 'events') for (const one of seen.events) event(one);
    else if (seen.what === 'cut') cut.observe({ target: seen.target }, Math.max(0, seen.seconds));
    else if (seen.what === 'retry') retries.inc({ target: seen.target, code: codeLabel(seen.code) });
    else if (seen.what === 'claim') claims.inc({ target: seen.target ?? 'none', outcome: seen.outcome === 'given' ? 'given' : codeLabel(seen.outcome) });
    else duties.observe({ duty: seen.duty, outcome: seen.ok ? 'ok' : 'failed' }, seen.seconds);
  };
}

/** The instruments that are set at a scrape. */
function gauges(registry: Registry) {
  const gauge = <T extends string>(name: string, help: string, ...labelNames: T[]) =>
    new Gauge({ name: `halligan_${name}`, help, labelNames, registers: [registry] });
  return {
    build: gauge('build_info', 'Always 1; its labels say which version runs, and on which Node.js.', 'version', 'node'),
    databaseUp: gauge('database_up', '1 when PostgreSQL answered this scrape within two seconds, or the one up to five seconds before.'),
    clock: gauge('clock_offset_seconds', "This machine's clock less PostgreSQL's. No decision rests on it."),
    queue: gauge('queue_jobs', 'Jobs of a lane in the queue of this worker.', 'lane', 'state'),
    circuit: gauge('target_circuit', '1 while this worker holds the lane of a target, because it does not answer; else 0.', 'target'),
    dutyLast: gauge('duty_last_success_timestamp_seconds', 'When a duty last ended well; before its first run, when this process started.', 'duty'),
    due: gauge('revocations_due', 'Leases whose end has come and that are not cut yet.', 'target'),
    overdue: gauge('revocations_overdue', 'Leases that are due for more than 60 s and not cut yet.', 'target'),
    oldestDue: gauge('revocation_oldest_due_seconds', 'For how long the oldest lease is due that is not cut yet; 0 when none is.', 'target'),
    retrying: gauge('revocations_retrying', 'Leases whose last try to end them failed.', 'target'),
    oldestRetrying: gauge('revocation_oldest_retrying_seconds', 'For how long the oldest of them is being ended; 0 when there is none.', 'target'),
    outbox: gauge('outbox_rows', 'Messages that were not yet carried to the queue.'),
    oldestOutbox: gauge('outbox_oldest_seconds', 'The age of the oldest of them; 0 when there is none.'),
    seal: gauge('seal_waiting_events', 'Events that no signed checkpoint holds yet.'),
    oldestSeal: gauge('seal_oldest_waiting_seconds', 'The age of the oldest of them; 0 when there is none.'),
    notices: gauge('notices_waiting', 'Events that people are told of and that were not yet made into messages.'),
    oldestNotice: gauge('notices_oldest_waiting_seconds', 'For how long the oldest of them is due; 0 when there is none.'),
    deliveries: gauge('deliveries_waiting', 'Messages that wait to be sent.', 'channel'),
    oldestDelivery: gauge('delivery_oldest_waiting_seconds', 'The age of the oldest of them; 0 when there is none.', 'channel'),
    quarantined: gauge('quarantined', '1 while nothing is opened because of a restore; else 0.'),
    processes: gauge('processes_alive', 'Processes that were seen in the last 60 s.', 'role'),
  };
}

type Gauges = ReturnType<typeof gauges>;

function showLane(shown: Gauges, { lane, waiting, running }: LaneDepth): void {
  shown.queue.set({ lane, state: 'waiting' }, waiting);
  shown.queue.set({ lane, state: 'running' }, running);
}

/** Only a worker knows. */
function showCircuits(shown: Gauges, workers: Workers | undefined, targets: readonly string[]): void {
  if (!workers) return;
  const lost = new Set(workers.lostTargets().map(({ target }) => target));
  for (const target of targets) shown.circuit.set({ target }, lost.has(target) ? 1 : 0);
}

const channels = ['slack', 'email', 'webhook'];

/** Without an answer of the database there are no such series: an old number would pass for a good one. */
function showPressure(shown: Gauges, now: Pressure | undefined, targets: readonly string[]): void {
  const plain = {
    outbox: now?.outbox.rows,
    oldestOutbox: now && (now.outbox.oldestSeconds ?? 0),
    seal: now?.log.waiting,
    oldestSeal: now && (now.log.oldestSeconds ?? 0),
    notices: now?.notices.waiting,
    oldestNotice: now && (now.notices.oldestSeconds ?? 0),
    quarantined: now && (now.quarantinedAt ? 1 : 0),
  };
  for (const [name, value] of Object.entries(plain) as [keyof typeof plain, number | undefined][])
    if (value === undefined) shown[name].remove();
    else shown[name].set(value);
  for (const name of ['due', 'overdue', 'oldestDue', 'retrying', 'oldestRetrying', 'deliveries', 'oldestDelivery', 'processes'] as const) shown[name].reset();
  if (!now) return;
  for (const target of new Set([...targets, ...now.targets.map((row) => row.target)])) {
    const row = now.targets.find((one) => one.target === target);
    shown.due.set({ target }, row?.due ?? 0);
    shown.overdue.set({ target }, row?.overdue ?? 0);
    shown.oldestDue.set({ target }, row?.oldestDueSeconds ?? 0);
    shown.retrying.set({ target }, row?.retrying ?? 0);
    shown.oldestRetrying.set({ target }, row?.oldestRetryingSeconds ?? 0);
  }
  for (const channel of channels) {
    const row = now.deliveries.find((one) => one.channel === channel);
    shown.deliveries.set({ channel }, row?.waiting ?? 0);
    shown.oldestDelivery.set({ channel }, row?.oldestSeconds ?? 0);
  }
  for (const role of ['web', 'worker'] as const) shown.processes.set({ role }, now.processes.filter((one) => one.roles.includes(role)).length);
}
