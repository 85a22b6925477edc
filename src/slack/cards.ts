/** The messages: a card says what is true when it is written, has buttons only while they can do something, and a fallback in plain text. */
import type { RequestView } from '../db/read-models/requests.ts';
import { durationInWords } from '../domain/duration.ts';
import type { Story } from '../notify/channel.ts';
import { facts, headline, nextStep, utc } from '../notify/words.ts';
import { type Block, type ButtonOf, buttons, factList, fallback, header, pageButton, paragraph, small } from './blocks.ts';

/** The values of a card's buttons; left out where the button would do nothing. */
export interface CardHandles {
  /** Approve and deny. */
  readonly decide?: string | undefined;
  readonly end?: string | undefined;
}

export interface Message {
  readonly text: string;
  readonly blocks: readonly Block[];
}

const isOpen = ({ grant }: RequestView): boolean => grant !== null && (grant.state === 'active' || grant.state === 'scheduled');

/** Which handles the card of this request needs now. `decidesHere`: what `slackMayDecide` says. */
export const handlesNeeded = (request: RequestView, decidesHere: boolean): { readonly decide: boolean; readonly end: boolean } => ({
  decide: request.state === 'pending' && decidesHere,
  end: isOpen(request),
});

/** The card of a request, for those who decide, watch or review. */
export function requestCard(story: Story, handles: CardHandles, decidesHere: boolean): Message {
  const { request, url } = story;
  const title = titleOf(request);
  const line = lineOf(story);
  const list: ButtonOf[] = [
    ...(handles.decide
      ? [
          { action: 'approve', text: 'Approve…', value: handles.decide, style: 'primary' as const },
          { action: 'deny', text: 'Deny…', value: handles.decide },
        ]
      : []),
    pageButton(url, request.state === 'pending' && !handles.decide ? 'Look and decide' : 'Open its page'),
    ...(handles.end ? [{ action: 'end', text: 'End it…', value: handles.end, style: 'danger' as const }] : []),
  ];
  return {
    text: fallback(`${title}: ${line}`),
    blocks: [header(title), paragraph(line, true), ...warningOf(request, story), factList(factsOf(story)), ...hintsOf(request, decidesHere), buttons(...list)],
  };
}

/** A fact for each that is not in the headline's own words; of a pending request, how far it is. */
function factsOf(story: Story) {
  const { request } = story;
  const list = facts(story);
  if (request.state !== 'pending') return list;
  const [need, have] = request.rules.reduce(([count, filled], rule) => [count + rule.count, filled + rule.filled], [0, 0]);
  return need > 1 ? [...list, { label: 'So far', value: `${have} of ${need} approvals` }] : list;
}

function titleOf(request: RequestView): string {
  const { grant, breakGlass, state } = request;
  const glass = breakGlass ? '◆ BREAK-GLASS' : '';
  if (grant?.overdue) return '▲ The end is overdue';
  if (grant && isOpen(request)) return glass || '✓ Approved';
  if (grant)
    return [glass, grant.state === 'ending' ? 'being ended' : 'over']
      .filter(Boolean)
      .join(', ')
      .replace(/^./, (letter) => letter.toUpperCase());
  return { pending: 'Access request', approved: '✓ Approved', denied: '✗ Denied', withdrawn: 'Withdrawn', lapsed: 'Lapsed: nobody decided' }[state];
}

/** The headline; the title says already that it is break-glass. */
const lineOf = (story: Story): string => headline(story).replace(/^BREAK-GLASS: /, '');

/** While the glass is broken: what to do if it should not be. */
const warningOf = (request: RequestView, story: Story): Block[] =>
  request.breakGlass && isOpen(request)
    ? [paragraph(nextStep({ ...story, type: 'request.glass-broken' }).replace('on its page now', 'now with the button below'))]
    : [];

/** Who can decide, and why there is nothing to press. */
function hintsOf(request: RequestView, decidesHere: boolean): Block[] {
  if (request.state !== 'pending') return [];
  const who = request.decidersInWords ? `Who can decide: ${request.decidersInWords}.` : '';
  const hint = `${who} ${decidesHere ? '' : 'It is decided on its page, not in Slack.'}`.trim();
  return hint === '' ? [] : [small(hint)];
}

/** A message to the holder: what became of what they asked for, or that it ends soon. */
export function holderCard(story: Story): Message {
  const { request, url } = story;
  const line = headline(story);
  const { grant } = request;
  const soon = story.type === 'grant.ends-soon';
  const why = request.decisions.at(-1);
  const said = why && (story.type === 'request.approved' || story.type === 'request.denied') ? [{ label: 'Why', value: why.reason }] : [];
  const hint = soon
    ? 'Finish or save your work. To go on after the end, ask again.'
    : story.type === 'request.approved' && grant && isOpen(request)
      ? `Claim your login on its page, or in a terminal. It closes by itself at ${utc(grant.endsAt)}, ${durationInWords(request.durationSeconds)} after its start.`
      : '';
  return {
    text: fallback(line),
    blocks: [paragraph(line, true), ...(said.length > 0 ? [factList(said)] : []), ...(hint ? [small(hint)] : []), buttons(pageButton(url))],
  };
}

/** One more line of the story under a card. */
export function replyOf(story: Story): Message {
  const line = headline(story);
  const isReview = story.type === 'review.due';
  return { text: fallback(line), blocks: [paragraph(line), ...(isReview ? [buttons(pageButton(story.url, 'Review it'))] : [])] };
}
