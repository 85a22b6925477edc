/** One request, whole: who, why, what exactly, until when; the decision for those who may take it, the claim for its holder, the story for everybody. */
import { type Claimed, claimLease } from '../../commands/claim-lease.ts';
import { decideRequest } from '../../commands/decide-request.ts';
import { foreseeDecision } from '../../commands/fresh-login.ts';
import { decideInput, parse } from '../../commands/inputs.ts';
import { storyOf } from '../../db/read-models/audit-events.ts';
import { limitsOf } from '../../db/read-models/entitlements.ts';
import { type LeaseView, readGrant } from '../../db/read-models/grants.ts';
import { type RequesterView, readRequester } from '../../db/read-models/requester.ts';
import { type EntitlementView, type RequestView, readRequest } from '../../db/read-models/requests.ts';
import { isRefusal, type Refusal } from '../../domain/errors.ts';
import { shortSeen } from '../../domain/seen.ts';
import { html, type Part, personText } from '../html.ts';
import { csrfField } from '../layout.ts';
import { draftField, draftOf, proofNote, sendToProve, useDraft } from '../prove.ts';
import { goTo, send, type View } from '../view.ts';
import { asks, burn, detail, leaseState, left, limitsInWords, listed, plural, relative, requestState, sentence, time } from '../words.ts';
import { problem } from './ask.ts';
import { whoCanDecide } from './now.ts';
import { readTold, whoWasTold } from './told.ts';

interface Extra {
  readonly refusal?: Refusal | undefined;
  /** Said above the page, where what was typed before has come back. */
  readonly note?: Part;
  readonly claimed?: Claimed;
  readonly reason?: string;
}

export async function requestPage(view: View, id: string, given: Extra = {}): Promise<void> {
  const { ctx, actor } = view;
  const request = await readRequest(ctx.db, ctx.policy, ctx.policy.entitlements, actor, id);
  const lacks = request.mayDecide ? await foreseeDecision(ctx, actor, id) : undefined;
  if (!given.refusal && isRefusal(lacks, 'groups_stale') && (await view.auth.readGroupsAgain(view.request, view.response))) return;
  const extra = { ...(request.mayDecide && !given.refusal ? await typedBefore(view, request) : {}), ...given };
  const [story, requester, told] = await Promise.all([
    storyOf(ctx.db, id),
    request.mayDecide ? readRequester(ctx.db, request.person.id) : undefined,
    readTold(view, id),
  ]);
  const now = new Date();
  await send(view, {
    title: request.entitlements.map((entitlement) => entitlement.name).join(', '),
    current: request.mayDecide ? '/decide' : '/',
    live: !extra.claimed && !extra.refusal && !extra.note,
    heading: request.mayDecide
      ? asks(request)
      : html`${request.entitlements.map((entitlement) => entitlement.name).join(', ')} for ${personText(request.person.name)}`,
    sub: summary(request, now),
    body: [
      problem(extra.refusal),
      extra.note,
      extra.claimed && claimedNote(view, extra.claimed),
      html`<div class="two"><div>${request.mayDecide ? decideSide(view, request, proofNote(lacks, 'To decide on this'), extra.reason) : ''}${request.mine && !extra.claimed ? useIt(view, request) : ''}<h2>The story</h2><ol class="story">${story.map(
        (event, index) =>
          html`<li class="${look(event.type)}${index === story.length - 1 ? ' now' : ''}">${time(event.at, now)}<div>${sentence(event)}<br><span class="soft">${detail(event)}</span></div></li>`,
      )}</ol>${request.mayDecide ? '' : opened(request)}</div>${aside(view, request, now, requester, whoWasTold(view, told, now))}</div>`,
    ],
    ...(extra.refusal ? { status: 422 } : {}),
  });
}

const bad = [
  'request.denied',
  'request.lapsed',
  'decision.refused',
  'claim.refused',
  'access.refused',
  'lease.revocation-failed',
  'lease.vanished',
  'grant.revoked',
];
const look = (type: string): string => (bad.includes(type) ? 'bad' : type === 'request.glass-broken' ? 'glass' : '');

