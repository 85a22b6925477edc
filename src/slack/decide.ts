/** Deciding: a button opens a dialog that shows once more exactly what would be granted; sending it is one decision, judged by the same command as any other. */
import { keepDraft } from '../auth/drafts.ts';
import { loginAddress, wishFor } from '../auth/wishes.ts';
import { commit } from '../commands/commit.ts';
import type { PersonActor } from '../commands/context.ts';
import { type Decided, decideRequest } from '../commands/decide-request.ts';
import { foreseeDecision } from '../commands/fresh-login.ts';
import { decideInput, parse } from '../commands/inputs.ts';
import { type RequestView, readRequest, requestForStory } from '../db/read-models/requests.ts';
import { type ErrorCode, isRefusal, type Refusal } from '../domain/errors.ts';
import { shortSeen } from '../domain/seen.ts';
import { facts, headline, utc } from '../notify/words.ts';
import { type AckView, type Asked, answerView, complaintOf, knownPerson, linkedPerson, refusalInWords, show, type ViewAnswer } from './answer.ts';
import { type Block, buttons, codeLines, type Dialog, dialog, factList, pageButton, paragraph, saying, small, textInput } from './blocks.ts';
import { dialogSeconds, giveBack, type Handle, newHandle, readHandle, takeHandle } from './handles.ts';
import { pageUrl, type SlackParts } from './parts.ts';

export type Decision = 'approve' | 'deny';

/** Somebody pressed Approve or Deny on a card. */
export async function pressDecide(parts: SlackParts, asked: Asked, decision: Decision, value: unknown): Promise<void> {
  const actor = await knownPerson(parts, asked);
  if (!actor) return;
  const handle = await readHandle(parts.ctx.db, value, 'decide');
  if (!handle?.request_id) {
    await parts.refused.note('handle', { person: actor.id, account: asked.user });
    return show(
      parts,
      asked,
      saying(
        'Nothing to press',
        'This button stands for nothing that can still be decided. Halligan’s page shows what waits for you.',
        pageButton(pageUrl(parts, '/decide'), 'What waits for you'),
      ),
    );
  }
  await show(parts, asked, await decideDialog(parts, actor, handle.request_id, decision));
}

async function decideDialog(parts: SlackParts, actor: PersonActor, requestId: string, decision: Decision): Promise<Dialog> {
  const { ctx } = parts;
  const request = await readRequest(ctx.db, ctx.policy, ctx.policy.entitlements, actor, requestId).catch((error: unknown) => {
    if (isRefusal(error, 'not_found')) return undefined;
    throw error;
  });
  if (!request?.mayDecide) return refusedPress(parts, actor, requestId, decision, request);
  const lacks = await foreseeDecision(ctx, actor, requestId);
  if (isRefusal(lacks, 'slack_may_not_decide')) return refusedPress(parts, actor, requestId, decision, request, lacks);
  const handle = await newHandle(ctx.db, { purpose: 'submit-decision', requestId, personId: actor.id, seen: request.seen, seconds: dialogSeconds });
  const approve = decision === 'approve';
  return dialog(approve ? 'Approve this?' : 'Deny this?', [...shownOf(parts, request), ...reasonOf(approve, lacks)], {
    submit: lacks ? 'Go on' : approve ? 'Approve' : 'Deny',
    callback: `decide-${decision}`,
    handle,
  });
}

/** Everything that the request's page shows of what would be granted. */
function shownOf(parts: SlackParts, request: RequestView): Block[] {
  const story = { noticeId: '', type: 'request.submitted' as const, at: request.createdAt, grantId: null, leaseId: null, request, url: '' };
  const details = request.entitlements.flatMap(({ described }) => described?.details ?? []);
  const lines = codeLines(details);
  return [
    paragraph(headline(story), true),
    factList(facts(story)),
    ...(lines ? [small('In the target’s own terms:'), lines] : []),
    small(`You see version ${shortSeen(request.seen)}. If anything of it changes before you send this, it does not count.`),
    buttons(pageButton(pageUrl(parts, `/requests/${request.id}`))),
  ];
}

