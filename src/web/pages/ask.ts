/** Ask: pick, say how long and why, and see before asking what will happen. */

import { foreseeLogin } from '../../commands/fresh-login.ts';
import { parse, submitInput } from '../../commands/inputs.ts';
import { submitRequest } from '../../commands/submit-request.ts';
import { type OfferedEntitlement, offeredTo } from '../../db/read-models/entitlements.ts';
import { isRefusal, Refusal } from '../../domain/errors.ts';
import type { Act } from '../../domain/policy.ts';
import { html, type Part } from '../html.ts';
import { csrfField } from '../layout.ts';
import { draftField, draftOf, proofNote, sendToProve, useDraft } from '../prove.ts';
import { goTo, send, type View } from '../view.ts';
import { limitsInWords } from '../words.ts';

const usual = ['15m', '30m', '1h', '2h', '4h'];

interface Typed {
  readonly entitlements: readonly string[];
  readonly duration: string;
  readonly reason: string;
  readonly incident: string;
  readonly glass: boolean;
  readonly sure?: boolean;
}

export async function askPage(view: View, typed?: Typed, refusal?: Refusal): Promise<void> {
  const { ctx, actor, request } = view;
  const offers = offeredTo(ctx.policy.entitlements, ctx.targets, ctx.policy, actor).filter((offer) => offer.mayAsk || offer.mayBreakGlass);
  const chosen = request.query['entitlement'];
  const glassNames = offers.filter((offer) => offer.mayBreakGlass).map((offer) => offer.name);
  if (!typed && request.query['glass'] === '1' && glassNames.length > 0) {
    const groupsOnly = await foreseeLogin(ctx, actor, 'break-glass', []);
    if (isRefusal(groupsOnly, 'groups_stale') && (await view.auth.readGroupsAgain(request, view.response))) return;
  }
  const kept = typed ? undefined : typedBefore(await draftOf(view, '/ask'));
  const asked = offers.filter((offer) => offer.mayAsk && ctx.policy.entitlements.get(offer.name)?.stepUp).map((offer) => offer.name);
  const proof = {
    ask: await proofNotes(view, 'ask', asked, 'To ask'),
    glass: await proofNotes(view, 'break-glass', glassNames, 'To break the glass'),
  };
  const now: Typed = typed ??
    kept ?? {
      entitlements: typeof chosen === 'string' ? [chosen] : offers.length === 1 ? offers.map((offer) => offer.name) : [],
      duration: '',
      reason: '',
      incident: typeof request.query['incident'] === 'string' ? request.query['incident'].slice(0, 100) : '',
      glass: request.query['glass'] === '1',
    };
  await send(view, {
    title: 'Ask',
    current: '/ask',
    heading: 'What do you need, and for how long?',
    sub: 'You get what you choose here and nothing more. It closes by itself.',
    body:
      offers.length === 0
        ? html`<p class="empty">There is nothing that you may ask for. <a href="/entitlements">Who owns what</a></p>`
        : [problem(refusal), kept && comeBack(kept), html`<div class="two">${form(view, offers, now, proof)}${aside(offers)}</div>`],
    ...(refusal ? { status: 422 } : {}),
  });
}

export const problem = (refusal: Refusal | undefined): Part =>
  refusal &&
  html`<div class="note over" role="alert"><strong>▲ ${refusal.message}</strong>${refusal.next ? html` ${refusal.next}` : ''}${refusal.faults && refusal.faults.length > 1 ? html`<ul>${refusal.faults.map((fault) => html`<li>${fault.path}: ${fault.message}</li>`)}</ul>` : ''}</div>`;

function form(view: View, offers: readonly OfferedEntitlement[], typed: Typed, proof: { ask: Part; glass: Part }): Part {
  const most = Math.max(...offers.map((offer) => offer.maxDurationSeconds));
  const seconds: Record<string, number> = { '15m': 900, '30m': 1_800, '1h': 3_600, '2h': 7_200, '4h': 14_400 };
  const chips = usual.filter((duration) => (seconds[duration] ?? 0) <= most);
  const other = typed.duration !== '' && !chips.includes(typed.duration);
  const first = chips.includes('1h') ? '1h' : (chips.at(-1) ?? '');
  const glass = offers.filter((offer) => offer.mayBreakGlass);
  return html`<form method="post" action="/ask">${csrfField(view.csrf)}${draftField(view)}
<fieldset class="pick"><legend>Open</legend>${offers.map(
    (offer) =>
      html`<label><input type="checkbox" name="entitlement" value="${offer.name}"${typed.entitlements.includes(offer.name) ? html` checked` : ''}><span>${offer.name}<span class="under">${offer.opens}, through <code>${offer.grant}</code> at ${offer.target}</span><span class="under">${offer.approvers} must approve</span></span><span class="soft">≤ ${offer.maxDuration}</span></label>`,
  )}</fieldset>
<fieldset><legend>For</legend><div class="chips">${chips.map(
    (duration) =>
      html`<label><input type="radio" name="chip" value="${duration}"${(typed.duration || first) === duration ? html` checked` : ''}>${duration.replace('m', ' min').replace('h', ' h')}</label>`,
  )}<label><input type="radio" name="chip" value=""${other || chips.length === 0 ? html` checked` : ''}>other</label><input class="short" name="duration" value="${other ? typed.duration : ''}" placeholder="45m or 1h30m" aria-label="Another duration, such as 45m or 1h30m" autocomplete="off"></div></fieldset>
<label for="why">Why</label><textarea id="why" name="reason" rows="3" maxlength="2000" required>${typed.reason}</textarea>
<label for="incident">Incident <span class="soft">(optional)</span></label><input id="incident" name="incident" value="${typed.incident}" maxlength="100" autocomplete="off">
<div class="actions"><button class="first" name="how" value="ask">Ask</button></div>${proof.ask}
${
  glass.length > 0
    ? html`<details id="glass" class="note glass"${typed.glass ? html` open` : ''}><summary><strong>◆ Break glass…</strong></summary><p>It opens at once, without waiting, for ${glass.map((offer, index) => html`${index > 0 ? ', ' : ''}at most ${offer.breakGlassMaxDuration} (${offer.name})`)}. Everyone who decides on it sees it at the same moment, and someone else must review it afterwards. Use it when waiting does harm.</p>${proof.glass}
<div class="actions"><label class="check"><input type="checkbox" name="sure" value="yes"${typed.sure ? html` checked` : ''}> This cannot wait for an approval</label><button class="glass" name="how" value="glass">Break glass now</button></div></details>`
    : ''
}</form>`;
}