function summary(request: RequestView, now: Date): Part {
  const { grant } = request;
  const incident = request.incident ? html` · <a href="/active?incident=${request.incident}">${request.incident}</a>` : '';
  if (grant && grant.state === 'active') return html`${requestState(request)} · ${left(grant.endsAt, now)} left, until ${time(grant.endsAt, now)}${incident}`;
  if (grant)
    return html`${requestState(request)}${grant.endedAt ? html` ${relative(grant.endedAt, now)}` : ''}${grant.endNote ? html` · “${personText(grant.endNote)}”` : ''}${incident}`;
  if (request.state === 'pending')
    return html`${request.breakGlass ? html`<span class="state glass">break-glass</span> · ` : ''}${requestState(request)} · asked ${relative(request.createdAt, now)} · lapses ${relative(request.lapsesAt, now)} if nobody decides${incident}`;
  const why = request.state === 'lapsed' ? 'nobody decided in time' : (request.decisions.find((decision) => decision.decision === 'deny')?.reason ?? '');
  return html`${requestState(request)}${why ? html` · ${personText(why)}` : ''} · asked ${relative(request.createdAt, now)}${incident}${request.mine ? html` · <a href="/ask?entitlement=${request.entitlements[0]?.name ?? ''}">ask again</a>` : ''}`;
}

/** What would be opened, in the target's own terms. */
const opens = (
  entitlement: EntitlementView,
): Part => html`<tr><td><a href="/entitlements#${entitlement.name}">${entitlement.name}</a><span class="under">${entitlement.target}, <code>${entitlement.grant}</code></span></td>
<td>${
  entitlement.described
    ? html`${entitlement.described.summary}<span class="under">read from the target when it was asked for</span>${entitlement.described.details.length > 0 ? html`<details><summary class="soft">show all ${entitlement.described.details.length}</summary><ul class="list">${entitlement.described.details.map((line) => html`<li><code>${personText(line)}</code></li>`)}</ul></details>` : ''}`
    : html`<span class="state over">could not be read</span><span class="under">${entitlement.unreadable ?? ''}</span>`
}</td></tr>`;

const opened = (request: RequestView): Part => html`<h2>What it opens</h2><table><tbody>${request.entitlements.map(opens)}</tbody></table>`;

const limitsFor = (view: View, name: string) => {
  const entitlement = view.ctx.policy.entitlements.get(name);
  return entitlement ? limitsOf(view.ctx.targets, entitlement) : null;
};

function decideSide(view: View, request: RequestView, note: Part, typed = ''): Part {
  const limits = listed([...new Set(request.entitlements.map((entitlement) => limitsInWords(limitsFor(view, entitlement.name))))]);
  return html`<h2>Why</h2><blockquote>${personText(request.reason)}</blockquote>
<h2>What would be opened</h2><table><tbody>${request.entitlements.map(opens)}
<tr><td>Ends</td><td>${request.durationInWords} after ${request.startAt ? html`${time(request.startAt, new Date())}` : 'the last approval'}<span class="under">${limits}</span></td></tr></tbody></table>
<h2>Your decision</h2><form method="post" action="/requests/${request.id}/decide">${csrfField(view.csrf)}${draftField(view)}<input type="hidden" name="seen" value="${request.seen}">
<label for="reason">Reason <span class="soft">(kept for ever, shown to ${personText(request.person.name)})</span></label><textarea id="reason" name="reason" rows="2" maxlength="2000" required>${typed}</textarea>
<div class="actions"><button class="first" name="decision" value="approve">Approve for ${request.durationInWords}</button><button class="end" name="decision" value="deny">Deny</button><span class="soft">you decide on exactly this page · <code title="${request.seen}">${shortSeen(request.seen)}</code></span></div>${note}</form>`;
}

/** The command that uses what a kind of target gives, without copying. */
const commandOf: Readonly<Record<string, string>> = { postgres: 'psql', 'vault-database': 'psql', 'aws-sts': 'aws', 'kubernetes-rbac': 'kube' };

