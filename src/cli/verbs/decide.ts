/** `halligan approve` and `halligan deny`: shows exactly what would be opened, and decides on exactly that. */
import { isRefusal, Refusal } from '../../domain/errors.ts';
import { shortSeen } from '../../domain/seen.ts';
import { type Client, connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { CliFault } from '../fault.ts';
import { resolveId, shortId } from '../resolve.ts';
import { ask, canAsk, put, say, type Terminal } from '../terminal.ts';
import { line } from '../text.ts';
import type { WireRequest } from '../wire.ts';
import { clock, listed } from '../words.ts';
import { askReason } from './request.ts';

export interface DecideOptions {
  readonly reason?: string;
  readonly yes?: boolean;
}

const unseen = '0'.repeat(64);
const detailsShown = 12;

export async function decide(terminal: Terminal, decision: 'approve' | 'deny', given: string, options: DecideOptions): Promise<number> {
  const client = await connect(terminal);
  const id = await resolveId(client, 'req', given);
  const request = await client.get<WireRequest>(`/requests/${id}`);
  // The server says no, and keeps a witness of the try. The hash of nothing makes sure that nothing unseen is decided.
  if (!request.mayDecide) return refused(client, request, decision, options.reason ?? decision);
  if (decision === 'approve') showRequest(terminal, request);
  const reason = options.reason ?? (await askReason(terminal, `Reason (kept for ever, shown to ${line(request.person.name)}): `));
  if (decision === 'approve' && !options.yes && canAsk(terminal)) {
    const answer = await ask(terminal, `Approve for ${request.durationInWords}? [y/N] `);
    if (!/^y(es)?$/i.test(answer)) throw new CliFault(`Nothing was decided; ${shortId(id)} still waits.`);
  }
  const after = await client.post<WireRequest>(`/requests/${id}/decisions`, { decision, reason, seen: request.seen });
  sayOutcome(terminal, after);
  put(terminal, after.grant?.id ?? after.id);
  return exit.ok;
}

async function refused(client: Client, request: WireRequest, decision: string, reason: string): Promise<number> {
  try {
    await client.post(`/requests/${request.id}/decisions`, { decision, reason, seen: unseen });
  } catch (error) {
    if (!isRefusal(error, 'self_decision', 'not_an_approver')) throw error;
    const who =
      request.deciders.length > 0
        ? listed(
            request.deciders.map((person) => line(person.name)),
            'or',
          )
        : line(request.decidersInWords);
    throw new Refusal(error.code, error.message, request.state === 'pending' ? { next: `${who} can: halligan status ${shortId(request.id)}` } : {});
  }
  throw new CliFault('The server took a decision on something that was not shown. Tell those who run it.');
}

/** Who, what in the target's own terms, why, until when. All of it is bound by the hash that the decision carries. */
function showRequest(terminal: Terminal, request: WireRequest): void {
  const now = new Date();
  say(
    terminal,
    `${line(request.person.name)} asks to ${line(listed(request.entitlements.map((one) => one.opens)))} for ${request.durationInWords}${request.breakGlass ? ', by break-glass' : ''}.`,
  );
  say(terminal, `why     ${line(request.reason)}${request.incident ? ` (${line(request.incident)})` : ''}`);
  for (const entitlement of request.entitlements) {
    say(terminal, `opens   ${line(entitlement.name)}: ${line(entitlement.target)}, ${line(entitlement.grant)}`);
    if (!entitlement.described) say(terminal, `        what it opens could not be read: ${line(entitlement.unreadable ?? 'unknown')}`);
    else {
      say(terminal, `        ${line(entitlement.described.summary)}`);
      for (const one of entitlement.described.details.slice(0, detailsShown)) say(terminal, `          ${line(one)}`);
      const more = entitlement.described.details.length - detailsShown;
      if (more > 0) say(terminal, `          and ${more} more: halligan status ${shortId(request.id)} -o json`);
    }
  }
  const start = request.startAt ? new Date(request.startAt) : now;
  const end = clock(new Date(start.getTime() + request.durationSeconds * 1_000).toISOString(), now);
  say(
    terminal,
    `until   ${request.startAt ? `${end} UTC, from ${clock(request.startAt, now)} UTC` : `${request.durationInWords} after the last approval: ${end} UTC if that is now`}`,
  );
  for (const rule of request.rules) say(terminal, `rule    ${rule.filled} of ${rule.count} approved: ${line(rule.of)}`);
  say(terminal, `seen    ${shortSeen(request.seen)}`);
}

function sayOutcome(terminal: Terminal, request: WireRequest): void {
  const now = new Date();
  if (request.state === 'denied') say(terminal, `${shortId(request.id)} is denied; nothing was opened.`);
  else if (request.grant)
    say(
      terminal,
      `${request.grant.state === 'scheduled' ? `Approved; it opens at ${clock(request.grant.startsAt, now)} UTC and lasts` : 'Approved. Open'} until ${clock(request.grant.endsAt, now)} UTC. To end it early: halligan revoke ${shortId(request.grant.id)} --reason "…"`,
    );
  else {
    const missing = request.rules.filter((rule) => rule.filled < rule.count).map((rule) => `${rule.count - rule.filled} of ${line(rule.of)}`);
    say(terminal, `Your approval counts. Still needed: ${listed(missing)}.`);
  }
}
