/** "Who was told": the part of a request's page that says it, and the button that has a webhook called again. */
import { repeatDelivery } from '../../commands/repeat-delivery.ts';
import { type DeliveryView, type ToldView, toldOf } from '../../db/read-models/deliveries.ts';
import { html, type Part, personText } from '../html.ts';
import { csrfField } from '../layout.ts';
import { goTo, type View } from '../view.ts';
import { relative, time } from '../words.ts';

/** What is read for it. */
export const readTold = ({ ctx, actor }: View, requestId: string): Promise<ToldView> => toldOf(ctx.db, ctx.policy, actor, requestId);

const asks = ['request.submitted', 'request.glass-broken'];

/** Each place by what it was told first, and whatever did not arrive since. Empty where nobody is told of anything. */
export function whoWasTold(view: View, told: ToldView, now: Date): Part {
  const shown = told.items.filter((item) => asks.includes(item.about) || item.state === 'failed' || (item.why !== null && item.state === 'waiting'));
  if (shown.length === 0 && told.nextAt === null) return '';
  return html`<h2>Who was told</h2><dl class="leases">${shown.map((item) => html`<dt>${personText(item.to)}</dt><dd>${state(item, now)}${repeat(view, item)}</dd>`)}${
    told.nextAt ? html`<dt>The next people</dt><dd class="soft">${relative(told.nextAt, now)}, if nobody decides before</dd>` : ''
  }</dl>`;
}

function state(item: DeliveryView, now: Date): Part {
  const later = asks.includes(item.about) ? '' : html`<span class="under">about ${item.about}</span>`;
  const why = item.why === null ? '' : html`<span class="under">${personText(item.why)}</span>`;
  if (item.state === 'sent') return html`<span class="state live">told</span> ${time(item.at, now)}${later}`;
  if (item.state === 'failed') return html`<span class="state over">not told</span>${why}${later}`;
  const soon = item.nextTryAt !== null && item.nextTryAt.getTime() - now.getTime() < 5_000;
  const next = item.why !== null && item.nextTryAt ? html`<span class="under">tried again ${soon ? 'in a moment' : relative(item.nextTryAt, now)}</span>` : '';
  return html`<span class="state wait">${item.why === null ? 'on its way' : 'not yet'}</span>${why}${next}${later}`;
}

const repeat = (view: View, item: DeliveryView): Part =>
  item.repeatable && item.state === 'failed'
    ? html`<form class="inline" method="post" action="/deliveries/${item.id}/repeat">${csrfField(view.csrf)}<button>Call again</button></form>`
    : '';

export async function repeatSubmit(view: View, deliveryId: string): Promise<void> {
  const { requestId } = await repeatDelivery(view.ctx, view.actor, deliveryId);
  goTo(view, `/requests/${requestId}`, 'repeated');
}