function useIt(view: View, request: RequestView): Part {
  const { grant } = request;
  if (grant?.state !== 'active') return '';
  return html`<h2 id="use">Use it</h2><table><tbody>${request.entitlements.map((entitlement) => {
    const lease = grant.leases.find((one) => one.entitlement === entitlement.name && one.state === 'live');
    const own = opensOwnLogin(view, entitlement.name);
    return html`<tr><td>${entitlement.name}<span class="under">${entitlement.opens}</span></td><td>${own ? ownLogin(entitlement, lease, grant.endsAt) : madeLogin(view, entitlement, lease)}</td>
<td class="act"><form class="inline" method="post" action="/grants/${grant.id}/claim">${csrfField(view.csrf)}<button class="${lease ? '' : 'first'}" name="entitlement" value="${entitlement.name}">${own ? (lease ? 'Open again' : 'Open it') : lease ? 'Claim again' : 'Claim a login'}</button></form></td></tr>`;
  })}</tbody></table>`;
}

const opensOwnLogin = ({ ctx }: View, name: string): boolean => {
  const entitlement = ctx.policy.entitlements.get(name);
  return entitlement !== undefined && (ctx.targets.get(entitlement.target)?.opensOwnLogin?.(entitlement.grant) ?? false);
};

const madeLogin = (view: View, { name, kind, target }: EntitlementView, lease: LeaseView | undefined): Part =>
  html`${lease ? html`${leaseState(lease, new Date())} <code>${lease.handle}</code><span class="under">${claimingAgain(view, target)}</span>` : html`<span class="soft">no login yet</span><span class="under">it is shown once, to you only</span>`}<span class="under">In a terminal: <code>halligan ${commandOf[kind] ?? 'creds'} ${name}</code> needs no copying.</span>`;

/** Nothing is shown and nothing is copied: the holder goes on as who they are there, until the end. */
function ownLogin({ name, kind, target }: EntitlementView, lease: LeaseView | undefined, endsAt: Date): Part {
  const now = new Date();
  const as = kind === 'kubernetes-rbac' ? html`<code>kubectl</code> as yourself` : html`your own login`;
  return html`${lease ? html`${leaseState(lease, now)}<span class="under">use ${as} at ${target}, until ${time(lease.expiresAt, now)}; there is nothing to copy</span>` : html`<span class="soft">not open yet</span><span class="under">once it is open, use ${as} at ${target}, until ${time(endsAt, now)}; there is nothing to copy</span>`}${kind === 'kubernetes-rbac' ? html`<span class="under">In a terminal: <code>halligan kube ${name} --user NAME</code> opens it and writes a kubeconfig with the name of your own user there.</span>` : ''}`;
}

/** What a second claim does to what the first one gave. */
const claimingAgain = (view: View, target: string): string =>
  view.ctx.targets.get(target)?.another
    ? 'claiming again makes one more credential of this login; the earlier one goes on'
    : 'claiming again makes a new login and ends this one';

const claimedNote = (view: View, claimed: Claimed): Part => (Object.keys(claimed.issued.secret).length === 0 ? openedNote(claimed) : secretNote(view, claimed));

/** Nothing was made that could be copied: the target lets in the login that the person has there already. */
function openedNote({ issued, target, kind, entitlement, expiresAt }: Claimed): Part {
  const { user, server, namespace } = issued.connection;
  const rows = Object.entries({ User: user ?? issued.handle, Server: server, Namespace: namespace }).flatMap(([name, value]) => (value ? [[name, value]] : []));
  return html`<div class="note secret-note" id="secret"><strong>Your own login at ${target} may do this now.</strong> There is nothing to copy: go on with the login that you have there. It ends at ${time(expiresAt, new Date())}.
<dl class="secret">${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd><dd></dd>`)}</dl>
${kind === 'kubernetes-rbac' ? html`<p class="soft">A kubeconfig for it, with the name of your own user there: <code>halligan kube ${entitlement} --user NAME</code>.</p>` : ''}</div>`;
}

function secretNote(view: View, claimed: Claimed): Part {
  const { connection, secret, handle } = claimed.issued;
  const psql = ['host', 'port', 'database', 'sslmode'].flatMap((name) =>
    connection[name] ? [`${name === 'database' ? 'dbname' : name}=${connection[name]}`] : [],
  );
  const user = connection['user'] ?? handle;
  const isDatabase = connection['host'] !== undefined && secret['password'] !== undefined;
  const command = isDatabase ? `psql "${[...psql, `user=${user}`].join(' ')}"` : undefined;
  const open: [string, string, boolean][] = isDatabase
    ? [['User', user, false]]
    : [['Name', handle, false], ...Object.entries(connection).map(([name, value]): [string, string, boolean] => [inWords(name), value, false])];
  const rows: [string, string, boolean][] = [
    ...(command ? [['Command', command, false] as [string, string, boolean]] : []),
    ...open,
    ...Object.entries(secret).map(([name, value]): [string, string, boolean] => [inWords(name), value, true]),
  ];
  return html`<div class="note secret-note" id="secret"><strong>This is shown once.</strong> Copy it now; ${claimingAgain(view, claimed.target)}. It ends at ${time(claimed.expiresAt, new Date())}.
