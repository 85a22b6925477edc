/** Active: every open grant and its leases, what is overdue first, each with the button that ends it. */
import { revokeGrant, revokeIncident } from '../../commands/end-grant.ts';
import { incident as incidentForm, parse, reason as reasonForm } from '../../commands/inputs.ts';
import { activeGrants, dueToCut, type GrantView, type LeaseView } from '../../db/read-models/grants.ts';
import { quarantineOn } from '../../db/read-models/quarantine.ts';
import { readSystem } from '../../db/read-models/system.ts';
import { seesEverything } from '../../db/read-models/viewer.ts';
import { html, type Part, personText } from '../html.ts';
import { csrfField } from '../layout.ts';
import { goTo, send, type View } from '../view.ts';
import { counted, figure, grantState, leaseState, left, plural, relative, time } from '../words.ts';
import { quarantinePart } from './quarantine.ts';
import { revokeForm } from './request.ts';
import { systemHead } from './system.ts';

export async function activePage(view: View): Promise<void> {
  const { ctx, actor, request } = view;
  const incident = typeof request.query['incident'] === 'string' ? request.query['incident'] : undefined;
  const runsIt = seesEverything(ctx.policy, actor);
  const [all, speed, system, quarantine] = await Promise.all([
    activeGrants(ctx.db, ctx.policy, actor),
    dueToCut(ctx.db),
    runsIt && !incident ? readSystem(ctx.db, ctx.policy, actor, ctx.targets.keys()) : undefined,
    runsIt && !incident ? quarantineOn(ctx.db) : null,
  ]);
  const grants = incident ? all.filter((grant) => grant.incident === incident) : all;
  const open = grants.filter((grant) => grant.endedAt === null);
  const overdue = open.flatMap((grant) => grant.leases.filter((lease) => lease.overdue).map((lease) => ({ grant, lease })));
  const leases = open.flatMap((grant) => grant.leases.filter((lease) => lease.state === 'live' || lease.state === 'revoking'));
  const scope = runsIt ? '' : ' that you may see';
  await send(view, {
    title: 'Active',
    current: '/active',
    live: true,
    heading:
      overdue.length > 0
        ? `${counted(overdue.length, 'revocation is', 'revocations are')} overdue`
        : open.length > 0
          ? `${counted(open.length, 'grant is', 'grants are')} open`
          : 'Nothing is open',
    sub: html`${incident ? html`Only ${incident} · <a href="/active">show all</a> · ` : ''}${plural(open.length, 'grant')} open${scope}, ${plural(leases.length, 'lease')}${speed.p99 === null ? '' : ` · due to cut: ${speed.p99.toFixed(1)} s (99 %, last hour)`}`,
    body: [
      overdue.map(({ grant, lease }) => overdueNote(grant, lease)),
      quarantine && system && quarantinePart(quarantine, system.readAt),
      system && systemHead(system),
      grants.length > 0
        ? table(view, grants)
        : html`<p class="empty">No grant is open${scope}. An open one stands here with its end, and with the button that ends it.</p>`,
      incident && open.length > 0 && mayEnd(view, open) && endIncident(view, incident),
    ],
  });
}

const mayEnd = (view: View, grants: readonly GrantView[]): boolean => grants.some((grant) => grant.person.id !== view.actor.id);

const overdueNote = (grant: GrantView, lease: LeaseView): Part =>
  html`<div class="note over"><strong>▲ ${lease.target}</strong>: the login <code>${lease.handle}</code> of <strong>${personText(grant.person.name)}</strong> should have ended ${relative(lease.revokingAt ?? grant.endsAt, grant.readAt)}. ${
    lease.cutAt
      ? html`It was cut at ${time(lease.cutAt, grant.readAt)}: new logins are refused and open sessions are gone; what is left is its clean-up.`
      : 'New logins are refused by the target itself once its time is past; open sessions may still work.'
  }${lease.nextTryAt ? html` Next try ${relative(lease.nextTryAt, grant.readAt)}, number ${lease.tries + 1}.` : ''}<span class="under">${personText(lease.lastError ?? 'no answer yet')}</span></div>`;

const table = (view: View, grants: readonly GrantView[]): Part =>
  html`<table><thead><tr><th>Who</th><th>What</th><th>State</th><th>Time left</th><th>Incident</th><th><span class="sr">Actions</span></th></tr></thead><tbody>${grants.map(
    (grant) => html`<tr><td>${personText(grant.person.name)}</td><td><a href="/requests/${grant.requestId}">${grant.entitlements.join(', ')}</a>${grant.leases
      .filter((lease) => grant.endedAt === null || lease.overdue)
      .map((lease) => html`<span class="under"><code>${lease.handle}</code> ${leaseState(lease, grant.readAt)}</span>`)}</td>
<td>${grantState(grant)}${grant.endedAt ? html`<span class="under">${relative(grant.endedAt, grant.readAt)}</span>` : ''}</td><td>${timeLeft(grant)}</td>
<td>${grant.incident ? html`<a href="/active?incident=${grant.incident}">${grant.incident}</a>` : html`<span class="soft">none</span>`}</td>
<td class="act">${action(view, grant)}</td></tr>`,
  )}</tbody></table>`;

function timeLeft(grant: GrantView): Part {
  if (grant.overdue) return html`<span class="left over">+${figure(Math.max(0, Math.round((grant.readAt.getTime() - grant.endsAt.getTime()) / 1_000)))}</span>`;
  if (grant.state === 'active') return html`${left(grant.endsAt, grant.readAt)}<span class="under">until ${time(grant.endsAt, grant.readAt)}</span>`;
  return html`<span class="soft">${grant.state === 'scheduled' ? relative(grant.startsAt, grant.readAt) : ''}</span>`;
}

function action(view: View, grant: GrantView): Part {
  if (grant.state !== 'active' && grant.state !== 'scheduled') return '';
  if (grant.person.id === view.actor.id)
    return html`<form class="inline" method="post" action="/grants/${grant.id}/return">${csrfField(view.csrf)}<button>Give back</button></form>`;
  return revokeForm(view, grant.id);
}

const endIncident = (view: View, incident: string): Part =>
  html`<details class="confirm"><summary class="btn end">End everything of ${incident}…</summary><form method="post" action="/incidents/revoke">${csrfField(view.csrf)}<input type="hidden" name="incident" value="${incident}"><label>Reason <span class="soft">(kept for ever)</span><input name="reason" required maxlength="2000" autocomplete="off"></label><div class="actions"><button class="end">End everything of ${incident} now</button></div></form></details>`;

export async function revokeSubmit(view: View, grantId: string): Promise<void> {
  const reason = parse(reasonForm, ((view.request.body ?? {}) as Record<string, unknown>)['reason'], 'reason');
  await revokeGrant(view.ctx, view.actor, grantId, reason);
  goTo(view, '/active', 'revoked');
}

export async function revokeIncidentSubmit(view: View): Promise<void> {
  const body = (view.request.body ?? {}) as Record<string, unknown>;
  await revokeIncident(view.ctx, view.actor, parse(incidentForm, body['incident'], 'incident'), parse(reasonForm, body['reason'], 'reason'));
  goTo(view, '/active', 'ended');
}
