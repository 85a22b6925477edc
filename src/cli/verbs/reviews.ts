/** `halligan reviews` and `halligan reviews close`. */
import { connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { usage } from '../fault.ts';
import { resolveId, shortId } from '../resolve.ts';
import { table } from '../table.ts';
import { ask, canAsk, formatOf, put, putData, say, type Terminal, widthOf } from '../terminal.ts';
import { line } from '../text.ts';
import type { WireReview } from '../wire.ts';
import { relative, why } from '../words.ts';

export const verdicts = ['justified', 'drill', 'follow-up', 'misuse'] as const;

export async function reviews(terminal: Terminal, options: { output?: string; all?: boolean }): Promise<number> {
  const format = formatOf(options.output);
  const client = await connect(terminal);
  const items: WireReview[] = [];
  for await (const review of client.all<WireReview>('/reviews', options.all ? {} : { state: 'due' })) items.push(review);
  const now = new Date();
  if (format !== 'table') await putData(terminal, format, items);
  else if (items.length > 0) {
    const state = (review: WireReview): string =>
      review.state === 'closed' ? (review.verdict ?? 'closed') : `${review.overdue ? 'overdue, ' : ''}due ${relative(review.dueAt, now)}`;
    put(
      terminal,
      ...table(
        [
          { title: 'REVIEW', of: (review) => shortId(review.id) },
          { title: 'WHO', of: (review) => review.person.name },
          { title: 'WHAT', of: (review) => review.entitlements.join(', ') },
          { title: 'STATE', of: state },
          { title: 'WHY', of: why },
        ],
        items,
        widthOf(terminal),
      ),
    );
    const first = items.find((review) => review.mayClose);
    if (first)
      say(terminal, `next: halligan status ${shortId(first.grantId)}, then halligan reviews close ${shortId(first.id)} --verdict justified --notes "…"`);
  } else say(terminal, options.all ? 'There is no review that you may see.' : 'No review is due. halligan reviews --all shows the closed ones too.');
  return exit.ok;
}

export async function closeReview(terminal: Terminal, given: string, options: { verdict?: string; notes?: string }): Promise<number> {
  const { verdict } = options;
  if (!verdicts.some((one) => one === verdict)) throw usage(`--verdict is one of ${verdicts.join(', ')}.`);
  if (options.notes === undefined && !canAsk(terminal)) throw usage('Notes are needed: what was done, and was it right?', 'Add --notes "…".');
  const client = await connect(terminal);
  const id = await resolveId(client, 'rev', given);
  const notes = options.notes ?? (await ask(terminal, 'What was done, and was it right? '));
  const review = await client.post<WireReview>(`/reviews/${id}/close`, { verdict, notes });
  say(terminal, `${shortId(id)} is closed: ${line(review.verdict ?? '')}.`);
  put(terminal, id);
  return exit.ok;
}
