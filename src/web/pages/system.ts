/** The head of Active for those who run Halligan: what presses at each target, what lags, and which processes are alive. */
import type { ProcessView, System } from '../../db/read-models/system.ts';
import { html, type Part, personText } from '../html.ts';
import { figure, plural, relative, time } from '../words.ts';

type Target = System['targets'][number];

/** The whole of it. Trouble comes first, each in one sentence. */
export const systemHead = (system: System): Part =>
  html`<section aria-label="How Halligan does">${troubles(system).map((trouble) => html`<div class="note over">${trouble}</div>`)}
<table><thead><tr><th>Target</th><th>Open</th><th>Due</th><th>Overdue</th><th>Last ok</th><th>Due to cut, 99 %</th><th>Next try</th></tr></thead><tbody>${system.targets.map((target) => row(target, system.readAt))}</tbody></table>
<p class="soft">${[queueWords(system.processes), lagWords(system), aliveWords(system.processes), ...dutyWords(system)].map((words, index) => (index > 0 ? html` · ${words}` : words))}</p></section>`;

/** On a narrow screen the headings are gone, and each cell says what it is. */
const cell = (what: string, value: Part): Part => html`<td><span class="narrow">${what} </span>${value}</td>`;
const none = (words: string): Part => html`<span class="soft">${words}</span>`;

const row = (one: Target, now: Date): Part =>
  html`<tr><td>${one.target}</td>${[
    cell('open', one.open),
    cell('due', one.due),
    cell('overdue', one.overdue === 0 ? 0 : html`<span class="state over">${one.overdue} for ${figure(Math.ceil(one.oldestDueSeconds ?? 0))}</span>`),
    cell('last ok', one.lastOkAt ? relative(one.lastOkAt, now) : none('none in the last hour')),
    cell('due to cut', one.dueToCutP99Seconds === null ? none('–') : `${one.dueToCutP99Seconds.toFixed(1)} s`),
    one.nextTryAt === null
      ? html`<td></td>`
      : cell('next try', html`${relative(one.nextTryAt, now)}, number ${(one.tries ?? 0) + 1}<span class="under">${personText(one.why ?? '')}</span>`),
  ]}</tr>`;

function queueWords(processes: readonly ProcessView[]): Part {
  const workers = processes.filter((one) => one.queue !== null);
  if (workers.length === 0) return 'no worker is alive';
  const redis = workers.some((one) => one.queue === 'redis');
  const waiting = workers.map((one) => one.queueWaiting ?? 0);
  return `queue ${redis ? 'in Redis' : 'in memory'}, ${redis ? Math.max(...waiting) : waiting.reduce((sum, one) => sum + one, 0)} waiting`;
}

function lagWords({ outbox, log, notices, deliveries, readAt }: System): Part {
  const telling = deliveries.reduce((sum, one) => sum + one.waiting, notices.waiting);
  return [
    outbox.rows > 0 && `${plural(outbox.rows, 'message')} in the outbox · `,
    log.sealedAt ? html`log sealed ${relative(log.sealedAt, readAt)}` : 'log not sealed yet',
    log.waiting > 0 && `, ${plural(log.waiting, 'event')} waiting`,
    telling > 0 && ` · ${plural(telling, 'message')} to be sent`,
  ];
}

const nameOf = (one: ProcessView): string => `${one.roles.join('+')} on ${one.host} (${one.pid})`;

const aliveWords = (processes: readonly ProcessView[]): Part =>
  processes.length === 0
    ? 'no process is alive'
    : processes.map((one, index) => html`${index > 0 ? ', ' : ''}${nameOf(one)}, version ${one.version}, since ${time(one.startedAt, one.seenAt)}`);

/** What only one process does, and which one does it; with one worker there is nothing to tell. */
const dutyWords = ({ duties, processes }: System): Part[] => {
  const workers = processes.filter((one) => one.roles.includes('worker'));
  if (workers.length < 2) return [];
  return workers.flatMap((one) => {
    const names = duties.filter((duty) => duty.process === one.id).map((duty) => duty.name);
    return names.length > 0 ? [`${names.join(', ')} by ${nameOf(one)}`] : [];
  });
};

function troubles({ processes, deliveries, log }: System): Part[] {
  return [
    ...(processes.some((one) => one.queue !== null) ? [] : ['No worker is alive: nothing is ended but by the targets themselves.']),
    ...((log.oldestSeconds ?? 0) > 60 ? [`The log was not sealed for ${Math.round(log.oldestSeconds ?? 0)} s.`] : []),
    ...deliveries
      .filter((one) => one.failing > 0)
      .map((one) => html`${one.channel}: ${plural(one.failing, 'message')} tried again: ${personText(one.why ?? '')}`),
    ...processes.flatMap((one) => one.troubles.map((trouble) => html`${nameOf(one)}: ${personText(trouble)}`)),
  ];
}
