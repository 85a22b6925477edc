/** Decide: what waits for my decision, each leading to the page on which it is decided. */
import { listRequests } from '../../db/read-models/requests.ts';
import { html, personText } from '../html.ts';
import { send, type View } from '../view.ts';
import { asks, counted, relative, requestState } from '../words.ts';

export async function decidePage(view: View): Promise<void> {
  const { ctx, actor } = view;
  const { items, next } = await listRequests(ctx.db, ctx.policy, ctx.policy.entitlements, actor, { toDecide: true, cursor: cursorOf(view) });
  const now = new Date();
  await send(view, {
    title: 'Decide',
    current: '/decide',
    live: true,
    heading: items.length > 0 ? `${counted(items.length, 'request waits', 'requests wait')} for you` : 'Nothing waits for your decision',
    sub:
      items.length > 0
        ? 'Open one to see exactly what you would grant.'
        : html`When somebody asks for what you may approve, it stands here within seconds. See <a href="/entitlements">what you may approve</a>.`,
    body:
      items.length > 0 &&
      html`<table><thead><tr><th>Who asks</th><th>Why</th><th>State</th><th><span class="sr">Actions</span></th></tr></thead><tbody>${items.map(
        (
          request,
        ) => html`<tr><td><a href="/requests/${request.id}">${asks(request)}</a><span class="under">${request.entitlements.map((entitlement) => entitlement.name).join(', ')}</span></td>
<td>${request.incident ?? ''}<span class="under">${personText(request.reason)}</span></td><td>${requestState(request)}<span class="under">asked ${relative(request.createdAt, now)}, lapses ${relative(request.lapsesAt, now)}</span></td>
<td class="act"><a class="btn" href="/requests/${request.id}">Look and decide</a></td></tr>`,
      )}</tbody></table>${more(view, next)}`,
  });
}

export const cursorOf = (view: View): string | undefined => (typeof view.request.query['cursor'] === 'string' ? view.request.query['cursor'] : undefined);

/** The link to the next page of a list, keeping its filter. */
export function more(view: View, next: string | null) {
  if (!next) return '';
  const query = new URLSearchParams(
    Object.entries(view.request.query).flatMap(([name, value]) =>
      typeof value === 'string' && name !== 'cursor' && name !== 'did' ? [[name, value] as [string, string]] : [],
    ),
  );
  query.set('cursor', next);
  return html`<p><a class="btn" href="?${query.toString()}">Older</a></p>`;
}
