/**
 * A Slack of our own on 127.0.0.1, for tests and for the demo: it speaks the Web API with Slack's documented limits and
 * errors, signs what it sends, has a page on which its messages can be read and pressed, and can be slow, down or lossy.
 * It is not Slack: what it lets through, Slack may still refuse.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Answer, answerTo, type SlackChannel, type SlackMessage, type SlackUser, type SlackView, type Workspace } from './slack-double-api.ts';
import { argsOf, bodyOf, parsed, type Values, valuesOf } from './slack-double-forms.ts';
import { faultsOfBlocks, faultsOfView, isPart, type Part, partsOf, textOf } from './slack-double-limits.ts';
import { type Pressable, servePage } from './slack-double-page.ts';
import { type SocketSide, socketSide } from './slack-double-socket.ts';

export interface SlackDoubleOptions {
  readonly users: readonly SlackUser[];
  readonly channels: readonly SlackChannel[];
  readonly workspace?: string;
  readonly signingSecret?: string;
  readonly botToken?: string;
  readonly appToken?: string;
  readonly burst?: number;
  readonly updatesPerMinute?: number;
  readonly port?: number;
}

export interface Call {
  readonly method: string;
  readonly args: Part;
  readonly body: string;
  readonly at: number;
  readonly error: string | undefined;
}

/** What the app answered to something that the double sent. */
export interface Delivered {
  readonly status: number;
  readonly text: string;
  readonly ms: number;
}

/** What stands in the way; nothing unless said. */
export interface SlackFaults {
  /** Connections are cut, or calls never answered. */
  down?: 'refuse' | 'hang' | undefined;
  slowMs?: number | undefined;
  /** This many calls are done, and their answers lost. */
  loseAnswers?: number | undefined;
}

const patienceMs = 3_000;

export class SlackDouble implements Workspace, Pressable {
  readonly id: string;
  token: string;
  revoked = false;
  readonly users: Map<string, SlackUser>;
  readonly channels: Map<string, SlackChannel>;
  readonly messages: SlackMessage[] = [];
  readonly dialogs = new Map<string, SlackView>();
  readonly homes = new Map<string, SlackView>();
  readonly triggers = new Map<string, { readonly user: string; readonly until: number }>();
  readonly buckets = new Map<string, { left: number; at: number }>();
  readonly burst: number;
  readonly updatesPerMinute: number;
  readonly signingSecret: string;
  readonly appToken: string;
  readonly faults: SlackFaults = {};
  /** Every call that reached it, oldest first. */
  readonly calls: Call[] = [];
  /** What a user would see as Slack's own complaint: the app did not answer, or not in a form that is taken. */
  readonly complaints: string[] = [];
  readonly socket: SocketSide = socketSide();
  #server: Server;
  #target: string | undefined;
  #lastTs = 0;
  #count = 0;

  constructor(options: SlackDoubleOptions) {
    this.id = options.workspace ?? 'T0DOUBLE';
    this.token = options.botToken ?? `xoxb-${randomBytes(16).toString('hex')}`;
    this.appToken = options.appToken ?? `xapp-${randomBytes(16).toString('hex')}`;
    this.signingSecret = options.signingSecret ?? randomBytes(16).toString('hex');
    this.users = new Map(options.users.map((user) => [user.id, { ...user }]));
    this.channels = new Map(options.channels.map((channel) => [channel.id, { ...channel }]));
    this.burst = options.burst ?? 5;
    this.updatesPerMinute = options.updatesPerMinute ?? 50;
    this.#server = createServer((request, response) => void this.#serve(request, response));
    this.#server.on('upgrade', (request, socket) => this.socket.accept(request, socket));
  }

