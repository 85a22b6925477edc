/** Reviews: what break-glass was, said by somebody else. */
import { closeReview } from '../../commands/close-review.ts';
import { closeReviewInput, parse } from '../../commands/inputs.ts';
import { listReviews, type ReviewView } from '../../db/read-models/reviews.ts';
import { isRefusal, type Refusal } from '../../domain/errors.ts';
import { html, type Part, personText } from '../html.ts';
import { csrfField } from '../layout.ts';
import { goTo, send, type View } from '../view.ts';
import { counted, relative } from '../words.ts';
import { problem } from './ask.ts';
import { cursorOf, more } from './decide.ts';

const verdicts = [
  ['justified', 'Justified', 'the emergency was real and the use was needed'],
  ['drill', 'Drill', 'an exercise'],
  ['follow-up', 'Follow-up', 'justified, but something has to change'],
  ['misuse', 'Misuse', 'it should not have been opened'],
] as const;

export async function reviewsPage(view: View, refusal?: Refusal): Promise<void> {
  const { ctx, actor } = view;
  const [due, closed] = await Promise.all([
    listReviews(ctx.db, ctx.policy, actor, { state: 'due' }),
    listReviews(ctx.db, ctx.policy, actor, { state: 'closed', cursor: cursorOf(view) }),
  ]);
  const mine = due.items.filter((review) => review.mayClose);
  const others = due.items.filter((review) => !review.mayClose);
  const overdue = due.items.filter((review) => review.overdue).length;
  await send(view, {
    title: 'Reviews',
    current: '/reviews',
    live: !refusal,
    heading:
      overdue > 0
        ? `${counted(overdue, 'review is', 'reviews are')} overdue`
        : mine.length > 0
          ? `${counted(mine.length, 'use waits', 'uses wait')} for your review`
          : 'No review waits for you',
    sub: 'Every break-glass is reviewed by somebody else. While a review is overdue, its holder cannot break the glass again.',
    body: [
      problem(refusal),
      mine.map((review) => reviewForm(view, review)),
      others.length > 0 &&
        html`<h2>Due, for others</h2><table><tbody>${others.map((review) => html`<tr id="${review.id}"><td>${who(review)}</td><td>${personText(review.reason)}</td><td>${state(review)}</td></tr>`)}</tbody></table>`,
      html`<h2>Closed</h2>`,
      closed.items.length > 0
        ? html`<table><thead><tr><th>Use</th><th>Why</th><th>Verdict</th></tr></thead><tbody>${closed.items.map(
            (review) =>
              html`<tr id="${review.id}"><td>${who(review)}</td><td>${personText(review.reason)}</td><td><strong>${review.verdict}</strong> by ${personText(review.closedBy?.name ?? '')}${review.closedAt ? html`, ${relative(review.closedAt, new Date())}` : ''}<span class="under">${personText(review.notes ?? '')}</span></td></tr>`,
          )}</tbody></table>${more(view, closed.next)}`
        : html`<p class="empty">None yet. A review comes into being when somebody breaks the glass; what you conclude is kept here.</p>`,
    ],
    ...(refusal ? { status: 422 } : {}),
  });
}

const who = (review: ReviewView): Part =>
  html`${personText(review.person.name)}: <a href="/requests/${review.requestId}">${review.entitlements.join(', ')}</a><span class="under">${review.incident ?? 'no incident named'}</span>`;

const state = (review: ReviewView): Part =>
  review.overdue
    ? html`<span class="state over">overdue</span> <span class="under">since ${relative(review.dueAt, new Date())}</span>`
    : html`<span class="state wait">due ${relative(review.dueAt, new Date())}</span>${review.grantEndedAt ? '' : html`<span class="under">it is still open</span>`}`;

const reviewForm = (
  view: View,
  review: ReviewView,
): Part => html`<section id="${review.id}" class="note glass"><strong>◆ ${who(review)}</strong><blockquote>${personText(review.reason)}</blockquote><p>${state(review)} · <a href="/requests/${review.requestId}">read the whole story</a></p>
<form method="post" action="/reviews/${review.id}/close">${csrfField(view.csrf)}<fieldset class="pick"><legend>What was it?</legend>${verdicts.map(([value, name, meaning]) => html`<label><input type="radio" name="verdict" value="${value}" required><span>${name}<span class="under">${meaning}</span></span><span></span></label>`)}</fieldset>
<label>Notes <span class="soft">(kept for ever)</span><textarea name="notes" rows="2" required maxlength="4000"></textarea></label><div class="actions"><button>Close the review</button></div></form></section>`;

export async function closeReviewSubmit(view: View, id: string): Promise<void> {
  const { verdict, notes } = (view.request.body ?? {}) as Record<string, unknown>;
  try {
    await closeReview(view.ctx, view.actor, id, parse(closeReviewInput, { verdict, notes }, 'form'));
    goTo(view, '/reviews', 'reviewed');
  } catch (error) {
    if (!isRefusal(error) || isRefusal(error, 'not_found')) throw error;
    await reviewsPage(view, error);
  }
}