const aside = (offers: readonly OfferedEntitlement[]): Part => html`<aside><h2>What happens</h2><ol class="story">
<li><time>now</time><div>the approvers see your request, with exactly these words</div></li>
<li><time>approval</time><div>your time starts; you claim a login that is made for you alone</div></li>
<li><time>the end</time><div>new logins refused, open sessions cut, the login removed, all read back</div></li></ol>
<h2>The policies</h2>${offers.map((offer) => html`<details class="policy"><summary>${offer.name}</summary><ul>${offer.policy.map((line) => html`<li>${line}</li>`)}<li>${limitsInWords(offer.limits)}</li></ul></details>`)}</aside>`;

/** What was typed before the way through the identity provider. */
function typedBefore(fields: Awaited<ReturnType<typeof draftOf>>): Typed | undefined {
  if (!fields) return undefined;
  const { entitlements, duration, reason, incident, glass, sure } = fields;
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  return {
    entitlements: Array.isArray(entitlements) ? entitlements.map(String) : [],
    duration: text(duration),
    reason: text(reason),
    incident: text(incident),
    glass: glass === true,
    sure: sure === true,
  };
}

const comeBack = (typed: Typed): Part =>
  html`<div class="note" role="status"><strong>Nothing has been asked for yet.</strong> Everything is as you typed it: press ${typed.glass ? 'Break glass now' : 'Ask'} once more.</div>`;

/** What would have to be proven first, each need once with the names that it is about; nothing where the login does. */
async function proofNotes(view: View, act: Act, names: readonly string[], what: string): Promise<Part> {
  const needs = new Map<string, { readonly lacks: Refusal; readonly of: string[] }>();
  for (const name of names) {
    const entitlement = view.ctx.policy.entitlements.get(name);
    const lacks = entitlement && (await foreseeLogin(view.ctx, view.actor, act, [entitlement]));
    if (!lacks) continue;
    const need = needs.get(lacks.message) ?? { lacks, of: [] };
    needs.set(lacks.message, need);
    need.of.push(name);
  }
  return [...needs.values()].map(({ lacks, of }) => proofNote(lacks, of.length === names.length ? what : `${what} (${of.join(', ')})`));
}

/** Takes the form; what was typed is never lost. */
export async function askSubmit(view: View): Promise<void> {
  const body = (view.request.body ?? {}) as Record<string, string | string[] | undefined>;
  const text = (name: string): string => (typeof body[name] === 'string' ? body[name] : '');
  const glass = text('how') === 'glass';
  const typed: Typed = {
    entitlements: [body['entitlement'] ?? []].flat(),
    duration: text('duration').trim() || text('chip'),
    reason: text('reason'),
    incident: text('incident').trim(),
    glass,
    sure: text('sure') === 'yes',
  };
  await useDraft(view);
  try {
    const { durationSeconds, ...input } = toInput(typed, view, glass);
    if (glass && text('sure') !== 'yes')
      throw new Refusal('bad_input', 'Breaking the glass needs the tick that says it cannot wait.', { next: 'Nothing was opened.' });
    const { requestId } = await submitRequest(view.ctx, view.actor, { ...input, durationSeconds });
    goTo(view, `/requests/${requestId}`, glass ? 'glass' : 'asked');
  } catch (error) {
    if (!isRefusal(error)) throw error;
    if (await sendToProve(view, error, '/ask', { ...typed, entitlements: [...typed.entitlements], sure: typed.sure ?? false })) return;
    await askPage(view, typed, error);
  }
}

function toInput(typed: Typed, view: View, glass: boolean) {
  const { entitlements, reason, incident, duration } = typed;
  // Break-glass is shorter: without another duration typed, its own limit is meant.
  const limits = entitlements.flatMap((name) => view.ctx.policy.entitlements.get(name)?.breakGlass?.maxDurationSeconds ?? []);
  const typedOther = typeof view.request.body?.duration === 'string' && view.request.body.duration.trim() !== '';
  const parsed = parse(submitInput, { entitlements, duration, reason, ...(incident ? { incident } : {}), breakGlass: glass }, 'form');
  const { duration: asked, ...rest } = parsed;
  const durationSeconds = glass && !typedOther && limits.length > 0 ? Math.min(asked, ...limits) : asked;
  return { ...rest, durationSeconds, incident: parsed.incident ?? null, startAt: null };
}
