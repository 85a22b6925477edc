/** Entitlements: everything that can be opened, with its policy in words. */
import { offeredTo } from '../../db/read-models/entitlements.ts';
import { html } from '../html.ts';
import { send, type View } from '../view.ts';
import { counted, limitsInWords } from '../words.ts';

export async function entitlementsPage(view: View): Promise<void> {
  const { ctx, actor } = view;
  const offers = offeredTo(ctx.policy.entitlements, ctx.targets, ctx.policy, actor);
  await send(view, {
    title: 'Entitlements',
    current: '/entitlements',
    heading: offers.length > 0 ? `${counted(offers.length, 'entitlement concerns', 'entitlements concern')} you` : 'No entitlement concerns you',
    sub:
      offers.length > 0
        ? 'What can be opened, for whom, and who decides. It is written in the config and changed there.'
        : `No entitlement names you or a group of yours (${actor.groups.join(', ') || 'none'}). Whoever runs Halligan can change that in the config.`,
    body:
      offers.length > 0 &&
      html`<table><thead><tr><th>Entitlement</th><th>Policy</th><th>At most</th><th>Owner</th><th><span class="sr">Actions</span></th></tr></thead><tbody>${offers.map(
        (
          offer,
        ) => html`<tr id="${offer.name}"><td><strong>${offer.name}</strong><span class="under">${offer.opens}</span><span class="under"><code>${offer.grant}</code> at ${offer.target} (${offer.kind})</span></td>
<td>${offer.policy.map((line) => html`<span class="line">${line}</span>`)}<span class="under">${limitsInWords(offer.limits)}</span></td><td>${offer.maxDuration}${offer.breakGlassMaxDuration ? html`<span class="under">glass ${offer.breakGlassMaxDuration}</span>` : ''}</td><td>${offer.owner}</td>
<td class="act">${offer.mayAsk ? html`<a class="btn" href="/ask?entitlement=${offer.name}">Ask</a>` : ''}</td></tr>`,
      )}</tbody></table>`,
  });
}