<dl class="secret">${rows.map(([name, value, masked]) => html`<dt>${name}</dt><dd>${masked ? html`<span class="mask" tabindex="0" data-secret>${value}</span>` : value}</dd><dd><button type="button" data-copy="${value}" hidden>Copy</button></dd>`)}</dl>
<p class="soft">What is blurred is readable while it is pointed at or focused.${commandOf[claimed.kind] ? html` In a terminal <code>halligan ${commandOf[claimed.kind]} ${claimed.entitlement}</code> needs no copying.` : ''}</p></div>`;
}

/** `secretAccessKey` → `Secret access key`. */
const inWords = (name: string): string => {
  const words = name.replaceAll(/([A-Z])/g, ' $1').toLowerCase();
  return `${words[0]?.toUpperCase() ?? ''}${words.slice(1)}`;
};

function aside(view: View, request: RequestView, now: Date, requester: RequesterView | undefined, told: Part): Part {
  const { grant } = request;
  return html`<aside><h2>Who</h2><dl><dt>Person</dt><dd>${personText(request.person.name)}</dd><dt>Asked</dt><dd>${relative(request.createdAt, now)}</dd><dt>For</dt><dd>${request.durationInWords}${request.breakGlass ? html`, <span class="state glass">break-glass</span>` : ''}</dd>${request.mayDecide ? '' : html`<dt>Why</dt><dd>${personText(request.reason)}</dd>`}${requester && record(requester)}</dl>
<h2>Rules</h2><dl>${request.rules.map((rule) => html`<dt>${rule.of}</dt><dd><span class="state ${rule.filled >= rule.count ? 'live' : 'wait'}">${rule.filled} of ${rule.count}</span>${request.entitlements.length > 1 ? html` <span class="soft">${rule.entitlement}</span>` : ''}</dd>`)}${request.state === 'pending' ? html`<dt>Now</dt><dd class="soft">${whoCanDecide(request)}</dd>` : ''}</dl>
${grant && grant.leases.length > 0 ? html`<h2>Logins</h2><dl class="leases">${grant.leases.map((lease) => html`<dt><code>${lease.handle}</code></dt><dd>${leaseState(lease, now)}<span class="under">${lease.entitlement}${lease.lastError ? html`<br>${personText(lease.lastError)}` : ''}</span></dd>`)}</dl>` : ''}
${grant?.state === 'active' ? html`<h2>To come</h2><dl><dt>${time(grant.endsAt, now)}</dt><dd>sessions cut, login removed, read back</dd><dt>after</dt><dd>${grant.review ? 'a review by somebody else' : 'no review: not break-glass'}</dd></dl>${burn(grant, now)}` : ''}
${grant?.review ? html`<h2>Review</h2><p><a href="/reviews#${grant.review.id}">${grant.review.state === 'due' ? html`due ${relative(grant.review.dueAt, now)}` : (grant.review.verdict ?? 'closed')}</a></p>` : ''}
${told}
${endIt(view, request)}</aside>`;
}

/** What the person holds now, and what became of what they held. */
function record({ holds, grants, breakGlass, reviews }: RequesterView): Part {
  const verdicts = Object.entries(reviews).map(([verdict, count]) => `${count} ${verdict}`);
  return html`<dt>Holds now</dt><dd>${holds.length === 0 ? 'nothing' : holds.map((held, index) => html`${index > 0 ? ', ' : ''}<a href="/requests/${held.requestId}">${held.entitlements.join(', ')}</a>${held.breakGlass ? html` <span class="state glass">break-glass</span>` : ''}`)}</dd>
