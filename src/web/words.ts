/** Times, states and sentences, as every page says them. */

import type { AuditEventView } from '../db/read-models/audit-events.ts';
import type { GrantView, LeaseView } from '../db/read-models/grants.ts';
import type { RequestView } from '../db/read-models/requests.ts';
import { auditEventTypes } from '../domain/audit-event.ts';
import { durationInWords } from '../domain/duration.ts';
import type { Limits } from '../domain/provider.ts';
import { type Html, html, type Part, personText } from './html.ts';

const two = (value: number): string => String(value).padStart(2, '0');

/** `03:12:07`, or with its day when that is another one. UTC. */
export function clock(at: Date, now: Date): string {
  const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  return at.toISOString().slice(0, 10) === now.toISOString().slice(0, 10) ? time : `${at.toISOString().slice(0, 10)} ${time}`;
}

/** The time of day, with the exact instant on hover. */
export const time = (at: Date, now: Date): Html => html`<time datetime="${at.toISOString()}" title="${at.toISOString()}">${clock(at, now)}</time>`;

/** `2 min ago` or `in 26 min`, with the exact instant on hover. */
export function relative(at: Date, now: Date): Html {
  const seconds = Math.round((at.getTime() - now.getTime()) / 1_000);
  const size = Math.abs(seconds);
  if (size < 3) return html`<time datetime="${at.toISOString()}" title="${at.toISOString()}">just now</time>`;
  const words =
    size < 90
      ? `${size} s`
      : size < 5_400
        ? `${Math.round(size / 60)} min`
        : size < 129_600
          ? `${Math.round(size / 3_600)} h`
          : `${Math.round(size / 86_400)} d`;
  return html`<time datetime="${at.toISOString()}" title="${at.toISOString()}">${seconds >= 0 ? `in ${words}` : `${words} ago`}</time>`;
}

/** `41:12` or `1:02:09`: what is left, counting down where scripts run. */
export function left(until: Date, now: Date): Html {
  const seconds = Math.max(0, Math.ceil((until.getTime() - now.getTime()) / 1_000));
  return html`<span class="left" data-until="${until.toISOString()}">${figure(seconds)}</span>`;
}