const reasonOf = (approve: boolean, lacks: Refusal | undefined): Block[] => [
  textInput('reason', 'Reason', {
    lines: true,
    hint: approve ? 'Kept for ever, beside your name.' : 'Kept for ever, beside your name. Whoever asked reads it.',
  }),
  ...(lacks ? [small(`${lacks.message} So Halligan leads you there next; what you type is kept, and nothing is decided before.`)] : []),
];

/** Somebody sent the dialog. Double clicks, second deciders and what changed meanwhile all end in one decision and words. */
export function submitDecision(
  parts: SlackParts,
  ack: AckView,
  sent: { user: string; viewId: string; handle: unknown; reason: unknown },
  decision: Decision,
): Promise<void> {
  return answerView(parts, ack, sent.viewId, sent.user, decided(parts, sent, decision));
}

async function decided(
  parts: SlackParts,
  { user, handle: value, reason }: { user: string; handle: unknown; reason: unknown },
  decision: Decision,
): Promise<ViewAnswer> {
  const { ctx } = parts;
  const actor = await linkedPerson(parts, user);
  if (!actor) return saysThat('Not decided', 'Your Slack account is no longer linked to anybody in Halligan. Nothing was decided.');
  const typed = typeof reason === 'string' ? reason : '';
  try {
    parse(decideInput.pick({ reason: true }), { reason: typed }, 'form');
  } catch (error) {
    const complaint = complaintOf(error, ['reason'], 'reason');
    if (complaint) return complaint;
    throw error;
  }
  const taken = await takeHandle(ctx.db, value, 'submit-decision', actor.id);
  if (taken.how === 'unknown' || !taken.handle.request_id) {
    await parts.refused.note('handle', { person: actor.id, account: user });
    return saysThat('Not decided', 'This dialog is not one of yours, or too old. Nothing was decided.');
  }
  const { handle } = taken;
  const requestId = taken.handle.request_id;
  if (taken.how === 'used') return { response_action: 'update', view: await alreadySent(parts, actor, requestId) };
  return run(parts, actor, handle, requestId, { decision, reason: typed, seen: handle.seen ?? '' });
}

async function run(
  parts: SlackParts,
  actor: PersonActor,
  handle: Handle,
  requestId: string,
  typed: { decision: Decision; reason: string; seen: string },
): Promise<ViewAnswer> {
  const { ctx } = parts;
  try {
    const outcome = await decideRequest(ctx, actor, requestId, parse(decideInput, typed, 'form'));
    return { response_action: 'update', view: await doneView(parts, requestId, outcome) };
  } catch (error) {
    if (!isRefusal(error)) {
      await giveBack(ctx.db, handle);
      throw error;
    }
    return { response_action: 'update', view: await refusedView(parts, actor, requestId, error, typed) };
  }
}

const saysThat = (title: string, text: string): ViewAnswer => ({ response_action: 'update', view: saying(title, text) });

async function doneView(parts: SlackParts, requestId: string, { state }: Decided): Promise<Dialog> {
  const request = await requestForStory(parts.ctx.db, parts.ctx.policy.entitlements, requestId);
  const to = pageButton(pageUrl(parts, `/requests/${requestId}`));
  if (state === 'pending') return saying('Counted', `Your approval counts. More are needed: ${request.decidersInWords}.`, to);
  if (state === 'denied') return saying('Denied', `Denied. ${request.person.name} is told, with your reason.`, to);
  return saying('Approved', `Approved${request.grant ? ` until ${utc(request.grant.endsAt)}` : ''}. ${request.person.name} is told.`, to);
}

async function alreadySent(parts: SlackParts, actor: PersonActor, requestId: string): Promise<Dialog> {
  const request = await requestForStory(parts.ctx.db, parts.ctx.policy.entitlements, requestId);
  const mine = request.decisions.findLast((one) => one.person.id === actor.id);
  const to = pageButton(pageUrl(parts, `/requests/${requestId}`));
  if (mine)
    return saying(
      'Already sent',
      `You sent this before, and it counts once: you ${mine.decision === 'approve' ? 'approved' : 'denied'} at ${utc(mine.at)}.`,
      to,
    );
  return saying('Already sent', 'You sent this before. Its page shows what came of it.', to);
}

