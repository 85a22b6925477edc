/** `halligan quarantine` and `halligan quarantine lift`: what differs after a restore, and an admin's word that it goes on. */
import { connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { CliFault } from '../fault.ts';
import { table } from '../table.ts';
import { ask, canAsk, formatOf, put, putData, say, type Terminal, widthOf } from '../terminal.ts';
import { line } from '../text.ts';
import type { WireQuarantine } from '../wire.ts';
import { clock, grouped, plural, relative } from '../words.ts';
import { askReason } from './request.ts';

type Difference = NonNullable<WireQuarantine['differences']>['found'][number];

const kinds: Record<Difference['kind'], string> = {
  unexplained: 'only the target has it',
  missing: 'only the rows have it',
  unfinished: 'a claim that never ended',
};

/** Shows it, or gives it as data. Leaves with 0 whether it is on or not. */
export async function quarantine(terminal: Terminal, options: { output?: string }): Promise<number> {
  const format = formatOf(options.output);
  const { quarantine: on } = await (await connect(terminal)).get<{ quarantine: WireQuarantine | null }>('/quarantine');
  if (format !== 'table') await putData(terminal, format, on);
  else if (on) show(terminal, on);
  else say(terminal, 'Halligan is not in quarantine.');
  return exit.ok;
}

function show(terminal: Terminal, on: WireQuarantine): void {
  const now = new Date();
  say(terminal, `▲ In quarantine since ${clock(on.beganAt, now)} UTC: ${line(on.why)}.`);
  say(terminal, 'Nothing is opened. What is due is ended.');
  const { differences, comparedAt } = on;
  if (!differences || !comparedAt) {
    say(terminal, 'No worker has compared rows and targets yet; that takes half a minute. If none is alive, start one: halligan worker');
    return;
  }
  const columns = [
    { title: 'TARGET', of: (one: Difference) => one.target },
    { title: 'LOGIN', of: (one: Difference) => one.name },
    { title: 'WHAT DIFFERS', of: (one: Difference) => kinds[one.kind] },
    { title: 'ENDS BY ITSELF', of: (one: Difference) => (one.endsAt === null ? 'not known' : relative(one.endsAt, now)) },
  ];
  if (differences.found.length > 0) put(terminal, ...table(columns, differences.found, widthOf(terminal)));
  else if (differences.unread.length === 0) say(terminal, 'Rows and targets agree.');
  if (differences.more > 0) say(terminal, `and ${grouped(differences.more)} more`);
  for (const one of differences.unread) say(terminal, `▲ ${line(one.target)} could not be read: ${line(one.why)}`);
  say(
    terminal,
    `Compared ${relative(comparedAt, now)}. After the lift, what only a target has is ended there, and leases that only the rows have are ended in the rows.`,
  );
  say(terminal, 'next: halligan quarantine lift --reason "…"');
}

export interface LiftOptions {
  readonly reason?: string;
  readonly yes?: boolean;
}

export async function liftQuarantine(terminal: Terminal, options: LiftOptions): Promise<number> {
  const client = await connect(terminal);
  if (!options.yes && canAsk(terminal)) {
    const { quarantine: on } = await client.get<{ quarantine: WireQuarantine | null }>('/quarantine');
    if (on) show(terminal, on);
  }
  const reason = options.reason ?? (await askReason(terminal, 'Reason (kept for ever): '));
  if (!options.yes && canAsk(terminal) && !/^y(es)?$/i.test(await ask(terminal, 'Lift the quarantine? [y/N] ')))
    throw new CliFault('Nothing was done; the quarantine stays.');
  const { continued } = await client.post<{ continued: { from: number; to: number; found: number; lost: number } | null }>(
    '/quarantine/lift',
    { reason },
    { deadlineMs: 60_000 },
  );
  say(terminal, 'The quarantine is lifted. Access can be asked for, approved and claimed again.');
  if (continued) {
    const { from, to, lost } = continued;
    const text =
      lost === 0
        ? 'the text of each was still there'
        : `of ${plural(lost, 'entry', 'entries')} only the hash is known: an export made before the restore has the text`;
    say(terminal, `The log goes on from what was published: entries ${grouped(from)} to ${grouped(to - 1)} were taken over; ${text}.`);
  }
  return exit.ok;
}
