/** A story in plain words, for every channel alike: one headline, the facts under it, and what its reader can do. Person's text comes out with hidden characters visible, and nothing else done to it. */
import { durationInWords } from '../domain/duration.ts';
import { visible, visibleLine } from '../domain/hidden-text.ts';
import type { Story } from './channel.ts';

/** `2026-01-31 03:00 UTC`. */
export const utc = (at: Date): string => `${at.toISOString().slice(0, 16).replace('T', ' ')} UTC`;

const listed = (words: readonly string[]): string => (words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`);

/** What all of it opens: `read the orders database and use the orders bucket`. */
export const opensOf = ({ request }: Story): string => visibleLine(listed(request.entitlements.map((entitlement) => entitlement.opens)));
const who = ({ request }: Story): string => visibleLine(request.person.name);
const lastDecision = ({ request }: Story, decision: 'approve' | 'deny') => request.decisions.findLast((one) => one.decision === decision);

/** Whether there is nothing left to say: a reminder of an end that has come. */
export const isOver = ({ type, request: { grant } }: Story): boolean =>
  type === 'grant.ends-soon' && (grant?.state !== 'active' || grant.endsAt.getTime() <= grant.readAt.getTime());

/** What happened, in one line; and what has become of it, for a message that comes late. */
export function headline(story: Story): string {
  const since = sinceThen(story);
  return since ? `${whatHappened(story)} (${since})` : whatHappened(story);
}

/** What has changed since and makes the first words untrue by themselves; undefined when nothing has. */
function sinceThen({ type, request }: Story): string | undefined {
  const { grant } = request;
  if (type === 'request.submitted' && request.state !== 'pending' && !request.breakGlass)
    return `since then: ${request.state}${grant && isEnded(grant) ? ', and over' : ''}`;
  const opened = type === 'request.approved' || type === 'request.glass-broken' || type === 'grant.started';
  return opened && grant && isEnded(grant) ? 'over since then' : undefined;
}

const isEnded = ({ state, endsAt, readAt }: NonNullable<Story['request']['grant']>): boolean =>
  state === 'ending' || state === 'ended' || state === 'cancelled' || endsAt.getTime() <= readAt.getTime();

function whatHappened(story: Story): string {
  const { request, type } = story;
  const what = opensOf(story);
  const grant = request.grant;
  switch (type) {
    case 'request.submitted':
      return `${who(story)} asks to ${what} for ${request.durationInWords}`;
    case 'request.glass-broken':
      return `BREAK-GLASS: ${who(story)} may ${what} for ${request.durationInWords}, without approval`;
    case 'request.approval-given':
      return `One more approval for ${who(story)} to ${what}; more are needed`;
    case 'request.approved':
      return `${visibleLine(lastDecision(story, 'approve')?.person.name ?? 'Somebody')} approved: ${who(story)} may ${what}${grant ? ` until ${utc(grant.endsAt)}` : ''}`;
    case 'request.denied':
      return `${visibleLine(lastDecision(story, 'deny')?.person.name ?? 'Somebody')} denied: ${who(story)} to ${what}`;
    case 'request.withdrawn':
      return `${who(story)} withdrew the request to ${what}`;
    case 'request.lapsed':
      return `Nobody decided in time on ${who(story)}'s request to ${what}`;
    case 'lease.revealed':
      return `${who(story)} claimed ${nameOfLease(story)}`;
    case 'grant.started':
      return `${who(story)} may now ${what}${grant ? ` until ${utc(grant.endsAt)}` : ''}`;
    case 'grant.expired':
      return `Time is up for ${who(story)} to ${what}`;
    case 'grant.returned':
      return `${who(story)} gave it back: ${what}`;
    case 'grant.revoked':
    case 'grant.incident-closed':
    case 'grant.offboarded':
      return `Ended early: ${who(story)} to ${what}${grant?.endNote ? ` (${visibleLine(grant.endNote)})` : ''}`;
    case 'lease.revoked':
      return `Gone from the target: ${nameOfLease(story)}`;
    case 'lease.revocation-failed':
      return `Ending ${nameOfLease(story)} failed; it is tried again until it is gone`;
    case 'grant.ended':
      return `Over: ${who(story)} to ${what}; every login was read back as gone`;
    case 'grant.ends-soon':
      return `Ends in ${grant ? minutesUntil(grant.endsAt, grant.readAt) : 'a few minutes'}: ${what}`;
    case 'review.due':
      return `The use must be reviewed: ${who(story)} to ${what}`;
    case 'review.closed':
      return `Reviewed${grant?.review?.verdict ? `: ${grant.review.verdict}` : ''}: ${who(story)} to ${what}`;
  }
}

const minutesUntil = (end: Date, from: Date): string => durationInWords(Math.max(60, Math.round((end.getTime() - from.getTime()) / 60_000) * 60));

/** `orders-readonly (hg_lse_…)`: the entitlement and the public name at the target. */
function nameOfLease({ request, leaseId }: Story): string {
  const lease = request.grant?.leases.find((one) => one.id === leaseId);
  return lease ? `${lease.entitlement} (${visibleLine(lease.handle)})` : 'the login';
}

/** A fact with its label. */
export interface Fact {
  readonly label: string;
  readonly value: string;
}

/** Everything a reader must know to decide or to judge: who, what in the target's own terms, for how long, why, until when. */
export function facts({ request }: Story): Fact[] {
  const list: Fact[] = [{ label: 'Who', value: visibleLine(request.person.name) }];
  for (const entitlement of request.entitlements) {
    const opened = entitlement.described ? entitlement.described.summary : `could not be read from the target: ${entitlement.unreadable ?? 'unknown'}`;
    list.push({ label: 'What', value: visibleLine(`${entitlement.name} at ${entitlement.target}: ${opened}`) });
  }
  list.push({ label: 'How long', value: request.durationInWords });
  if (request.startAt) list.push({ label: 'From', value: utc(request.startAt) });
  list.push({ label: 'Why', value: visible(request.reason) });
  if (request.incident) list.push({ label: 'Incident', value: visibleLine(request.incident) });
  if (request.state === 'pending') list.push({ label: 'Decide by', value: utc(request.lapsesAt) });
  if (request.grant)
    list.push(request.grant.endedAt ? { label: 'Ended', value: utc(request.grant.endedAt) } : { label: 'Ends', value: utc(request.grant.endsAt) });
  for (const { person, decision, reason, at } of request.decisions)
    list.push({ label: decision === 'approve' ? 'Approved' : 'Denied', value: `${visibleLine(person.name)}, ${utc(at)}: ${visible(reason)}` });
  return list;
}

/** What the reader can do about it, in one sentence; empty where there is nothing. */
export function nextStep({ type, request }: Story): string {
  if (type === 'request.submitted' && request.state === 'pending') return 'Look at it and decide on its page:';
  if (type === 'request.glass-broken' && request.grant && isEnded(request.grant))
    return 'The access is over. If it was not legitimate, tell your security team; somebody must review the use on its page:';
  if (type === 'request.glass-broken')
    return 'If this is not legitimate, end it on its page now: that cuts the access at once. Then tell your security team. If it is, nothing is to be done until the review.';
  if (type === 'grant.ends-soon') return 'Finish or save your work. To go on after the end, ask again:';
  if (type === 'review.due') return 'Somebody else than its holder must say what the use was:';
  return 'Its page has the whole story:';
}
