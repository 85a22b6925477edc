/** The double's page: its channels, direct messages, dialogs and homes as plain HTML, as one of its users, with buttons that can be pressed. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Html, html, type Part as Shown } from '../web/html.ts';
import type { SlackMessage, SlackView, Workspace } from './slack-double-api.ts';
import { bodyOf, type Values } from './slack-double-forms.ts';
import { isPart, type Part, partsOf, textOf } from './slack-double-limits.ts';

/** What the page shows, and what can be done on it. */
export interface Pressable extends Pick<Workspace, 'users' | 'channels' | 'messages' | 'dialogs' | 'homes'> {
  readonly complaints: readonly string[];
  messagesIn(channel: string, user?: string): SlackMessage[];
  press(user: string, where: SlackMessage | SlackView, actionId: string): Promise<unknown>;
  submit(user: string, values: Values): Promise<unknown>;
  command(user: string, command: string, text?: string, channel?: string): Promise<unknown>;
  shortcut(user: string, callbackId: string): Promise<unknown>;
  openHome(user: string): Promise<unknown>;
}

/** Answers everything that is not the Web API. */
export async function servePage(double: Pressable, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://double');
  try {
    if (url.pathname === '/version') return void response.end(versionOf(double));
    if (url.pathname !== '/' && url.pathname !== '/do') return void response.writeHead(404).end('There is no such page.');
    if (request.method === 'POST') {
      const form = new URLSearchParams(await bodyOf(request));
      await act(double, form);
      return void response.writeHead(303, { location: `/?${new URLSearchParams({ as: form.get('as') ?? '', in: form.get('in') ?? '' })}` }).end();
    }
    response
      .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
      .end(pageOf(double, url.searchParams.get('as') ?? '', url.searchParams.get('in') ?? ''));
  } catch (error) {
    response.writeHead(400, { 'content-type': 'text/plain; charset=utf-8' }).end((error as Error).message);
  }
}

/** Changes with everything that the page could show. */
const versionOf = (double: Pressable): string =>
  [
    double.messages.length,
    double.messages.reduce((sum, message) => sum + message.edits, 0),
    ...[...double.dialogs.values(), ...double.homes.values()].map((view) => view.id),
    double.complaints.length,
  ].join(' ');

/** What a user did on the page. */
async function act(double: Pressable, form: URLSearchParams): Promise<void> {
  const field = (name: string): string => form.get(name) ?? '';
  const user = field('as');
  if (!double.users.has(user)) throw new Error('nobody of that name is here');
  const what = field('what');
  if (what === 'close') double.dialogs.delete(user);
  else if (what === 'command') await double.command(user, '/halligan', field('text').replace(/^\/halligan\s*/, ''), field('in'));
  else if (what === 'home') await double.openHome(user);
  else if (what === 'shortcut') await double.shortcut(user, 'halligan-ask');
  else if (what === 'press') {
    const where =
      field('ts') === 'dialog'
        ? double.dialogs.get(user)
        : field('ts') === 'home'
          ? double.homes.get(user)
          : double.messages.find((one) => one.ts === field('ts'));
    if (where) await double.press(user, where, field('action'));
  } else if (what === 'submit') {
    const values: Record<string, string | string[]> = {};
    for (const name of new Set(form.keys()))
      if (name.startsWith('v.')) values[name.slice(2)] = form.getAll(name).length > 1 || name.endsWith('[]') ? form.getAll(name) : field(name);
    await double.submit(user, Object.fromEntries(Object.entries(values).map(([name, value]) => [name.replace(/\[\]$/, ''), value])) as Values);
  }
}

