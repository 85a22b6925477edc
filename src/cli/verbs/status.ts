/** `halligan status`, `halligan entitlements`: what is open, what waits, what there is to ask for. */
import { type Client, connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { usage } from '../fault.ts';
import { looksLikeId, entitlements as offered, resolveId, shortId } from '../resolve.ts';
import { table } from '../table.ts';
import { formatOf, put, putData, say, type Terminal, widthOf } from '../terminal.ts';
import { line } from '../text.ts';
import { whoWasTold } from '../told.ts';
import type { WireGrant, WireRequest } from '../wire.ts';
import { about, clock, detail, endInWords, figure, grantState, listed, relative, secondsUntil, sentence, why } from '../words.ts';
import { systemStatus } from './system.ts';

const namesOf = (request: WireRequest): string => request.entitlements.map((entitlement) => entitlement.name).join(', ');

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

export async function status(terminal: Terminal, id: string | undefined, options: { output?: string; system?: boolean }): Promise<number> {
  if (options.system) {
    if (id !== undefined) throw usage('--system is about Halligan itself; it takes no id.', 'halligan status --system');
    return systemStatus(terminal, options);
  }
  const format = formatOf(options.output);
  const client = await connect(terminal);
  if (id !== undefined) return story(terminal, client, id, format);
  const [access, waiting, toDecide] = await Promise.all([
    collect(client.all<WireGrant>('/grants', { mine: 'true', state: 'open' })),
    collect(client.all<WireRequest>('/requests', { mine: 'true', state: 'pending' })),
    collect(client.all<WireRequest>('/requests', { toDecide: 'true' })),
  ]);
  access.sort((a, b) => Date.parse(a.endsAt) - Date.parse(b.endsAt));
  if (format !== 'table') await putData(terminal, format, { access, waiting, toDecide });
  else showStatus(terminal, access, waiting, toDecide);
  return exit.ok;
}

function showStatus(terminal: Terminal, access: WireGrant[], waiting: WireRequest[], toDecide: WireRequest[]): void {
  const width = widthOf(terminal);
  const now = new Date(access[0]?.readAt ?? Date.now());
  const sections = [
    access.length > 0 && table(accessColumns(now), access, width),
    waiting.length > 0 && table([...requestColumns('WAITING', now), { title: 'WHO CAN DECIDE', of: whoDecides }], waiting, width),
    toDecide.length > 0 &&
      table(
        [
          { title: 'TO DECIDE', of: (one) => shortId(one.id) },
          { title: 'WHO', of: (one) => one.person.name },
          { title: 'WHAT', of: namesOf },
          { title: 'FOR', of: (one) => one.duration },
          { title: 'WHY', of: why },
        ],
        toDecide,
        width,
      ),
  ].filter((section) => section !== false);
  put(terminal, ...sections.flatMap((section, index) => (index > 0 ? ['', ...section] : section)));
  if (access.length + waiting.length === 0) say(terminal, 'Nothing is open to you and nothing waits. next: halligan entitlements');
  if (toDecide[0]) say(terminal, `next: halligan approve ${shortId(toDecide[0].id)}`);
}

const accessColumns = (now: Date) => [
  { title: 'WHAT', of: (grant: WireGrant) => grant.entitlements.join(', ') },
  { title: 'STATE', of: grantState },
  {
    title: 'LEFT',
    of: (grant: WireGrant) => (grant.state === 'scheduled' ? `in ${about(secondsUntil(grant.startsAt, now))}` : figure(secondsUntil(grant.endsAt, now))),
    right: true,
  },
  { title: 'UNTIL', of: (grant: WireGrant) => clock(grant.endsAt, now) },
  { title: 'WHY', of: why },
];

const requestColumns = (title: string, now: Date) => [
  { title, of: (request: WireRequest) => shortId(request.id) },
  { title: 'WHAT', of: namesOf },
  { title: 'FOR', of: (request: WireRequest) => request.duration },
  { title: 'LAPSES', of: (request: WireRequest) => clock(request.lapsesAt, now) },
];

const whoDecides = (request: WireRequest): string =>
  request.deciders.length > 0
    ? listed(
        request.deciders.map((person) => person.name),
        'or',
      )
    : request.decidersInWords;

async function story(terminal: Terminal, client: Client, given: string, format: 'table' | 'json' | 'yaml'): Promise<number> {
  const request = await client.get<WireRequest>(`/requests/${await requestIdOf(client, given)}`);
  if (format !== 'table') {
    await putData(terminal, format, request);
    return exit.ok;
  }
  const now = new Date(request.grant?.readAt ?? Date.now());
  put(
    terminal,
    `${line(request.person.name)} asked for ${line(namesOf(request))} for ${request.durationInWords}${request.breakGlass ? ' by break-glass' : ''}.`,
  );
  put(terminal, `why      ${why(request)}`);
  for (const entitlement of request.entitlements)
    put(
      terminal,
      `opens    ${line(entitlement.described?.summary ?? `${entitlement.opens}; what it opens now could not be read: ${entitlement.unreadable ?? 'unknown'}`)}`,
    );
  for (const rule of request.rules)
    put(
      terminal,
      `rule     ${rule.filled} of ${rule.count} approved: ${line(rule.of)}${request.entitlements.length > 1 ? ` (${line(rule.entitlement)})` : ''}`,
    );
  put(terminal, `state    ${stateInWords(request, now)}`);
  for (const words of await whoWasTold(client, request.id)) put(terminal, `told     ${words}`);
  for (const lease of request.grant?.leases ?? []) put(terminal, `login    ${line(lease.handle)} for ${line(lease.entitlement)}: ${leaseInWords(lease, now)}`);
  put(
    terminal,
    '',
    ...table(
      [
        { title: 'AT (UTC)', of: (event) => clock(event.at, now) },
        { title: 'WHAT', of: (event) => [sentence(event), detail(event)].filter(Boolean).join(' · ') },
      ],
      request.story ?? [],
      widthOf(terminal),
    ),
  );
  if (request.state === 'pending')
    say(
      terminal,
      request.mayDecide ? `next: halligan approve ${shortId(request.id)}, or halligan deny ${shortId(request.id)}` : `${whoDecides(request)} can decide.`,
    );
  return exit.ok;
}

async function requestIdOf(client: Client, given: string): Promise<string> {
  if (looksLikeId('gnt', given)) return (await client.get<WireGrant>(`/grants/${await resolveId(client, 'gnt', given)}`)).requestId;
  if (looksLikeId('req', given)) return resolveId(client, 'req', given);
  throw usage(`${JSON.stringify(line(given))} is neither the id of a request (req_…) nor of a grant (gnt_…).`, 'halligan status, without an id, shows them.');
}

function stateInWords(request: WireRequest, now: Date): string {
  const { grant } = request;
  if (!grant) return request.state === 'pending' ? `waiting, lapses ${clock(request.lapsesAt, now)} UTC` : request.state;
  if (grant.state === 'active')
    return `${grantState(grant)}, ${figure(secondsUntil(grant.endsAt, now))} left, until ${clock(grant.endsAt, now)} UTC   ${grant.id}`;
  if (grant.state === 'scheduled') return `opens ${relative(grant.startsAt, now)}, at ${clock(grant.startsAt, now)} UTC   ${grant.id}`;
  return `${grantState(grant)}, ${endInWords(grant)}${grant.endedAt ? `, ${relative(grant.endedAt, now)}` : ''}   ${grant.id}`;
}

function leaseInWords(lease: WireGrant['leases'][number], now: Date): string {
  if (lease.overdue) return `overdue${lease.lastError ? `: ${line(lease.lastError)}` : ''}`;
  if (lease.state === 'live') return `live until ${clock(lease.expiresAt, now)} UTC`;
  if (lease.state === 'revoked') return `gone, read back${lease.readBackAt ? ` ${clock(lease.readBackAt, now)} UTC` : ''}`;
  return { issuing: 'being made', revoking: lease.cutAt ? 'cut, being removed' : 'being ended', void: 'never made' }[lease.state];
}

export async function entitlements(terminal: Terminal, options: { output?: string }): Promise<number> {
  const format = formatOf(options.output);
  const items = await offered(await connect(terminal));
  if (format !== 'table') await putData(terminal, format, items);
  else if (items.length > 0) {
    const most = (duration: string | null, may: boolean): string => (duration === null ? '–' : may ? duration : `${duration}, not you`);
    put(
      terminal,
      ...table(
        [
          { title: 'WHAT', of: (one) => one.name },
          { title: 'MOST', of: (one) => most(one.maxDuration, one.mayAsk) },
          { title: 'BREAK-GLASS', of: (one) => most(one.breakGlassMaxDuration, one.mayBreakGlass) },
          { title: 'APPROVAL', of: (one) => one.approvers },
          { title: 'OPENS', of: (one) => `${one.opens} (${one.target}, ${one.grant})` },
        ],
        items,
        widthOf(terminal),
      ),
    );
  } else say(terminal, 'There is nothing that you may ask for, decide or review. The groups your identity provider gives you decide that: halligan whoami');
  return exit.ok;
}
