/** Asking: `/halligan` and the shortcut open a dialog with what this person may ask for. Break-glass stays on the web, where the login is fresh enough for it. */
import { keepDraft } from '../auth/drafts.ts';
import { loginAddress, wishFor } from '../auth/wishes.ts';
import type { PersonActor } from '../commands/context.ts';
import { parse, submitInput } from '../commands/inputs.ts';
import { submitRequest } from '../commands/submit-request.ts';
import { type OfferedEntitlement, offeredTo } from '../db/read-models/entitlements.ts';
import { requestForStory } from '../db/read-models/requests.ts';
import { durationInWords, parseDuration } from '../domain/duration.ts';
import { isRefusal, type Refusal } from '../domain/errors.ts';
import { visibleLine } from '../domain/hidden-text.ts';
import { utc } from '../notify/words.ts';
import { type AckView, type Asked, answerView, complaintOf, knownPerson, linkedPerson, refusalInWords, show, type ViewAnswer } from './answer.ts';
import { type Block, buttons, type Choice, cut, dialog, oneOf, pageButton, paragraph, saying, small, someOf, textInput } from './blocks.ts';
import { dialogSeconds, giveBack, newHandle, takeHandle } from './handles.ts';
import { pageUrl, type SlackParts } from './parts.ts';

const usual = ['15m', '30m', '1h', '2h', '4h', '8h'];

const offersFor = ({ ctx }: SlackParts, actor: PersonActor): OfferedEntitlement[] => offeredTo(ctx.policy.entitlements, ctx.targets, ctx.policy, actor);

/** Opens the dialog. */
export async function pressAsk(parts: SlackParts, asked: Asked): Promise<void> {
  const actor = await knownPerson(parts, asked);
  if (!actor) return;
  const offers = offersFor(parts, actor);
  const mayAsk = offers.filter((offer) => offer.mayAsk);
  const glass = offers.filter((offer) => offer.mayBreakGlass);
  if (mayAsk.length === 0)
    return show(
      parts,
      asked,
      saying('Nothing to ask for', 'No entitlement can be asked for by you.', pageButton(pageUrl(parts, '/entitlements'), 'See who owns what')),
    );
  const handle = await newHandle(parts.ctx.db, { purpose: 'submit-request', personId: actor.id, seconds: dialogSeconds });
  await show(parts, asked, dialog('Ask for access', [...inputs(mayAsk), ...glassHint(parts, glass)], { submit: 'Ask', callback: 'ask', handle }));
}

function inputs(offers: readonly OfferedEntitlement[]): Block[] {
  const most = Math.max(...offers.map((offer) => offer.maxDurationSeconds));
  const choices = offers.map((offer): Choice => ({ value: offer.name, text: `${offer.name}: ${offer.opens}` }));
  const durations = usual.filter((text) => parseDuration(text) <= most);
  const shown = (durations.length > 0 ? durations : [offers[0]?.maxDuration ?? '15m']).map(
    (text): Choice => ({ value: text, text: durationInWords(parseDuration(text)) }),
  );
  const only = choices.length === 1 ? choices : [];
  return [
    someOf('entitlements', 'What', choices, 8, only),
    oneOf('duration', 'For how long', shown, shown.find(({ value }) => value === '1h') ?? shown.at(-1)),
    textInput('reason', 'Why', {
      lines: true,
      placeholder: 'What you see, and what you will look at',
      hint: 'Those who decide read exactly these words. Kept for ever.',
    }),
    textInput('incident', 'Incident', { optional: true, most: 100, placeholder: 'INC-4312' }),
    small(cut(offers.map((offer) => `${offer.name}: at most ${offer.maxDuration}; ${offer.approvers} must approve.`).join(' '), 1_900)),
  ];
}

const glassHint = (parts: SlackParts, glass: readonly OfferedEntitlement[]): Block[] =>
  glass.length === 0
    ? []
    : [
        small('It cannot wait for an approval? The glass is broken on the web, with a login of the last five minutes.'),
        buttons({ action: 'open-page', text: 'Break glass…', url: pageUrl(parts, '/ask?glass=1#glass'), style: 'danger' }),
      ];

