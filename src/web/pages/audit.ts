/** Audit: the log, its head, and how to check it without trusting this page. */

import { z } from 'zod';
import { cursor, incident, instant, parse } from '../../commands/inputs.ts';
import { type AuditEventView, listAuditEvents, readHead } from '../../db/read-models/audit-events.ts';
import { seesEverything } from '../../db/read-models/viewer.ts';
import { isRefusal, type Refusal } from '../../domain/errors.ts';
import { html, type Part, personText } from '../html.ts';
import { send, type View } from '../view.ts';
import { detail, relative, sentence } from '../words.ts';
import { problem } from './ask.ts';
import { more } from './decide.ts';

/** Whether the log verifies, as the sealer last found it. */
export interface LogState {
  readonly refused: string | null;
}

const day = z.union([
  instant,
  z
    .string()
    .regex(/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$/, 'is not a time')
    .transform((text) => new Date(`${text.length === 10 ? `${text}T00:00` : text}Z`)),
]);
const filterForm = z.object({ person: z.string().max(100), entitlement: z.string().max(63), incident, from: day, to: day, cursor }).partial();

export async function auditPage(view: View, state: LogState): Promise<void> {
  const { ctx, actor, request } = view;
  const given = Object.fromEntries(Object.entries(request.query).filter(([name, value]) => value !== '' && name !== 'did'));
  let refusal: Refusal | undefined;
  let filter: z.output<typeof filterForm> = {};
  try {
    filter = parse(filterForm, given, 'filter');
  } catch (error) {
    if (!isRefusal(error)) throw error;
    refusal = error;
  }
  const [{ items, next }, head] = await Promise.all([listAuditEvents(ctx.db, ctx.policy, actor, filter), readHead(ctx.db)]);
  const all = seesEverything(ctx.policy, actor);
  await send(view, {
    title: 'Audit',
    current: '/audit',
    live: Object.keys(given).length === 0,
    heading: state.refused
      ? 'The log does not agree with what was published'
      : head.size > 0
        ? `${head.size} entries are sealed`
        : 'The log has no sealed entry yet',
    sub: html`${head.sealedAt ? html`The newest checkpoint was signed ${relative(head.sealedAt, head.readAt)}. ` : ''}${head.waiting > 0 ? `${head.waiting} wait for the next one. ` : ''}${all ? '' : 'You see what you did, what concerns you, and what you may decide.'}`,
    body: [
      problem(refusal),
      state.refused && html`<div class="note over" role="alert"><strong>▲ Sealing is refused.</strong> ${state.refused}</div>`,
      verifyNote(all),
      filters(view, given),
      items.length > 0
        ? table(items)
        : html`<p class="empty">No event matches. ${Object.keys(given).length > 0 ? html`<a href="/audit">Show everything</a>` : 'What happens stands here within seconds.'}</p>`,
      more(view, next),
    ],
  });
}

const verifyNote = (
  all: boolean,
): Part => html`<details class="note"><summary><strong>Verify it yourself</strong></summary><p>The log is a Merkle tree (RFC 6962) under signed checkpoints that are also published outside the database. ${
  all
    ? html`Take <a href="/api/v1/audit/export" download>the log</a> and <a href="/api/v1/audit/checkpoints" download>its checkpoints</a>, or in a terminal:`
    : 'An auditor can, in a terminal:'
}</p><pre>halligan audit export --out audit.jsonl --checkpoints checkpoints.jsonl
halligan audit verify audit.jsonl --checkpoints checkpoints.jsonl --key halligan.pub</pre><p class="soft">The verifier needs these two files and the public key only. This page cannot prove anything about itself.</p></details>`;

const filters = (view: View, given: Record<string, unknown>): Part => {
  const value = (name: string): string => (typeof given[name] === 'string' ? given[name] : '');
  return html`<form class="filters" method="get" action="/audit"><label>Person<input name="person" value="${value('person')}"></label><label>Entitlement<input name="entitlement" value="${value('entitlement')}" list="entitlements"></label><label>Incident<input name="incident" value="${value('incident')}"></label><label>From<input type="datetime-local" name="from" value="${value('from')}"></label><label>To<input type="datetime-local" name="to" value="${value('to')}"></label><button>Filter</button><datalist id="entitlements">${[...view.ctx.policy.entitlements.keys()].map((name) => html`<option value="${name}">`)}</datalist></form>`;
};

const table = (items: readonly AuditEventView[]): Part =>
  html`<table class="log"><thead><tr><th>Entry</th><th>When (UTC)</th><th>What happened</th><th>About</th></tr></thead><tbody>${items.map(
    (
      event,
    ) => html`<tr><td class="mono">${event.index ?? html`<span class="soft" title="not sealed yet">…</span>`}</td><td><time datetime="${event.at.toISOString()}">${event.at.toISOString().replace('T', ' ').slice(0, 19)}</time></td>
<td>${sentence(event)}<span class="under">${detail(event)}</span><span class="under"><code>${event.type}</code></span></td>
<td>${event.request ? html`<a href="/requests/${event.request}">${event.entitlements.join(', ') || 'request'}</a>` : event.entitlements.join(', ')}${event.incident ? html` · ${event.incident}` : ''}${event.person ? html`<span class="under">${personText(event.person.name)}</span>` : ''}</td></tr>`,
  )}</tbody></table>`;