export function figure(seconds: number): string {
  const [hours, minutes, rest] = [Math.floor(seconds / 3_600), Math.floor((seconds % 3_600) / 60), seconds % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`;
}

/** The line that shortens: a progress element, so that it needs no inline style. */
export const burn = (grant: Pick<GrantView, 'startsAt' | 'endsAt' | 'breakGlass'>, now: Date): Html => {
  const whole = Math.max(1, Math.round((grant.endsAt.getTime() - grant.startsAt.getTime()) / 1_000));
  const rest = Math.max(0, Math.min(whole, Math.round((grant.endsAt.getTime() - now.getTime()) / 1_000)));
  return html`<progress class="burn${grant.breakGlass ? ' glass' : ''}" max="${whole}" value="${rest}" data-until="${grant.endsAt.toISOString()}" aria-label="time left"></progress>`;
};

const requestStates: Record<RequestView['state'], [string, string]> = {
  pending: ['wait', 'waiting'],
  approved: ['live', 'approved'],
  denied: ['gone', 'denied'],
  withdrawn: ['gone', 'withdrawn'],
  lapsed: ['gone', 'lapsed'],
};

/** A request's state as a word with a shape; an approved one reads as its grant. */
export function requestState(request: RequestView): Html {
  if (request.grant) return grantState(request.grant);
  const [look, word] = requestStates[request.state];
  if (request.state === 'pending') {
    const [need, have] = request.rules.reduce(([count, filled], rule) => [count + rule.count, filled + rule.filled], [0, 0]);
    return html`<span class="state wait">${have} of ${need} approved</span>`;
  }
  return html`<span class="state ${look}">${word}</span>`;
}

export function grantState(grant: GrantView): Html {
  if (grant.overdue) return html`<span class="state over">overdue</span>`;
  if (grant.state === 'active') return grant.breakGlass ? html`<span class="state glass">break-glass</span>` : html`<span class="state live">active</span>`;
  if (grant.state === 'scheduled') return html`<span class="state wait">starts ${time(grant.startsAt, grant.readAt)}</span>`;
  if (grant.state === 'ending') return html`<span class="state wait">ending</span>`;
  const glass = grant.breakGlass ? html`<span class="state glass">break-glass</span> ` : '';
  return html`${glass}<span class="state gone">${grant.state === 'cancelled' ? 'cancelled' : 'gone'}, ${grant.endReason ?? 'ended'}</span>`;
}

export function leaseState(lease: LeaseView, now: Date): Html {
  if (lease.overdue) return html`<span class="state over">overdue</span>`;
  if (lease.state === 'live') return html`<span class="state live">live</span>`;
  if (lease.state === 'issuing') return html`<span class="state wait">being made</span>`;
  if (lease.state === 'revoking') return html`<span class="state wait">${lease.cutAt ? 'cut, being removed' : 'being ended'}</span>`;
  return html`<span class="state gone">${lease.state === 'void' ? 'never made' : 'gone, read back'}${lease.readBackAt ? html` ${time(lease.readBackAt, now)}` : ''}</span>`;
}

/** One event as a sentence. */
export function sentence(event: AuditEventView): Html {
  const who = 'id' in event.actor ? event.actor.name : 'Halligan';
  const [before = '', after = ''] = auditEventTypes[event.type].split('{who}');
  const named = auditEventTypes[event.type].includes('{who}');
  return named ? html`${before}${personText(who)}${after}` : html`${before}`;
}

/** What an event adds to its sentence: the reason, the code, the numbers. */
export function detail(event: AuditEventView): Part {
  const { data } = event;
  const parts: Part[] = [];
  if (event.type === 'request.submitted' && typeof data['durationSeconds'] === 'number')
    parts.push(`${event.entitlements.join(', ')} for ${durationInWords(data['durationSeconds'])}`);
  if (typeof data['reason'] === 'string' && data['reason'] !== '') parts.push(html`“${personText(data['reason'])}”`);
  if (typeof data['code'] === 'string') parts.push(data['code']);
  if (typeof data['handle'] === 'string') parts.push(html`<code>${data['handle']}</code>`);
  if (typeof data['target'] === 'string') parts.push(`at ${data['target']}`);
  if (typeof data['sessionsCut'] === 'number') parts.push(`${data['sessionsCut']} open ${data['sessionsCut'] === 1 ? 'session' : 'sessions'} cut`);
  if (typeof data['tries'] === 'number' && data['tries'] > 1) parts.push(`try ${data['tries']}`);
  if (typeof data['verdict'] === 'string') parts.push(data['verdict']);
  if (typeof data['notes'] === 'string') parts.push(html`“${personText(data['notes'])}”`);
  if (Array.isArray(data['notes'])) parts.push(...data['notes'].map(String));
  return parts.map((part, index) => (index > 0 ? html` · ${part}` : part));
}

export const plural = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;
const words = ['No', 'One', 'Two', 'Three', 'Four', 'Five', 'Six', 'Seven', 'Eight', 'Nine', 'Ten'];
/** `Two doors`, `14 doors`: for the beginning of a headline. */
export const counted = (count: number, one: string, many = `${one}s`): string => `${words[count] ?? String(count)} ${count === 1 ? one : many}`;

/** `oncall asks to read the orders database for 1 hour`. */
export const asks = (request: RequestView): Html =>
  html`${personText(request.person.name)} asks to ${listed(request.entitlements.map((entitlement) => entitlement.opens))} for ${request.durationInWords}`;

export const listed = (items: readonly string[]): string => (items.length < 2 ? (items[0] ?? '') : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`);

/** What X_new and X_live mean for a target, in words. */
export function limitsInWords(limits: Limits | null): string {
  if (!limits) return 'The limits of this target are not known.';
  const refused = (seconds: number | null) =>
    seconds === null ? 'are not refused by anything' : seconds === 0 ? 'are refused at once' : `are refused within ${durationInWords(seconds)}`;
  const open =
    limits.openSession.dead === null
      ? 'sessions already open stay until the target ends them'
      : `open sessions are ended within ${durationInWords(limits.openSession.dead)}`;
  return `After the end new logins ${refused(limits.newLogin.alive)} and open sessions are cut within ${durationInWords(Math.max(1, limits.openSession.alive))}. If Halligan is dead, new logins ${refused(limits.newLogin.dead)}; ${open}.${limits.staysOpen ? ` What stays open all the same: ${limits.staysOpen}` : ''}`;
}
