/** How the surface answers: within Slack's three seconds always, to one person alone, in words, and never with the inside of an error. */
import type { PersonActor } from '../commands/context.ts';
import { isRefusal, type Refusal } from '../domain/errors.ts';
import { SlackFault } from './api.ts';
import { buttons, type Dialog, fallback, inert, pageButton, paragraph, saying } from './blocks.ts';
import { actorOf, pageUrl, type SlackParts } from './parts.ts';

/** What a press, a shortcut or a command came with. */
export interface Asked {
  readonly user: string;
  /** Good for three seconds and for one dialog. */
  readonly trigger: string;
  /** Where it was pressed or typed, for a word in private when no dialog can be opened. */
  readonly channel?: string | undefined;
}

export type ViewAnswer =
  | { readonly response_action: 'update'; readonly view: Dialog }
  | { readonly response_action: 'errors'; readonly errors: Record<string, string> };
/** Takes the answer to a submitted dialog. */
export type AckView = (answer: ViewAnswer) => Promise<void>;

/** Opens a dialog; says its words in private when Slack lets no dialog be opened any more. */
export async function show(parts: SlackParts, asked: Asked, view: Dialog): Promise<void> {
  try {
    await parts.api.call('views.open', { trigger_id: asked.trigger, view });
  } catch (error) {
    if (!(error instanceof SlackFault)) throw error;
    parts.ctx.log.warn({ code: 'slack_dialog_failed', why: error.message }, 'a dialog could not be opened');
    await sayPrivately(parts, asked, 'The dialog could not be opened: Slack or Halligan was too slow. Nothing was done. Press once more.');
  }
}

/** A message that only this person sees: where they are, or by direct message. Says nothing when Slack does not take it. */
export async function sayPrivately({ api, ctx }: SlackParts, { user, channel }: Pick<Asked, 'user' | 'channel'>, text: string, url?: string): Promise<void> {
  const message = { text: fallback(text), blocks: [paragraph(text), ...(url === undefined ? [] : [buttons(pageButton(url))])], ...inert };
  try {
    if (channel !== undefined && /^[CG]/.test(channel)) {
      const done = await api.call('chat.postEphemeral', { channel, user, ...message }).catch(() => undefined);
      if (done) return;
    }
    await api.call('chat.postMessage', { channel: user, ...message });
  } catch (error) {
    ctx.log.warn({ code: 'slack_word_failed', why: (error as Error).message }, 'a word to one person could not be said in Slack');
  }
}

export const howToLink = (parts: SlackParts): string =>
  `Halligan does not know who you are here. Open ${pageUrl(parts, '/accounts')}, log in, make a code, and type it here: /halligan link CODE. That is done once.`;

/** The person behind this account. Nobody is witnessed. */
export async function linkedPerson(parts: SlackParts, user: string): Promise<PersonActor | undefined> {
  const actor = await actorOf(parts, user);
  if (!actor) await parts.refused.note('unlinked', { account: user });
  return actor;
}

/** The same for a press, a shortcut or a command: whoever is not linked is told privately how to link. */
export async function knownPerson(parts: SlackParts, asked: Asked): Promise<PersonActor | undefined> {
  const actor = await linkedPerson(parts, asked.user);
  if (actor) return actor;
  await show(parts, asked, saying('Who are you?', howToLink(parts), pageButton(pageUrl(parts, '/accounts'), 'Link your account')));
  return undefined;
}

const quickMs = 2_000;
const failed = (): Dialog => saying('That failed', 'Halligan failed in a way that it did not foresee. Its page shows whether anything was done.');

/** Answers a submitted dialog by what comes of `work`: at once when that is quick, otherwise by rewriting the dialog when it is there. */
export async function answerView(parts: SlackParts, ack: AckView, viewId: string, user: string, work: Promise<ViewAnswer>): Promise<void> {
  const safe = work.catch((error: unknown): ViewAnswer => {
    parts.ctx.log.error({ code: 'slack_failed', why: (error as Error).message }, 'a dialog of Slack could not be worked through');
    return { response_action: 'update', view: failed() };
  });
  let timer: NodeJS.Timeout | undefined;
  const quick = await Promise.race([safe, new Promise<undefined>((resolve) => (timer = setTimeout(resolve, quickMs, undefined)))]);
  clearTimeout(timer);
  if (quick) return ack(quick);
  await ack({ response_action: 'update', view: saying('A moment', 'Halligan is still at it. This dialog says what came of it; so does its page.') });
  const late = await safe;
  const view = late.response_action === 'update' ? late.view : saying('Not done', Object.values(late.errors).join(' '));
  await parts.api
    .call('views.update', { view_id: viewId, view })
    .catch(() => sayPrivately(parts, { user }, 'It is done, or it is not: its page says which. Slack did not let the dialog say it.'));
}

/** A refusal in words: what, and what to do about it. */
export const refusalInWords = ({ message, next }: Pick<Refusal, 'message' | 'next'>): string => `${message}${next === undefined ? '' : ` ${next}`}`;

/** The refusal as the complaint about one field, when it is about what was typed. */
export function complaintOf(error: unknown, fields: readonly string[], otherwise: string): ViewAnswer | undefined {
  if (!isRefusal(error, 'bad_input', 'duration_invalid', 'duration_too_long')) return undefined;
  const fault = error.faults?.[0];
  const about = fault && fields.includes(fault.path) ? fault.path : error.code.startsWith('duration') ? 'duration' : undefined;
  const field = about !== undefined && fields.includes(about) ? about : otherwise;
  return { response_action: 'errors', errors: { [field]: fault && about !== undefined ? sentence(fault.message) : refusalInWords(error) } };
}

const sentence = (fault: string): string => `This ${fault}.`;