<dt>Last 90 days</dt><dd>${plural(grants, 'grant')}${breakGlass > 0 ? `, ${breakGlass} by break-glass` : ''}${verdicts.length > 0 ? html`<span class="under">reviews: ${verdicts.join(', ')}</span>` : ''}</dd>`;
}

function endIt(view: View, request: RequestView): Part {
  const { grant } = request;
  if (request.mine && request.state === 'pending')
    return html`<h2>Changed your mind?</h2><form class="inline" method="post" action="/requests/${request.id}/withdraw">${csrfField(view.csrf)}<button>Withdraw</button></form>`;
  if (!grant || (grant.state !== 'active' && grant.state !== 'scheduled')) return '';
  if (request.mine)
    return html`<h2>End it now</h2><form class="inline" method="post" action="/grants/${grant.id}/return">${csrfField(view.csrf)}<button>Give back</button></form>`;
  return html`<h2>End it now</h2>${revokeForm(view, grant.id)}`;
}

/** Ending somebody's access asks first, for a reason. */
export const revokeForm = (view: View, grantId: string): Part =>
  html`<details class="confirm"><summary class="btn end">Revoke…</summary><form method="post" action="/grants/${grantId}/revoke">${csrfField(view.csrf)}<label>Reason <span class="soft">(kept for ever)</span><input name="reason" required maxlength="2000" autocomplete="off"></label><div class="actions"><button class="end">End it now</button></div></form></details>`;

/** After the way through the identity provider: the reason as it was typed, and which button it was. */
async function typedBefore(view: View, request: RequestView): Promise<Extra> {
  const typed = await draftOf(view, `/requests/${request.id}`);
  if (!typed) return {};
  const what = typed['decision'] === 'deny' ? 'Deny' : 'Approve';
  return {
    reason: String(typed['reason'] ?? ''),
    note:
      typed['seen'] === request.seen
        ? html`<div class="note" role="status"><strong>Nothing is decided yet.</strong> Your reason is as you typed it: press ${what} once more.</div>`
        : html`<div class="note over" role="alert"><strong>▲ What is shown here has changed since you pressed ${what}.</strong> Nothing is decided yet. Look again before you do.</div>`,
  };
}

export async function decideSubmit(view: View, id: string): Promise<void> {
  const { decision, reason, seen } = (view.request.body ?? {}) as Record<string, unknown>;
  await useDraft(view);
  try {
    const decided = await decideRequest(view.ctx, view.actor, id, parse(decideInput, { decision, reason, seen }, 'form'));
    goTo(view, `/requests/${id}`, decided.state === 'denied' ? 'denied' : decided.state === 'approved' ? 'approved' : 'counted');
  } catch (error) {
    if (!isRefusal(error) || isRefusal(error, 'not_found')) throw error;
    const typed = { decision: String(decision), reason: String(reason), seen: String(seen) };
    if (await sendToProve(view, error, `/requests/${id}`, typed)) return;
    await requestPage(view, id, { refusal: error, ...(typeof reason === 'string' ? { reason } : {}) });
  }
}

/** The one page that carries a secret. It is the answer to the claim itself, never kept and never followed. */
export async function claimSubmit(view: View, grantId: string): Promise<void> {
  const { ctx, actor } = view;
  const { entitlement } = (view.request.body ?? {}) as Record<string, unknown>;
  // Read before anything is made, so that the answer has its page whatever the form said.
  const { requestId } = await readGrant(ctx.db, ctx.policy, actor, grantId);
  let extra: Extra;
  try {
    extra = { claimed: await claimLease(ctx, actor, grantId, typeof entitlement === 'string' ? entitlement : '') };
  } catch (error) {
    if (!isRefusal(error) || isRefusal(error, 'not_found')) throw error;
    extra = { refusal: error };
  }
  await requestPage(view, requestId, extra);
}
