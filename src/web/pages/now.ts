/** Now: what is open for me, what waits, what I can ask for. */

import { type OfferedEntitlement, offeredTo } from '../../db/read-models/entitlements.ts';
import type { GrantView } from '../../db/read-models/grants.ts';
import { activeGrants } from '../../db/read-models/grants.ts';
import { listRequests, type RequestView } from '../../db/read-models/requests.ts';
import { html, type Part, personText } from '../html.ts';
import { csrfField } from '../layout.ts';
import { send, type View } from '../view.ts';
import { burn, counted, grantState, left, listed, relative, requestState, time } from '../words.ts';

export async function nowPage(view: View): Promise<void> {
  const { ctx, actor } = view;
  const [active, pending] = await Promise.all([
    activeGrants(ctx.db, ctx.policy, actor),
    listRequests(ctx.db, ctx.policy, ctx.policy.entitlements, actor, { mine: true, state: 'pending' }),
  ]);
  const mine = active.filter((grant) => grant.person.id === actor.id && grant.endedAt === null);
  const offers = offeredTo(ctx.policy.entitlements, ctx.targets, ctx.policy, actor).filter((offer) => offer.mayAsk || offer.mayBreakGlass);
  const overdue = active.filter((grant) => grant.overdue).length;
  const open = mine.filter((grant) => grant.state === 'active').length;
  await send(view, {
    title: 'Now',
    current: '/',
    live: true,
    heading:
      open > 0
        ? `${counted(open, 'door is', 'doors are')} open for you`
        : pending.items.length > 0
          ? 'You are waiting for a decision'
          : 'Nothing is open for you',
    sub:
      open > 0
        ? `${open > 1 ? 'They close by themselves' : 'It closes by itself'}. Give back what you no longer need.`
        : 'What you ask for opens for a time and closes by itself.',
    body: [
      overdue > 0 &&
        html`<div class="note over"><strong>▲ ${counted(overdue, 'revocation is', 'revocations are')} overdue.</strong> <a href="/active">See which, and why</a></div>`,
      mine.length > 0 && openTable(view, mine),
      html`<h2>Waiting for a decision</h2>`,
      pending.items.length > 0
        ? waitingTable(view, pending.items)
        : html`<p class="empty">Nothing of yours waits. ${offers.length > 0 ? html`<a href="/ask">Ask for something</a> and it stands here until somebody decides.` : ''}</p>`,
      html`<h2>You may ask for</h2>`,
      offers.length > 0
        ? offerTable(offers)
        : html`<p class="empty">Nothing: no entitlement names you or a group of yours (${actor.groups.join(', ') || 'none'}). <a href="/entitlements">See who owns what</a>, or work through <a href="/decide">what waits for your decision</a>.</p>`,
    ],
  });
}

const openTable = (view: View, grants: readonly GrantView[]): Part =>
  html`<table><thead><tr><th>What</th><th>Time left</th><th>Why</th><th><span class="sr">Actions</span></th></tr></thead><tbody>${grants.map(
    (grant, index) => html`<tr><td><a href="/requests/${grant.requestId}">${grant.entitlements.join(', ')}</a> ${grantState(grant)}<span class="under">${
      grant.leases.some((lease) => lease.state === 'live')
        ? html`login <code>${grant.leases
            .filter((lease) => lease.state === 'live')
            .map((lease) => lease.handle)
            .join(', ')}</code>`
        : 'no login claimed yet'
    }</span></td>
<td>${grant.state === 'active' ? html`${left(grant.endsAt, grant.readAt)}<span class="under">until ${time(grant.endsAt, grant.readAt)}${grant.breakGlass ? ', no extension' : ''}</span>${burn(grant, grant.readAt)}` : html`<span class="soft">${grant.state === 'scheduled' ? html`opens ${relative(grant.startsAt, grant.readAt)}` : 'being ended'}</span>`}</td>
<td>${grant.incident ?? ''}<span class="under">${personText(grant.reason)}</span></td>
<td class="act">${grant.state === 'active' ? html`<a class="btn${index === 0 ? ' first' : ''}" href="/requests/${grant.requestId}#use">Use it</a> ` : ''}${grant.state !== 'ending' ? html`<form class="inline" method="post" action="/grants/${grant.id}/return">${csrfField(view.csrf)}<button>Give back</button></form>` : ''}</td></tr>`,
  )}</tbody></table>`;

const waitingTable = (view: View, requests: readonly RequestView[]): Part =>
  html`<table><tbody>${requests.map(
    (
      request,
    ) => html`<tr><td><a href="/requests/${request.id}">${request.entitlements.map((entitlement) => entitlement.name).join(', ')}</a><span class="under">${request.durationInWords} from the moment of approval</span></td>
<td>${requestState(request)}<span class="under">lapses ${relative(request.lapsesAt, new Date())} if nobody does</span></td>
<td>${whoCanDecide(request)}<span class="under">${personText(request.reason)}</span></td>
<td class="act"><form class="inline" method="post" action="/requests/${request.id}/withdraw">${csrfField(view.csrf)}<button>Withdraw</button></form></td></tr>`,
  )}</tbody></table>`;

/** Names where they are known, the rule where nobody of it has logged in yet. */
export const whoCanDecide = (request: RequestView): Part =>
  request.deciders.length > 0
    ? html`${personText(listed(request.deciders.map((person) => person.name)))} can decide`
    : `${request.decidersInWords} can decide; nobody of them has logged in yet`;

const offerTable = (offers: readonly OfferedEntitlement[]): Part =>
  html`<table><thead><tr><th>Entitlement</th><th>Opens</th><th>At most</th><th>Who decides</th><th><span class="sr">Actions</span></th></tr></thead><tbody>${offers.map(
    (
      offer,
    ) => html`<tr><td><a href="/entitlements#${offer.name}">${offer.name}</a></td><td>${offer.opens}<span class="under"><code>${offer.grant}</code> at ${offer.target}</span></td>
<td>${offer.maxDuration}${offer.breakGlassMaxDuration ? html`<span class="under">glass ${offer.breakGlassMaxDuration}</span>` : ''}</td><td>${offer.approvers}</td>
<td class="act">${offer.mayAsk ? html`<a class="btn" href="/ask?entitlement=${offer.name}">Ask</a>` : ''} ${offer.mayBreakGlass ? html`<a class="btn glass" href="/ask?entitlement=${offer.name}&amp;glass=1#glass">Break glass…</a>` : ''}</td></tr>`,
  )}</tbody></table>`;