export interface SentAsk {
  readonly user: string;
  readonly viewId: string;
  readonly handle: unknown;
  readonly typed: { readonly entitlements: readonly string[]; readonly duration: string; readonly reason: string; readonly incident: string };
}

/** Somebody sent the dialog. */
export const submitAsk = (parts: SlackParts, ack: AckView, sent: SentAsk): Promise<void> =>
  answerView(parts, ack, sent.viewId, sent.user, askedFor(parts, sent));

async function askedFor(parts: SlackParts, { user, handle: value, typed }: SentAsk): Promise<ViewAnswer> {
  const { ctx } = parts;
  const actor = await linkedPerson(parts, user);
  if (!actor) return says('Not asked', 'Your Slack account is no longer linked to anybody in Halligan.');
  const taken = await takeHandle(ctx.db, value, 'submit-request', actor.id);
  if (taken.how === 'unknown') {
    await parts.refused.note('handle', { person: actor.id, account: user });
    return says('Not asked', 'This dialog is not one of yours, or too old. Nothing was asked for.');
  }
  if (taken.how === 'used')
    return {
      response_action: 'update',
      view: saying('Already sent', 'You sent this before, and it was asked for once.', pageButton(pageUrl(parts, '/'), 'See it')),
    };
  try {
    const { incident, ...rest } = typed;
    const { duration, ...parsed } = parse(submitInput, { ...rest, ...(incident ? { incident: incident.trim() } : {}) }, 'form');
    const { requestId } = await submitRequest(ctx, actor, {
      ...parsed,
      durationSeconds: duration,
      incident: parsed.incident ?? null,
      startAt: null,
      breakGlass: false,
    });
    return { response_action: 'update', view: await done(parts, requestId) };
  } catch (error) {
    await giveBack(ctx.db, taken.handle);
    const complaint = complaintOf(error, ['entitlements', 'duration', 'reason', 'incident'], 'reason');
    if (complaint) return complaint;
    if (!isRefusal(error)) throw error;
    return refused(parts, actor, error, typed);
  }
}

async function done(parts: SlackParts, requestId: string) {
  const request = await requestForStory(parts.ctx.db, parts.ctx.policy.entitlements, requestId);
  const names = request.deciders.map(({ name }) => visibleLine(name));
  const who = names.length > 0 ? `${names.join(', ')} can decide` : `${request.decidersInWords} can decide; nobody of them has logged in yet`;
  return dialog('Asked', [
    paragraph(`Asked. ${who}, until ${utc(request.lapsesAt)}. You get a message here when somebody has.`),
    small('Its page says who was told and who could not be reached.'),
    buttons(pageButton(pageUrl(parts, `/requests/${requestId}`))),
  ]);
}

async function refused(parts: SlackParts, actor: PersonActor, refusal: Refusal, typed: SentAsk['typed']): Promise<ViewAnswer> {
  if (isRefusal(refusal, 'step_up_required', 'groups_stale') && refusal.login) {
    const draft = await keepDraft(parts.ctx.pool, actor.id, {
      page: '/ask',
      fields: { ...typed, entitlements: [...typed.entitlements], glass: false, sure: false },
    });
    const url = pageUrl(parts, loginAddress(`/ask?draft=${draft}`, wishFor(refusal.login, refusal.code)));
    const text = `${refusal.message} Nothing is asked for yet. What you typed is kept for 15 minutes: log in, look, and press once more.`;
    return { response_action: 'update', view: saying('One step more', text, { action: 'open-page', text: 'Log in and ask', url, style: 'primary' }) };
  }
  return { response_action: 'update', view: saying('Not asked', refusalInWords(refusal), pageButton(pageUrl(parts, '/ask'), 'Ask on the web')) };
}

const says = (title: string, text: string): ViewAnswer => ({ response_action: 'update', view: saying(title, text) });
