/**
 * The way through the identity provider and back, for somebody whose login is too old for what they typed: what they
 * typed is kept, they prove who they are, they find it all as it was, and one press repeats it. Nothing is done on the way.
 */
import { dropDraft, keepDraft, readDraft } from '../auth/drafts.ts';
import { loginAddress, wishFor } from '../auth/wishes.ts';
import { isRefusal, type Refusal } from '../domain/errors.ts';
import { html, type Part } from './html.ts';
import { page } from './layout.ts';
import type { View } from './view.ts';

type Fields = NonNullable<Awaited<ReturnType<typeof readDraft>>>;

/**
 * Answers a refused form by sending its person to prove who they are, with `fields` kept for `path`. False, and nothing
 * was answered, when another login would not help or the provider does not answer: then the page says so in words.
 */
export async function sendToProve(view: View, refusal: Refusal, path: string, fields: Fields): Promise<boolean> {
  const { ctx, auth, actor, response } = view;
  if (actor.via !== 'web' || !refusal.login || !isRefusal(refusal, 'step_up_required', 'groups_stale')) return false;
  if ((refusal.login.acrValues?.length ?? 0) > 1 || !(await auth.provider.answers())) return false;
  const handle = await keepDraft(ctx.pool, actor.id, { page: path, fields });
  const address = loginAddress(`${path}?draft=${handle}`, wishFor(refusal.login, refusal.code));
  response.setHeader('Cache-Control', 'no-store');
  if (refusal.code === 'step_up_required') response.redirect(303, address);
  // Not by a redirect: browsers hold every redirect after a form against `form-action`, and a provider may have many hosts.
  else response.type('html').send(goingOn(view, refusal, address));
  return true;
}

const goingOn = (view: View, refusal: Refusal, address: string): string =>
  page({
    title: 'Reading your groups again',
    heading: 'Your groups are being read again.',
    sub: html`${refusal.message} You come back to where you were, with what you typed. Nothing has been decided yet.`,
    actor: view.actor,
    csrf: view.csrf,
    body: html`<p class="actions"><a class="btn first" href="${address}">Go on</a></p>`,
    goOn: address,
  });

/** What was typed on this page before its person was sent away, if the address says so and it is theirs. */
export const draftOf = async (view: View, path: string): Promise<Fields | undefined> => {
  const { draft } = view.request.query;
  return draft === undefined ? undefined : readDraft(view.ctx.pool, view.actor.id, draft, path);
};

/** A form that came with a draft's handle uses the draft up, whatever becomes of the form. */
export const useDraft = (view: View): Promise<void> => dropDraft(view.ctx.pool, view.actor.id, ((view.request.body ?? {}) as Record<string, unknown>)['draft']);

/** The field that carries the handle through the form. */
export const draftField = (view: View): Part => {
  const { draft } = view.request.query;
  return typeof draft === 'string' && html`<input type="hidden" name="draft" value="${draft}">`;
};

/** Said before anything is typed: what a form on this page will need first. `lacks` is what the command would say now. */
export function proofNote(lacks: Refusal | undefined, what: string): Part {
  if (!lacks) return '';
  const wayOn = (lacks.login?.acrValues?.length ?? 0) > 1 ? lacks.next : 'You will be sent to prove who you are; what you type is kept.';
  return html`<p class="soft" data-proof>${what}: ${lacks.message} ${wayOn ?? ''}</p>`;
}
