/** From what a person types to the thing itself: short ids, and entitlement names that stand for the caller's open grant. */
import { formatDuration } from '../domain/duration.ts';
import type { Client } from './client.ts';
import { exit } from './exit-codes.ts';
import { CliFault, usage } from './fault.ts';
import { line, shellWord } from './text.ts';
import type { WireEntitlement, WireGrant, WireRequest } from './wire.ts';
import { about, clock, endInWords, secondsUntil } from './words.ts';

export type Prefix = 'req' | 'gnt' | 'rev';

const lists: Record<Prefix, { path: string; what: string; hint: string }> = {
  req: { path: '/requests', what: 'request', hint: 'halligan status' },
  gnt: { path: '/grants', what: 'grant', hint: 'halligan status' },
  rev: { path: '/reviews', what: 'review', hint: 'halligan reviews' },
};
/** Ids sort by time and lists are newest first, so the search ends where older ones begin, or here. */
const searchedAtMost = 2_000;
const shownDigits = 12;

/** Whether this looks like an id of the kind, whole or shortened. */
export const looksLikeId = (prefix: Prefix, text: string): boolean => text.startsWith(`${prefix}_`);

/** An id as sentences show it: long enough to be found again. */
export const shortId = (id: string): string => id.slice(0, 4 + shownDigits);

/** The whole id that `given` stands for. Throws a usage fault when it is not an id, `not_found`-like words when nothing begins so, and lists the candidates when several do. */
export async function resolveId(client: Client, prefix: Prefix, given: string): Promise<string> {
  const { path, what, hint } = lists[prefix];
  if (new RegExp(`^${prefix}_[0-9a-f]{32}$`).test(given)) return given;
  if (!new RegExp(`^${prefix}_[0-9a-f]{6,31}$`).test(given)) {
    throw usage(`${JSON.stringify(given)} is not the id of a ${what}: one looks like ${prefix}_ and at least 6 of its 32 hex digits.`, `${hint} shows them.`);
  }
  const found: string[] = [];
  let searched = 0;
  for await (const { id } of client.all<{ id: string }>(path)) {
    if (id.startsWith(given)) found.push(id);
    if (++searched >= searchedAtMost || (id < given && !id.startsWith(given))) break;
  }
  if (found.length === 1 && found[0]) return found[0];
  if (found.length === 0) throw new CliFault(`No ${what} that you may see begins with ${given}.`, { next: `${hint} shows them.` });
  throw usage(
    `${given} stands for ${found.length === 2 ? 'two' : found.length} ${what}s: ${found.slice(0, 5).join(', ')}${found.length > 5 ? ' …' : ''}`,
    'Say more of its digits.',
  );
}

/** The grant that is meant by an id or by an entitlement's name; the name stands for the caller's own active grant with the latest end. */
export async function activeGrant(client: Client, given: string): Promise<WireGrant> {
  if (looksLikeId('gnt', given)) return client.get(`/grants/${await resolveId(client, 'gnt', given)}`);
  const found: WireGrant[] = [];
  for await (const grant of client.all<WireGrant>('/grants', { mine: 'true', state: 'active' })) {
    if (grant.state === 'active' && grant.entitlements.includes(given)) found.push(grant);
  }
  const best = found.sort((a, b) => Date.parse(b.endsAt) - Date.parse(a.endsAt))[0];
  if (best) return best;
  throw await whyClosed(client, given);
}

/** The command that asks for the same again. */
export const askAgain = (of: { entitlements: readonly string[]; seconds: number; incident: string | null }): string =>
  `halligan request ${of.entitlements.map(shellWord).join(' ')} --for ${formatDuration(of.seconds)}${of.incident ? ` --incident ${shellWord(of.incident)}` : ''}`;

export const againOf = (grant: WireGrant): string =>
  askAgain({ entitlements: grant.entitlements, seconds: (Date.parse(grant.endsAt) - Date.parse(grant.startsAt)) / 1_000, incident: grant.incident });

/** Says that a grant is not open, since when and why. */
export function closedFault(grant: WireGrant, name: string): CliFault {
  const now = new Date(grant.readAt);
  if (grant.state === 'scheduled') {
    return new CliFault(`${line(name)} opens at ${clock(grant.startsAt, now)} UTC (in ${about(secondsUntil(grant.startsAt, now))}).`, {
      exitCode: exit.pending,
      next: `halligan status ${shortId(grant.id)}`,
    });
  }
  const early = grant.endReason !== null && grant.endReason !== 'expired';
  const at = early ? (grant.endedAt ?? grant.readAt) : grant.endsAt;
  const words = grant.endReason === null ? 'expired' : endInWords(grant);
  return new CliFault(`${line(name)} closed at ${clock(at, now)} UTC (${words}, ${about(secondsUntil(at, now))} ago).`, {
    exitCode: exit.denied,
    next: `Ask again: ${againOf(grant)}`,
  });
}

async function whyClosed(client: Client, name: string): Promise<CliFault> {
  for await (const request of client.all<WireRequest>('/requests', { mine: 'true', state: 'pending' })) {
    if (!request.entitlements.some((entitlement) => entitlement.name === name)) continue;
    return new CliFault(`${line(name)} is not open yet: ${shortId(request.id)} waits for a decision.`, {
      exitCode: exit.pending,
      next: `halligan status ${shortId(request.id)} shows who can decide.`,
    });
  }
  let searched = 0;
  for await (const grant of client.all<WireGrant>('/grants', { mine: 'true' })) {
    if (grant.entitlements.includes(name)) return closedFault(grant, name);
    if (++searched >= 200) break;
  }
  return neverAsked(await entitlements(client), name);
}

export const entitlements = async (client: Client): Promise<readonly WireEntitlement[]> =>
  (await client.get<{ items: WireEntitlement[] }>('/entitlements')).items;

function neverAsked(known: readonly WireEntitlement[], name: string): CliFault {
  const entitlement = known.find((one) => one.name === name);
  if (!entitlement) {
    const near = known.map((one) => one.name).filter((one) => one.includes(name) || name.includes(one) || one.slice(0, 4) === name.slice(0, 4));
    return usage(
      `There is no entitlement ${JSON.stringify(line(name))} that you may see.${near.length > 0 ? ` Did you mean ${near.slice(0, 3).map(line).join(' or ')}?` : ''}`,
      'halligan entitlements lists them.',
    );
  }
  if (!entitlement.mayAsk && !entitlement.mayBreakGlass)
    return new CliFault(`You may not ask for ${line(name)}.`, { exitCode: exit.notEligible, next: `${line(entitlement.owner)} owns it and can change that.` });
  return new CliFault(`${line(name)} is not open to you.`, {
    exitCode: exit.denied,
    next: `Ask for it: halligan request ${shellWord(name)} --for 1h --reason "…"`,
  });
}
