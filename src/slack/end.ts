/** Ending: a button on an open card opens a dialog that asks for a reason; sending it cuts the access. Ending is never limited, and needs no fresh login. */
import type { PersonActor } from '../commands/context.ts';
import { returnGrant, revokeGrant } from '../commands/end-grant.ts';
import { parse, reason as reasonInput } from '../commands/inputs.ts';
import { requestForStory } from '../db/read-models/requests.ts';
import { isRefusal } from '../domain/errors.ts';
import { facts, utc } from '../notify/words.ts';
import { type AckView, type Asked, answerView, complaintOf, knownPerson, linkedPerson, refusalInWords, show, type ViewAnswer } from './answer.ts';
import { dialog, factList, pageButton, paragraph, saying, textInput } from './blocks.ts';
import { dialogSeconds, giveBack, newHandle, readHandle, takeHandle } from './handles.ts';
import { pageUrl, type SlackParts } from './parts.ts';

/** Somebody pressed End it on a card. */
export async function pressEnd(parts: SlackParts, asked: Asked, value: unknown): Promise<void> {
  const { ctx } = parts;
  const actor = await knownPerson(parts, asked);
  if (!actor) return;
  const handle = await readHandle(ctx.db, value, 'end');
  if (!handle?.request_id || !handle.grant_id) {
    await parts.refused.note('handle', { person: actor.id, account: asked.user });
    return show(
      parts,
      asked,
      saying('Nothing to end', 'This button stands for nothing that is still open.', pageButton(pageUrl(parts, '/active'), 'What is open')),
    );
  }
  const request = await requestForStory(ctx.db, ctx.policy.entitlements, handle.request_id);
  const { grant } = request;
  if (!grant || (grant.state !== 'active' && grant.state !== 'scheduled'))
    return show(
      parts,
      asked,
      saying(
        'It has ended',
        `There is nothing left to end${grant?.endedAt ? `: it was over at ${utc(grant.endedAt)}` : ''}.`,
        pageButton(pageUrl(parts, `/requests/${request.id}`)),
      ),
    );
  const mine = request.person.id === actor.id;
  const submit = await newHandle(ctx.db, { purpose: 'submit-end', requestId: request.id, grantId: grant.id, personId: actor.id, seconds: dialogSeconds });
  const story = { noticeId: '', type: 'grant.started' as const, at: new Date(), grantId: grant.id, leaseId: null, request, url: '' };
  const what = mine
    ? 'You give it back: your logins are ended at once.'
    : 'This ends the access at once: open sessions are cut, logins are removed and read back as gone.';
  await show(
    parts,
    asked,
    dialog(
      'End it now?',
      [
        paragraph(what, true),
        factList(facts(story)),
        ...(mine ? [] : [textInput('reason', 'Reason', { lines: true, hint: 'Kept for ever, beside your name.' })]),
      ],
      {
        submit: mine ? 'Give it back' : 'End it now',
        callback: 'end',
        handle: submit,
      },
    ),
  );
}

/** Somebody sent the dialog. */
export const submitEnd = (parts: SlackParts, ack: AckView, sent: { user: string; viewId: string; handle: unknown; reason: unknown }): Promise<void> =>
  answerView(parts, ack, sent.viewId, sent.user, ended(parts, sent));

async function ended(parts: SlackParts, { user, handle: value, reason }: { user: string; handle: unknown; reason: unknown }): Promise<ViewAnswer> {
  const { ctx } = parts;
  const actor = await linkedPerson(parts, user);
  if (!actor) return says('Not ended', 'Your Slack account is no longer linked to anybody in Halligan.');
  const taken = await takeHandle(ctx.db, value, 'submit-end', actor.id);
  if (taken.how === 'unknown' || !taken.handle.request_id || !taken.handle.grant_id) {
    await parts.refused.note('handle', { person: actor.id, account: user });
    return says('Not ended', 'This dialog is not one of yours, or too old. End it on its page.');
  }
  const { handle } = taken;
  const { request_id: requestId, grant_id: grantId } = handle;
  const page = pageUrl(parts, `/requests/${requestId}`);
  if (taken.how === 'used')
    return { response_action: 'update', view: saying('Already sent', 'You sent this before. Its page shows how far the end is.', pageButton(page)) };
  try {
    await endIt(parts, actor, requestId ?? '', grantId ?? '', reason);
    return {
      response_action: 'update',
      view: saying('Being ended', 'It is being ended now. The thread says when each login is gone from its target.', pageButton(page)),
    };
  } catch (error) {
    await giveBack(ctx.db, handle);
    const complaint = complaintOf(error, ['reason'], 'reason');
    if (complaint) return complaint;
    if (!isRefusal(error)) throw error;
    const text = isRefusal(error, 'not_found') ? 'You may not end this one: those who may decide on it or review it, and admins, can.' : refusalInWords(error);
    return { response_action: 'update', view: saying('Not ended', text, pageButton(page)) };
  }
}

async function endIt({ ctx }: SlackParts, actor: PersonActor, requestId: string, grantId: string, reason: unknown): Promise<void> {
  const request = await requestForStory(ctx.db, ctx.policy.entitlements, requestId);
  if (request.person.id === actor.id) return returnGrant(ctx, actor, grantId);
  return revokeGrant(ctx, actor, grantId, parse(reasonInput, typeof reason === 'string' ? reason : '', 'reason'));
}

const says = (title: string, text: string): ViewAnswer => ({ response_action: 'update', view: saying(title, text) });