/** Why a decision was not taken, and the way on where there is one. */
async function refusedView(
  parts: SlackParts,
  actor: PersonActor,
  requestId: string,
  refusal: Refusal,
  typed: { decision: Decision; reason: string; seen: string },
): Promise<Dialog> {
  const path = `/requests/${requestId}`;
  const page = pageButton(pageUrl(parts, path));
  if (refusal.code === 'step_up_required' || refusal.code === 'groups_stale') {
    const draft = await keepDraft(parts.ctx.pool, actor.id, { page: path, fields: { ...typed } });
    const way = refusal.login ? loginAddress(`${path}?draft=${draft}`, wishFor(refusal.login, refusal.code)) : path;
    const again = (refusal.login?.acrValues?.length ?? 0) > 1 ? path : way;
    return saying('One step more', `${refusal.message} Nothing is decided yet. Your reason is kept for 15 minutes: log in, look, and press once more.`, {
      action: 'open-page',
      text: 'Log in and decide',
      url: pageUrl(parts, again),
      style: 'primary',
    });
  }
  if (refusal.code === 'slack_may_not_decide') return saying('Decided on its page', `${refusalInWords(refusal)} Nothing is decided yet.`, page);
  const request = await requestForStory(parts.ctx.db, parts.ctx.policy.entitlements, requestId);
  if (refusal.code === 'not_found')
    return saying('Not decided', 'You may not decide on this, or not any more: the policy no longer counts you. Nothing was decided.');
  return saying('Not decided', `${whatHappened(request, actor, refusal.code) ?? refusalInWords(refusal)} Nothing was decided by you now.`, page);
}

/** By whom and when it was decided; undefined when something else is in the way. */
function whatHappened(request: RequestView, actor: PersonActor, code?: ErrorCode): string | undefined {
  if (code === 'self_decision' || request.person.id === actor.id) return 'You asked for this one yourself. Nobody decides on their own request.';
  const mine = request.decisions.findLast((one) => one.person.id === actor.id);
  if (mine && (request.state === 'pending' || code === 'decision_repeated'))
    return `You ${mine.decision === 'approve' ? 'approved' : 'denied'} this already, at ${utc(mine.at)}.`;
  const last = request.decisions.at(-1);
  if (request.state === 'approved' && request.breakGlass) return 'It was opened by break-glass: there is nothing to decide.';
  if ((request.state === 'approved' || request.state === 'denied') && last)
    return `It was already ${request.state}, by ${last.person.name} at ${utc(request.decidedAt ?? last.at)}${last.reason ? `: “${last.reason}”` : ''}.`;
  if (request.state === 'withdrawn') return `${request.person.name} withdrew it${request.decidedAt ? ` at ${utc(request.decidedAt)}` : ''}.`;
  if (request.state === 'lapsed') return `It lapsed at ${utc(request.lapsesAt)}: nobody had decided by then.`;
  return undefined;
}

/** A press that can lead to no decision is witnessed like any other refused one. */
async function refusedPress(
  parts: SlackParts,
  actor: PersonActor,
  requestId: string,
  decision: Decision,
  request: RequestView | undefined,
  lacks?: Refusal,
): Promise<Dialog> {
  const { ctx } = parts;
  const code = lacks?.code ?? codeOf(actor, request);
  await commit(ctx, actor, async (tx) => tx.witness({ type: 'decision.refused', request: requestId, data: { decision, code } }));
  const page = pageButton(pageUrl(parts, `/requests/${requestId}`), lacks ? 'Look and decide' : 'Open its page');
  if (lacks) return saying('Decided on its page', `${lacks.message} Nothing is decided yet.`, page);
  if (!request) return saying('Not yours to decide', 'The policy does not count you for this one, or no longer. Nothing was decided.');
  return saying('Nothing to decide', whatHappened(request, actor, code) ?? 'The policy does not let you decide on this. Nothing was decided.', page);
}

function codeOf(actor: PersonActor, request: RequestView | undefined): ErrorCode {
  if (!request) return 'not_found';
  if (request.person.id === actor.id) return 'self_decision';
  if (request.state === 'lapsed') return 'request_lapsed';
  if (request.state !== 'pending') return 'request_already_decided';
  return request.decisions.some((one) => one.person.id === actor.id) ? 'decision_repeated' : 'not_an_approver';
}