  /** Starts one. `deliverTo` says where it sends what its users do. */
  static async start(options: SlackDoubleOptions): Promise<SlackDouble> {
    const double = new SlackDouble(options);
    await new Promise<void>((resolve, reject) => {
      double.#server.once('error', reject);
      double.#server.listen(options.port ?? 0, '127.0.0.1', resolve);
    });
    return double;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  get apiUrl(): string {
    return `${this.url}/api/`;
  }
  /** The app's request URL. Without it everything goes over the app's socket. */
  deliverTo(url: string | undefined): void {
    this.#target = url;
  }
  async close(): Promise<void> {
    this.socket.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  nextTs(): string {
    this.#lastTs = Math.max(this.#lastTs + 1, Date.now() * 1_000);
    return `${Math.floor(this.#lastTs / 1e6)}.${String(this.#lastTs % 1e6).padStart(6, '0')}`;
  }
  newId(letter: string): string {
    this.#count += 1;
    return `${letter}0${String(this.#count).padStart(8, '0')}`;
  }
  #trigger(user: string): string {
    const id = `${this.#count}.${randomBytes(12).toString('hex')}`;
    this.triggers.set(id, { user, until: Date.now() + patienceMs });
    return id;
  }

  /** The messages that a user sees in a channel or by direct message, oldest first. */
  messagesIn(channel: string, user?: string): SlackMessage[] {
    const ids = new Set([channel, ...[...this.channels.values()].filter((one) => one.user === channel).map((one) => one.id)]);
    return this.messages.filter((one) => ids.has(one.channel) && (one.onlyFor === undefined || one.onlyFor === user)).sort((a, b) => (a.ts < b.ts ? -1 : 1));
  }

  /** A user presses a button of a message, or of their dialog or home. */
  async press(user: string, where: SlackMessage | SlackView, actionId: string, value?: string): Promise<Delivered> {
    const blocks = 'view' in where ? partsOf(where.view['blocks']) : where.blocks;
    const found = blocks
      .flatMap((block) => [...partsOf(block['elements']), ...(isPart(block['accessory']) ? [block['accessory']] : [])])
      .find((one) => one['action_id'] === actionId);
    if (!found) throw new Error(`there is no button ${actionId} to press`);
    const action = { type: 'button', action_id: actionId, block_id: 'b', value: value ?? found['value'], action_ts: this.nextTs() };
    const at =
      'view' in where
        ? { container: { type: 'view', view_id: where.id }, view: { ...where.view, id: where.id, state: { values: {} } } }
        : {
            container: { type: 'message', message_ts: where.ts, channel_id: where.channel, is_ephemeral: where.onlyFor !== undefined },
            channel: { id: where.channel, name: this.channels.get(where.channel)?.name ?? '' },
            message: { type: 'message', ts: where.ts, text: where.text, blocks: where.blocks },
          };
    return this.#interaction({ type: 'block_actions', ...this.#who(user), trigger_id: this.#trigger(user), actions: [action], ...at });
  }

  /** A user submits their open dialog. The app's answer changes, closes or complains about it. */
  async submit(user: string, values: Values): Promise<Delivered> {
    const dialog = this.dialogs.get(user);
    if (!dialog) throw new Error(`${user} has no dialog open`);
    dialog.typed = values;
    const delivered = await this.sendSubmission(user, dialog, values);
    if (delivered.status === 200) this.#takeViewAnswer(dialog, delivered.text);
    return delivered;
  }

  /** The same without what follows from the answer: for a second submit of what was open before. */
  async sendSubmission(user: string, dialog: SlackView, values: Values): Promise<Delivered> {
    const view = { ...dialog.view, id: dialog.id, hash: 'h', state: { values: valuesOf(dialog.view, values) }, app_id: 'A0DOUBLE', team_id: this.id };
    return this.#interaction({ type: 'view_submission', ...this.#who(user), trigger_id: this.#trigger(user), view, response_urls: [] });
  }

  /** A user types a slash command. What the app answers at once is shown to them alone. */
  async command(user: string, command: string, text = '', channel = [...this.channels.keys()][0] ?? ''): Promise<Delivered> {
    const name = this.users.get(user)?.name ?? '';
    const fields = {
      token: 'old',
      team_id: this.id,
      team_domain: 'double',
      channel_id: channel,
      channel_name: 'c',
      user_id: user,
      user_name: name,
      command,
      text,
      api_app_id: 'A0DOUBLE',
      is_enterprise_install: 'false',
      response_url: `${this.url}/respond`,
      trigger_id: this.#trigger(user),
    };
    const delivered = await this.#deliver('slash_commands', fields, new URLSearchParams(fields).toString(), 'application/x-www-form-urlencoded');
    if (delivered.status !== 200) return delivered;
    const answer = parsed(delivered.text) ?? { text: delivered.text };
    if (textOf(answer['text']) === '') return delivered;
    if (answer['blocks'] !== undefined) this.complaints.push(...faultsOfBlocks(answer['blocks'], 'message'));
    this.messages.push({ channel, ts: this.nextTs(), text: textOf(answer['text']), blocks: partsOf(answer['blocks']), onlyFor: user, edits: 0 });
    return delivered;
  }

  /** A user takes a global shortcut. */
  shortcut(user: string, callbackId: string): Promise<Delivered> {
    return this.#interaction({ type: 'shortcut', ...this.#who(user), callback_id: callbackId, trigger_id: this.#trigger(user), action_ts: this.nextTs() });
  }

  /** A user opens the app's home. */
  async openHome(user: string): Promise<Delivered> {
    const body = {
      token: 'old',
      team_id: this.id,
      api_app_id: 'A0DOUBLE',
      type: 'event_callback',
      event_id: this.newId('Ev'),
      event_time: Math.floor(Date.now() / 1_000),
      authorizations: [{ enterprise_id: null, team_id: this.id, user_id: 'U0HALLIGAN', is_bot: true, is_enterprise_install: false }],
      event: { type: 'app_home_opened', user, channel: 'D0', tab: 'home', event_ts: this.nextTs() },
    };
    return this.#deliver('events_api', body, JSON.stringify(body), 'application/json');
  }

  /** The headers with which Slack would send this body now, or at another time. */
  signed(body: string, at = Math.floor(Date.now() / 1_000), secret = this.signingSecret): Record<string, string> {
    const signature = createHmac('sha256', secret).update(`v0:${at}:${body}`).digest('hex');
    return { 'x-slack-signature': `v0=${signature}`, 'x-slack-request-timestamp': String(at) };
  }

  #who(user: string) {
    const { name = '' } = this.users.get(user) ?? {};
    return {
      team: { id: this.id, domain: 'double' },
      user: { id: user, username: name, name, team_id: this.id },
      api_app_id: 'A0DOUBLE',
      token: 'old',
      enterprise: null,
      is_enterprise_install: false,
    };
  }
  #interaction(payload: object): Promise<Delivered> {
    return this.#deliver('interactive', payload, new URLSearchParams({ payload: JSON.stringify(payload) }).toString(), 'application/x-www-form-urlencoded');
  }

  async #deliver(kind: 'interactive' | 'slash_commands' | 'events_api', payload: object, body: string, type: string): Promise<Delivered> {
    const began = performance.now();
    const took = () => Math.round(performance.now() - began);
    if (this.#target === undefined) {
      const answer = await this.socket.envelope(kind, payload);
      if (!answer) this.complaints.push('the app did not acknowledge within 3 s');
      return { status: answer ? 200 : 504, text: answer?.payload === undefined ? '' : JSON.stringify(answer.payload), ms: took() };
    }
    try {
      const headers = { 'content-type': type, ...this.signed(body) };
      const response = await fetch(this.#target, { method: 'POST', headers, body, signal: AbortSignal.timeout(patienceMs) });
      const text = await response.text();
      if (!response.ok) this.complaints.push(`the app answered ${response.status}`);
      return { status: response.status, text, ms: took() };
    } catch (error) {
      this.complaints.push(`the app did not answer: ${(error as Error).message}`);
      return { status: 504, text: '', ms: took() };
    }
  }

  #takeViewAnswer(dialog: SlackView, text: string): void {
    const answer = parsed(text);
    const action = answer?.['response_action'];
    if (!answer || action === undefined || action === 'clear') {
      this.dialogs.delete(dialog.user);
      return;
    }
    if (action === 'errors') dialog.errors = answer['errors'] as Record<string, string>;
    else if (action === 'update') {
      this.complaints.push(...faultsOfView(answer['view']));
      Object.assign(dialog, { view: answer['view'], errors: {}, typed: {} });
    } else this.complaints.push(`response_action ${String(action)} is not known`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!request.url?.startsWith('/api/')) return servePage(this, request, response);
    const body = await bodyOf(request);
    const { down, slowMs } = this.faults;
    if (down === 'refuse') return void request.socket.destroy();
    if (down === 'hang') return;
    if (slowMs) await new Promise((resolve) => setTimeout(resolve, slowMs));
    const method = request.url.slice('/api/'.length);
    const args = argsOf(body, request.headers['content-type'] ?? '');
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? (typeof args['token'] === 'string' ? args['token'] : undefined);
    const answer: Answer =
      method === 'apps.connections.open' && bearer === this.appToken
        ? { ok: true, url: `${this.url.replace('http', 'ws')}/socket` }
        : answerTo(this, method, args, bearer);
    this.calls.push({ method, args, body, at: Date.now(), error: answer.error });
    if (this.faults.loseAnswers) {
      this.faults.loseAnswers -= 1;
      return void request.socket.destroy();
    }
    const { retryAfter, ...rest } = answer;
    if (retryAfter !== undefined) response.writeHead(429, { 'retry-after': String(retryAfter), 'content-type': 'application/json' });
    else response.writeHead(200, { 'content-type': 'application/json', 'x-oauth-scopes': 'chat:write,commands,im:write' });
    response.end(JSON.stringify(rest));
  }
}
