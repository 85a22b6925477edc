/** Times, durations and states as the terminal says them. All times are UTC. */
import { auditEventTypes } from '../domain/audit-event.ts';
import { line } from './text.ts';
import type { WireEvent, WireGrant, WirePerson, WireRequest } from './wire.ts';

const two = (value: number): string => String(value).padStart(2, '0');

/** `04:12:07`, with its day in front when that is not today's. */
export function clock(at: string, now: Date): string {
  const iso = new Date(at).toISOString();
  return iso.slice(0, 10) === now.toISOString().slice(0, 10) ? iso.slice(11, 19) : `${iso.slice(0, 10)} ${iso.slice(11, 19)}`;
}

/** `41:12` or `1:02:09`: seconds as a countdown shows them. */
export function figure(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60), whole % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`;
}

/** `58 min`, `40 s`, `3 h`, `2 d`: about how long. */
export function about(seconds: number): string {
  const size = Math.abs(Math.round(seconds));
  if (size < 90) return `${size} s`;
  if (size < 5_400) return `${Math.round(size / 60)} min`;
  return size < 129_600 ? `${Math.round(size / 3_600)} h` : `${Math.round(size / 86_400)} d`;
}

/** Seconds from `now` until `at`; negative when it is over. */
export const secondsUntil = (at: string, now: Date): number => (Date.parse(at) - now.getTime()) / 1_000;

/** `3 min ago` or `in 26 min`. */
export const relative = (at: string, now: Date): string => {
  const seconds = secondsUntil(at, now);
  return seconds >= 0 ? `in ${about(seconds)}` : `${about(seconds)} ago`;
};

export const listed = (items: readonly string[], joint = 'and'): string =>
  items.length < 2 ? (items[0] ?? '') : `${items.slice(0, -1).join(', ')} ${joint} ${items.at(-1)}`;

/** `18 204`: figures in groups of three. */
export const grouped = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ' ');

export const plural = (count: number, one: string, many = `${one}s`): string => `${grouped(count)} ${count === 1 ? one : many}`;

/** Who can decide, in names where Halligan knows any, otherwise in the policy's words. */
export function deciders(request: WireRequest): string {
  const names = request.deciders.map((person: WirePerson) => line(person.name));
  return names.length > 0
    ? `${listed(names, 'or')} can decide (${line(request.decidersInWords)})`
    : `${line(request.decidersInWords)} can decide; none of them has logged in yet`;
}

/** The state of a grant in one or two words. */
export function grantState(grant: WireGrant): string {
  if (grant.overdue) return 'overdue';
  if (grant.state === 'active') return grant.breakGlass ? 'break-glass' : 'active';
  return grant.state;
}

/** Why a grant is over, in words for its holder: `expired`, `you gave it back`, `ended by somebody else: "…"`. */
export function endInWords(grant: WireGrant): string {
  const note = grant.endNote ? `: “${line(grant.endNote)}”` : '';
  const words: Record<string, string> = {
    expired: 'expired',
    returned: 'given back',
    revoked: 'revoked',
    offboarded: 'the person left',
    'incident-closed': 'the incident was closed',
  };
  return `${words[grant.endReason ?? ''] ?? line(grant.endReason ?? 'ended')}${note}`;
}

/** `INC-4312 checkout errors`: the incident and the reason, in one line. */
export const why = (of: { incident: string | null; reason: string }): string => line(of.incident ? `${of.incident} ${of.reason}` : of.reason);

/** An event of the story as a sentence. A type that this version does not know is shown by its name. */
export function sentence(event: WireEvent): string {
  const who = 'name' in event.actor ? line(event.actor.name) : 'Halligan';
  const words = Object.hasOwn(auditEventTypes, event.type) ? auditEventTypes[event.type as keyof typeof auditEventTypes] : line(event.type);
  return words.replaceAll('{who}', () => who);
}

/** What an event adds to its sentence: reason, code, numbers. */
export function detail(event: WireEvent): string {
  const { data } = event;
  const parts: string[] = [];
  for (const name of ['reason', 'notes']) if (typeof data[name] === 'string' && data[name] !== '') parts.push(`“${line(data[name])}”`);
  for (const name of ['verdict', 'code', 'handle']) if (typeof data[name] === 'string') parts.push(line(data[name]));
  if (typeof data['sessionsCut'] === 'number') parts.push(`${plural(data['sessionsCut'], 'open session')} cut`);
  if (typeof data['tries'] === 'number' && data['tries'] > 1) parts.push(`try ${data['tries']}`);
  return parts.join(' · ');
}
