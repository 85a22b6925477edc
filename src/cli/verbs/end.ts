/** `halligan return` and `halligan revoke`: ending access before its time, one's own or somebody else's. */
import { type Client, connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { CliFault, usage } from '../fault.ts';
import { activeGrant, resolveId, shortId } from '../resolve.ts';
import { pause, put, say, type Terminal } from '../terminal.ts';
import { line } from '../text.ts';
import type { WireGrant } from '../wire.ts';
import { plural } from '../words.ts';
import { askReason } from './request.ts';

/** How long to watch for the end before leaving it to the server, which never gives up. */
const watchMs = 10_000;

export async function giveBack(terminal: Terminal, given: string | undefined): Promise<number> {
  const client = await connect(terminal);
  const grant = given === undefined ? await onlyGrant(client) : await activeGrant(client, given);
  await client.post<WireGrant>(`/grants/${grant.id}/return`, {}, { deadlineMs: 15_000 });
  put(terminal, grant.id);
  await watch(terminal, client, [grant.id], 'Given back');
  return exit.ok;
}

async function onlyGrant(client: Client): Promise<WireGrant> {
  const open: WireGrant[] = [];
  for await (const grant of client.all<WireGrant>('/grants', { mine: 'true', state: 'open' })) if (grant.state !== 'ending') open.push(grant);
  const [first, second] = open;
  if (!first) throw new CliFault('Nothing is open to you, so there is nothing to give back.', { next: 'halligan status' });
  if (second)
    throw usage(
      `${open.length} grants are open: ${open.map((grant) => `${shortId(grant.id)} (${grant.entitlements.map(line).join(', ')})`).join(', ')}.`,
      `halligan return ${shortId(first.id)}`,
    );
  return first;
}

export interface RevokeOptions {
  readonly reason?: string;
  readonly incident?: string;
}

export async function revoke(terminal: Terminal, given: string | undefined, options: RevokeOptions): Promise<number> {
  if ((given === undefined) === (options.incident === undefined))
    throw usage('Say what to end: a grant, or an incident.', 'halligan revoke gnt_… --reason "…", or halligan revoke --incident INC-1 --reason "…"');
  const client = await connect(terminal);
  const reason = options.reason ?? (await askReason(terminal, 'Reason (kept for ever): '));
  const ended = options.incident === undefined ? [await revokeOne(client, given ?? '', reason)] : await revokeIncident(client, options.incident, reason);
  put(terminal, ...ended);
  await watch(terminal, client, ended, 'Revoked');
  return exit.ok;
}

async function revokeOne(client: Client, given: string, reason: string): Promise<string> {
  const id = await resolveId(client, 'gnt', given);
  await client.post(`/grants/${id}/revoke`, { reason }, { deadlineMs: 15_000 });
  return id;
}

const revokeIncident = async (client: Client, incident: string, reason: string): Promise<readonly string[]> =>
  (await client.post<{ ended: string[] }>(`/incidents/${encodeURIComponent(incident)}/revoke`, { reason }, { deadlineMs: 15_000 })).ended;

/** Says when the logins are read back as gone, or that they still are being ended. */
async function watch(terminal: Terminal, client: Client, ids: readonly string[], done: string): Promise<void> {
  const until = performance.now() + watchMs;
  const left = new Set(ids);
  let logins = 0;
  let trouble: string | undefined;
  while (left.size > 0 && performance.now() < until) {
    for (const id of left) {
      const grant = await client.get<WireGrant>(`/grants/${id}`);
      trouble = grant.leases.find((lease) => lease.lastError !== null && lease.state === 'revoking')?.lastError ?? trouble;
      if (grant.state !== 'ended' && grant.state !== 'cancelled') continue;
      logins += grant.leases.filter((lease) => lease.state === 'revoked').length;
      left.delete(id);
    }
    if (left.size > 0) await pause(terminal, 300);
  }
  const what = ids.length === 1 && ids[0] ? shortId(ids[0]) : plural(ids.length, 'grant');
  if (left.size === 0)
    return say(terminal, `${done}: ${what}. ${logins === 0 ? 'No login had been made.' : `${plural(logins, 'login')} gone, read back from the target.`}`);
  say(
    terminal,
    `${done}: ${what}. Ending the logins takes longer${trouble ? ` (${line(trouble)})` : ''}; Halligan goes on until they are gone. next: halligan status ${shortId([...left][0] ?? '')}`,
  );
}
