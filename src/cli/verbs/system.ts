/** `halligan status --system`: how Halligan itself does, for those who run it. */
import { connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { type Column, table } from '../table.ts';
import { formatOf, put, putData, say, type Terminal, widthOf } from '../terminal.ts';
import { line } from '../text.ts';
import type { WireSystem } from '../wire.ts';
import { about, figure, grouped, plural, relative, secondsUntil } from '../words.ts';

type Target = WireSystem['targets'][number];
type Process = WireSystem['processes'][number];

/** Shows it, or gives it as data. Leaves with 0 whatever it shows: it is for looking; alerts are for machines. */
export async function systemStatus(terminal: Terminal, options: { output?: string }): Promise<number> {
  const format = formatOf(options.output);
  const system = await (await connect(terminal)).get<WireSystem>('/system');
  if (format !== 'table') {
    await putData(terminal, format, system);
    return exit.ok;
  }
  const now = new Date(system.readAt);
  put(terminal, ...table(targetColumns(now), system.targets, widthOf(terminal)));
  put(terminal, [queueWords(system.processes), lagWords(system, now), aliveWords(system.processes)].join(' · '));
  if (system.quarantinedAt !== null)
    say(terminal, `▲ In quarantine, begun ${relative(system.quarantinedAt, now)}: nothing is opened after a restore. next: halligan quarantine`);
  if (system.duties.some((one) => one.process !== null)) put(terminal, dutyWords(system));
  for (const words of troubleWords(system)) say(terminal, words);
  return exit.ok;
}

const ordinal = (count: number): string => {
  const last = count % 100;
  const ending = last > 10 && last < 14 ? 'th' : (['th', 'st', 'nd', 'rd'][last % 10] ?? 'th');
  return `${count}${ending}`;
};

const targetColumns = (now: Date): Column<Target>[] => [
  { title: 'TARGET', of: (one) => one.target },
  { title: 'OPEN', of: (one) => grouped(one.open), right: true },
  { title: 'DUE', of: (one) => grouped(one.due), right: true },
  { title: 'OVERDUE', of: (one) => (one.overdue === 0 ? '0' : `${grouped(one.overdue)} ▲ ${figure(one.oldestDueSeconds ?? 0)}`), right: true },
  { title: 'LAST OK', of: (one) => (one.lastOkAt === null ? '–' : relative(one.lastOkAt, now)) },
  { title: 'DUE→CUT p99', of: (one) => (one.dueToCutP99Seconds === null ? '–' : `${one.dueToCutP99Seconds.toFixed(1)} s`), right: true },
  { title: 'NEXT TRY', of: (one) => nextTry(one, now) },
];

function nextTry({ nextTryAt, tries, why }: Target, now: Date): string {
  if (nextTryAt === null) return '';
  const inSeconds = secondsUntil(nextTryAt, now);
  return `${inSeconds > 0 ? about(inSeconds) : 'now'} (${ordinal((tries ?? 0) + 1)}${why ? `, ${why}` : ''})`;
}

/** What Redis holds is the same for all; what is in memory is each worker's own. */
function queueWords(processes: readonly Process[]): string {
  const workers = processes.filter((one) => one.queue !== null);
  if (workers.length === 0) return 'no worker is alive';
  const redis = workers.some((one) => one.queue === 'redis');
  const waiting = workers.map((one) => one.queueWaiting ?? 0);
  return `queue  ${redis ? 'redis' : 'in memory'}, ${grouped(redis ? Math.max(...waiting) : waiting.reduce((sum, one) => sum + one, 0))} waiting`;
}

function lagWords({ outbox, log, deliveries, notices }: WireSystem, now: Date): string {
  const sealed = log.sealedAt === null ? 'log not sealed yet' : `log sealed ${relative(log.sealedAt, now)}`;
  const telling = deliveries.reduce((sum, one) => sum + one.waiting, notices.waiting);
  return [
    ...(outbox.rows > 0 ? [`outbox ${plural(outbox.rows, 'message')}, the oldest ${about(outbox.oldestSeconds ?? 0)}`] : []),
    log.waiting > 0 ? `${sealed}, ${plural(log.waiting, 'event')} waiting` : sealed,
    ...(telling > 0 ? [`${plural(telling, 'message')} to be sent`] : []),
  ].join(' · ');
}

/** `web+worker on app-1 (4711)`. */
const nameOf = (one: Process): string => `${one.roles.join('+')} on ${line(one.host)} (${one.pid})`;

const aliveWords = (processes: readonly Process[]): string => (processes.length === 0 ? 'no process is alive' : `${processes.map(nameOf).join(', ')} alive`);

/** What only one process does, and which one does it. */
function dutyWords({ duties, processes }: WireSystem): string {
  const holders = [...new Set(duties.flatMap((one) => one.process ?? []))];
  const nameOfHolder = (id: string): string => {
    const found = processes.find((one) => one.id === id);
    return found ? nameOf(found) : 'a process that was not seen yet';
  };
  const namesOf = (id: string): string =>
    duties
      .filter((one) => one.process === id)
      .map((one) => line(one.name))
      .join(', ');
  return `duties  ${holders.map((id) => `${namesOf(id)} by ${nameOfHolder(id)}`).join(' · ')}`;
}

function troubleWords({ duties, targets, processes, deliveries, log }: WireSystem): string[] {
  const versions = new Set(processes.map((one) => one.version));
  return [
    ...(processes.some((one) => one.queue !== null)
      ? []
      : ['▲ No worker is alive: nothing is ended but by the targets themselves. Start one: halligan worker, or halligan serve.']),
    ...(processes.some((one) => one.queue !== null)
      ? duties.filter((one) => one.process === null).map((one) => `▲ Nobody does ${line(one.name)} at this moment; a worker should within seconds.`)
      : []),
    ...targets
      .filter((one) => one.overdue > 0)
      .map((one) => `▲ ${line(one.target)}: ${plural(one.overdue, 'revocation')} overdue${one.why ? `: ${line(one.why)}` : ''}`),
    ...((log.oldestSeconds ?? 0) > 60 ? [`▲ The log was not sealed for ${about(log.oldestSeconds ?? 0)}.`] : []),
    ...deliveries
      .filter((one) => one.failing > 0)
      .map((one) => `▲ ${line(one.channel)}: ${plural(one.failing, 'message')} tried again: ${line(one.why ?? '')}`),
    ...processes.flatMap((one) => one.troubles.map((trouble) => `▲ ${nameOf(one)}: ${line(trouble)}`)),
    ...(versions.size > 1 ? [`Several versions run: ${[...versions].map(line).join(', ')}.`] : []),
  ];
}