function pageOf(double: Pressable, as: string, place: string): string {
  const [first] = double.users.values();
  const user = double.users.get(as) ?? first;
  if (!user) return 'nobody is here';
  const places = [...double.channels.values()].filter((channel) => channel.user === undefined || channel.user === user.id);
  const current = place === 'home' ? undefined : (places.find((channel) => channel.id === place) ?? places[0]);
  const link = (to: string, who = user.id) => `/?${new URLSearchParams({ as: who, in: to })}`;
  const fields = html`<input type="hidden" name="as" value="${user.id}"><input type="hidden" name="in" value="${current?.id ?? 'home'}">`;
  const dialog = double.dialogs.get(user.id);
  const home = double.homes.get(user.id);
  const body = html`<div class="bar"><b>Not Slack</b>, only a double of it on this machine. You are ${[...double.users.values()].map((one) => html`<a class="who${one.id === user.id ? ' on' : ''}" href="${link(current?.id ?? 'home', one.id)}">${one.name}</a>`)}</div>
<div class="cols"><nav><form method="post" action="/do">${fields}<input type="hidden" name="what" value="home"><button formaction="/do" class="side${current ? '' : ' on'}" onclick="this.form.in.value='home'">Halligan (home)</button></form>
${places.map((channel) => html`<a class="side${channel.id === current?.id ? ' on' : ''}" href="${link(channel.id)}">${channel.user === undefined ? `# ${channel.name}` : 'Halligan (messages)'}</a>`)}
<form method="post" action="/do">${fields}<input type="hidden" name="what" value="shortcut"><button class="side">⚡ Ask for access</button></form></nav>
<main>${current ? list(double, current.id, user.id, fields) : home ? html`<div class="home">${blocksOf(partsOf(home.view['blocks']), 'home', fields)}</div>` : html`<p class="soft">The app has shown nothing here yet.</p>`}
${current && html`<form class="type" method="post" action="/do">${fields}<input type="hidden" name="what" value="command"><input name="text" placeholder="/halligan" aria-label="Type a command" autocomplete="off"><button>Send</button></form>`}</main></div>
${dialog && dialogOf(dialog, fields)}
${double.complaints.length > 0 && html`<p class="soft">Slack would complain: ${double.complaints.at(-1) ?? ''}</p>`}`;
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>A double of Slack</title><style>${style}</style></head><body data-version="${versionOf(double)}">${body.html}<script>${script}</script></body></html>`;
}

const list = (double: Pressable, channel: string, user: string, fields: Html): Shown =>
  double
    .messagesIn(channel, user)
    .filter((one) => one.threadTs === undefined)
    .map((message) =>
      messageOf(
        message,
        double.messagesIn(channel, user).filter((one) => one.threadTs === message.ts),
        fields,
      ),
    );

const messageOf = (message: SlackMessage, thread: readonly SlackMessage[], fields: Html): Html =>
  html`<article${message.onlyFor !== undefined && html` class="private"`} data-ts="${message.ts}"><p class="from"><b>Halligan</b> <span class="soft">app · ${new Date(Number(message.ts) * 1_000).toISOString().slice(11, 16)}${message.edits > 0 ? ' · edited' : ''}${message.onlyFor === undefined ? '' : ' · only visible to you'}</span></p>
${message.blocks.length > 0 ? blocksOf(message.blocks, message.ts, fields) : html`<p class="rich">${mrkdwn(message.text)}</p>`}
${thread.length > 0 && html`<div class="thread">${thread.map((one) => html`<div class="reply">${one.blocks.length > 0 ? blocksOf(one.blocks, one.ts, fields) : mrkdwn(one.text)}</div>`)}</div>`}</article>`;

const dialogOf = ({ view, errors, typed = {} }: SlackView, fields: Html): Html =>
  html`<div class="shade"><div class="dialog" role="dialog" aria-label="${plain(view['title'])}"><form method="post" action="/do">${fields}<input type="hidden" name="what" value="close"><h2>${plain(view['title'])}<button class="x" aria-label="Close">×</button></h2></form>
${view['submit'] === undefined && blocksOf(partsOf(view['blocks']), 'dialog', fields)}
<form method="post" action="/do" id="dialog">${fields}<input type="hidden" name="what" value="submit">${view['submit'] !== undefined && blocksOf(partsOf(view['blocks']), 'dialog', fields, { errors, typed })}
<p class="end">${view['submit'] === undefined ? '' : html`<button class="primary">${plain(view['submit'])}</button>`}</p></form></div></div>`;

const plain = (value: unknown): string => (isPart(value) ? textOf(value['text']) : '');
const text = (value: unknown): Shown => (isPart(value) ? (value['type'] === 'mrkdwn' ? mrkdwn(textOf(value['text'])) : textOf(value['text'])) : '');

/** As much of mrkdwn as shows whether somebody's text took effect: bold, links, mentions, `&lt;`. */
function mrkdwn(source: string): Html {
  const literal = (part: string) => html`${part.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')}`.html;
  const out = source.split(/(<[^<>]*>|\*[^*\n]+\*)/).map((part) => {
    if (/^<[@!#]/.test(part)) return `<span class="mention">${literal(part.slice(1, -1))}</span>`;
    if (part.startsWith('<') && part.endsWith('>')) {
      const [address = '', name = address] = part.slice(1, -1).split('|');
      return html`<a href="${address}">${name}</a>`.html;
    }
    return part.startsWith('*') && part.length > 2 ? `<b>${literal(part.slice(1, -1))}</b>` : literal(part);
  });
  return { html: out.join('') };
}

type Filled = Pick<SlackView, 'errors' | 'typed'>;
const blocksOf = (blocks: readonly Part[], ts: string, fields: Html, filled: Filled = { errors: {} }): Shown =>
  blocks.map((block) => blockOf(block, ts, fields, filled));

function blockOf(block: Part, ts: string, fields: Html, filled: Filled): Shown {
  switch (block['type']) {
    case 'header':
      return html`<h3>${plain(block['text'])}</h3>`;
    case 'divider':
      return html`<hr>`;
    case 'section':
      return html`<div class="rich">${text(block['text'])}${partsOf(block['fields']).map((field) => html`<div>${text(field)}</div>`)}</div>${isPart(block['accessory']) && button(block['accessory'], ts, fields)}`;
    case 'context':
      return html`<p class="soft">${partsOf(block['elements']).map((one, index) => html`${index > 0 ? ' ' : ''}${text(one)}`)}</p>`;
    case 'actions':
      return html`<div class="actions">${partsOf(block['elements']).map((one) => button(one, ts, fields))}</div>`;
    case 'rich_text':
      return partsOf(block['elements']).map(rich);
    case 'input':
      return input(block, filled);
    default:
      return '';
  }
}

function rich(part: Part): Html {
  if (part['type'] === 'rich_text_list') return html`<ul>${partsOf(part['elements']).map((one) => html`<li>${rich(one)}</li>`)}</ul>`;
  const inner = partsOf(part['elements']).map((one) => {
    const style = isPart(one['style']) ? one['style'] : {};
    const shown = one['type'] === 'link' ? html`<a href="${textOf(one['url'])}">${textOf(one['text'])}</a>` : html`${textOf(one['text'])}`;
    if (style['bold']) return html`<b>${shown}</b>`;
    return style['code'] ? html`<code>${shown}</code>` : shown;
  });
  if (part['type'] === 'rich_text_quote') return html`<blockquote class="rich">${inner}</blockquote>`;
  return part['type'] === 'rich_text_preformatted' ? html`<pre>${inner}</pre>` : html`<div class="rich">${inner}</div>`;
}

function button(element: Part, ts: string, fields: Html): Html {
  const look = textOf(element['style']);
  if (element['url'] !== undefined)
    return html`<a class="btn ${look}" href="${textOf(element['url'])}" target="_blank" rel="noreferrer">${plain(element['text'])}</a>`;
  return html`<form method="post" action="/do">${fields}<input type="hidden" name="what" value="press"><input type="hidden" name="ts" value="${ts}"><input type="hidden" name="action" value="${textOf(element['action_id'])}"><button class="${look}">${plain(element['text'])}</button></form>`;
}

function input(block: Part, { errors, typed = {} }: Filled): Html {
  const element = isPart(block['element']) ? block['element'] : {};
  const id = textOf(block['block_id']);
  const several = element['type'] === 'multi_static_select';
  const was = typed[id];
  const written = typeof was === 'string' ? was : textOf(element['initial_value']);
  const chosen =
    was !== undefined
      ? new Set<unknown>([was].flat())
      : new Set(
          [element['initial_option'] ?? [], element['initial_options'] ?? []]
            .flat()
            .filter(isPart)
            .map((one) => one['value']),
        );
  const control = element['options']
    ? html`<select name="v.${id}${several ? '[]' : ''}"${several && html` multiple size="${Math.min(4, partsOf(element['options']).length)}"`}>${partsOf(element['options']).map((option) => html`<option value="${textOf(option['value'])}"${chosen.has(option['value']) && html` selected`}>${plain(option['text'])}</option>`)}</select>`
    : element['multiline']
      ? html`<textarea name="v.${id}" rows="3" placeholder="${plain(element['placeholder'])}">${written}</textarea>`
      : html`<input name="v.${id}" value="${written}" placeholder="${plain(element['placeholder'])}">`;
  return html`<label><b>${plain(block['label'])}</b>${block['optional'] ? html` <span class="soft">(optional)</span>` : ''}${control}</label>${block['hint'] !== undefined && html`<p class="soft">${plain(block['hint'])}</p>`}${errors[id] !== undefined && html`<p class="error" role="alert">${errors[id] ?? ''}</p>`}`;
}

const style = `*{box-sizing:border-box}body{margin:0;font:15px/1.46 system-ui,sans-serif;color:#1d1c1d}.bar{background:#3f0e40;color:#fff;padding:8px 14px}.who{color:#d1b3d1;margin-left:8px;text-decoration:none}.who.on{color:#fff;font-weight:700;text-decoration:underline}
.cols{display:grid;grid-template-columns:190px minmax(0,1fr);min-height:80vh}nav{background:#f4ede4;padding:8px}.side{display:block;width:100%;text-align:left;border:0;background:none;padding:5px 8px;color:#1d1c1d;text-decoration:none;font:inherit;border-radius:5px;cursor:pointer}.side.on{background:#1164a3;color:#fff}
main{padding:12px 16px;max-width:760px}article{padding:8px 10px;border-radius:6px;margin-bottom:8px}article.private{background:#fff8e1}.from{margin:0 0 2px}.soft{color:#616061;font-size:13px;margin:4px 0}h3{font-size:17px;margin:4px 0}.rich{white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0}
blockquote{border-left:4px solid #ddd;margin:4px 0;padding-left:10px}pre,code{font:12.5px/1.4 ui-monospace,monospace;background:#f6f6f6;overflow-wrap:anywhere;white-space:pre-wrap}ul{margin:2px 0;padding-left:22px}.actions{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}.actions form,form{margin:0}
button,.btn{font:inherit;font-weight:700;font-size:14px;border:1px solid #bbb;border-radius:4px;background:#fff;padding:5px 12px;color:#1d1c1d;text-decoration:none;cursor:pointer;display:inline-block}.primary{background:#007a5a;border-color:#007a5a;color:#fff}.danger{background:#e01e5a;border-color:#e01e5a;color:#fff}
.side{font-weight:400;font-size:15px;border:0}.mention{background:#e8f5fa;color:#1264a3;font-weight:700}.thread{border-left:2px solid #ddd;margin:6px 0 0 8px;padding-left:10px}.reply{margin:3px 0}.type{display:flex;gap:8px;margin-top:16px}.type input{flex:1;padding:8px;font:inherit}
.shade{position:fixed;inset:0;background:#0008;display:grid;place-items:center;padding:10px;overflow:auto}.dialog{background:#fff;border-radius:8px;padding:14px 18px;width:min(520px,100%);max-height:94vh;overflow:auto}.dialog h2{font-size:20px;margin:0 0 8px;display:flex;justify-content:space-between}.x{border:0;font-size:20px}
label{display:block;margin:10px 0 2px}label input,label textarea,label select{display:block;width:100%;font:inherit;padding:6px 8px;border:1px solid #868686;border-radius:4px;margin-top:3px}.error{color:#c01343;margin:2px 0}.end{text-align:right;margin:14px 0 0}hr{border:0;border-top:1px solid #ddd}
@media(max-width:560px){.cols{display:block}nav{display:flex;flex-wrap:wrap;gap:4px}.side{width:auto}main{padding:8px}}`;

/** Comes again when something changed, unless somebody is typing. */
const script = `setInterval(async()=>{if(document.querySelector('.dialog')||document.querySelector('.type input[name=text]')?.value)return;const now=await(await fetch('/version')).text();if(now!==document.body.dataset.version)location.reload()},500)`;
