/** The Web API's side of the Slack double: each method that Halligan uses, with the errors that Slack documents for it. */
import { faultsOfBlocks, faultsOfView, isPart, type Part, textOf } from './slack-double-limits.ts';

export interface SlackUser {
  readonly id: string;
  readonly name: string;
  disabled?: boolean;
}

export interface SlackChannel {
  readonly id: string;
  readonly name: string;
  archived?: boolean;
  /** The bot was never invited, or was removed. */
  botIsOut?: boolean;
  /** For a direct message: whose it is. */
  readonly user?: string;
}

export interface SlackMessage {
  readonly channel: string;
  readonly ts: string;
  text: string;
  blocks: readonly Part[];
  readonly threadTs?: string | undefined;
  /** Shown to this user only. */
  readonly onlyFor?: string | undefined;
  edits: number;
}

export interface SlackView {
  readonly id: string;
  view: Part;
  readonly user: string;
  /** What the app said is wrong with what was submitted, by block. */
  errors: Readonly<Record<string, string>>;
  /** What was typed, while the app complains about it. */
  typed?: Readonly<Record<string, string | readonly string[]>>;
}

/** Everything that stands in the double's workspace. */
export interface Workspace {
  readonly id: string;
  token: string;
  revoked: boolean;
  readonly users: Map<string, SlackUser>;
  readonly channels: Map<string, SlackChannel>;
  readonly messages: SlackMessage[];
  /** The dialog that each user has open. */
  readonly dialogs: Map<string, SlackView>;
  readonly homes: Map<string, SlackView>;
  readonly triggers: Map<string, { readonly user: string; readonly until: number }>;
  /** Messages that a channel takes at once, and then one a second. */
  readonly burst: number;
  /** Changes of messages that the workspace takes in a minute. */
  readonly updatesPerMinute: number;
  readonly buckets: Map<string, { left: number; at: number }>;
  nextTs(): string;
  newId(letter: string): string;
}

export type Answer = { readonly ok: boolean; readonly error?: string; readonly retryAfter?: number } & Readonly<Record<string, unknown>>;

const no = (error: string, more: object = {}): Answer => ({ ok: false, error, ...more });

type Method = (at: Workspace, args: Part) => Answer;

/** What Slack would answer to this call. A rate limit is an answer with `retryAfter`, in seconds. */
export function answerTo(at: Workspace, method: string, args: Part, bearer: string | undefined): Answer {
  if (bearer === undefined) return no('not_authed');
  if (method === 'apps.connections.open') return { ok: true, url: '' };
  if (bearer !== at.token) return no('invalid_auth');
  if (at.revoked) return no('token_revoked');
  return methods[method]?.(at, args) ?? no('unknown_method');
}

/** Takes one from a bucket of so many, which fills again at `perSecond`; gives the seconds to wait when it is empty. */
function takeFrom(at: Workspace, key: string, most: number, perSecond: number): number {
  const now = Date.now();
  const bucket = at.buckets.get(key) ?? { left: most, at: now };
  bucket.left = Math.min(most, bucket.left + ((now - bucket.at) / 1_000) * perSecond);
  bucket.at = now;
  at.buckets.set(key, bucket);
  if (bucket.left < 1) return Math.max(1, Math.ceil((1 - bucket.left) / perSecond));
  bucket.left -= 1;
  return 0;
}

/** The conversation that a message for `id` goes to: a channel, or the direct message with a user. */
function placeOf(at: Workspace, id: string): SlackChannel | Answer {
  const user = at.users.get(id);
  if (user) return directWith(at, user);
  const channel = at.channels.get(id);
  if (!channel) return no('channel_not_found');
  if (channel.archived) return no('is_archived');
  if (channel.botIsOut) return no('not_in_channel');
  if (channel.user !== undefined && at.users.get(channel.user)?.disabled) return no('user_disabled');
  return channel;
}

function directWith(at: Workspace, user: SlackUser): SlackChannel | Answer {
  if (user.disabled) return no('user_disabled');
  for (const channel of at.channels.values()) if (channel.user === user.id) return channel;
  const channel = { id: at.newId('D'), name: user.name, user: user.id };
  at.channels.set(channel.id, channel);
  return channel;
}

const isAnswer = (value: SlackChannel | Answer): value is Answer => 'ok' in value;

function faultOfMessage(args: Part): Answer | undefined {
  const { text, blocks } = args;
  if (blocks !== undefined) {
    const faults = faultsOfBlocks(blocks, 'message');
    if (faults.length > 0) return no('invalid_blocks', { response_metadata: { messages: faults.map((fault) => `[ERROR] ${fault}`) } });
  }
  // Slack takes blocks without text and warns; screen readers and notifications then have nothing, so the double refuses it.
  if (textOf(text) === '') return no('no_text');
  return textOf(text).length > 40_000 ? no('msg_too_long') : undefined;
}

const blocksOf = (args: Part): Part[] => (Array.isArray(args['blocks']) ? args['blocks'].filter(isPart) : []);

function post(at: Workspace, args: Part, onlyFor?: string): Answer {
  const channel = placeOf(at, textOf(args['channel']));
  if (isAnswer(channel)) return channel;
  const fault = faultOfMessage(args);
  if (fault) return fault;
  const retryAfter = takeFrom(at, `post ${channel.id}`, at.burst, 1);
  if (retryAfter > 0) return no('ratelimited', { retryAfter });
  const threadTs = args['thread_ts'] === undefined ? undefined : textOf(args['thread_ts']);
  const ts = at.nextTs();
  at.messages.push({ channel: channel.id, ts, text: textOf(args['text']), blocks: blocksOf(args), threadTs, onlyFor, edits: 0 });
  return onlyFor === undefined ? { ok: true, channel: channel.id, ts, message: { ts } } : { ok: true, message_ts: ts };
}

function open(at: Workspace, args: Part): SlackView | Answer {
  const triggerId = textOf(args['trigger_id']);
  const trigger = at.triggers.get(triggerId);
  if (!trigger) return no('invalid_trigger_id');
  at.triggers.delete(triggerId);
  if (Date.now() > trigger.until) return no('expired_trigger_id');
  return faultOfView(args['view']) ?? { id: at.newId('V'), view: args['view'] as Part, user: trigger.user, errors: {} };
}

function faultOfView(view: unknown): Answer | undefined {
  const faults = faultsOfView(view);
  return faults.length === 0 ? undefined : no('invalid_arguments', { response_metadata: { messages: faults.map((fault) => `[ERROR] ${fault}`) } });
}

const shown = (view: SlackView) => ({ ok: true, view: { ...view.view, id: view.id } });

const methods: Readonly<Record<string, Method>> = {
  'auth.test': (at) => ({
    ok: true,
    url: 'https://double.invalid/',
    team: 'Double',
    team_id: at.id,
    user_id: 'U0HALLIGAN',
    bot_id: 'B0HALLIGAN',
    app_id: 'A0DOUBLE',
  }),
  'chat.postMessage': (at, args) => post(at, args),
  'chat.postEphemeral': (at, args) => (at.users.has(textOf(args['user'])) ? post(at, args, textOf(args['user'])) : no('user_not_in_channel')),
  'chat.update'(at, args) {
    const channel = placeOf(at, textOf(args['channel']));
    if (isAnswer(channel)) return channel;
    const message = at.messages.find((one) => one.channel === channel.id && one.ts === args['ts'] && one.onlyFor === undefined);
    if (!message) return no('message_not_found');
    const fault = faultOfMessage(args);
    if (fault) return fault;
    const retryAfter = takeFrom(at, 'update', at.updatesPerMinute, at.updatesPerMinute / 60);
    if (retryAfter > 0) return no('ratelimited', { retryAfter });
    Object.assign(message, { text: textOf(args['text']), blocks: blocksOf(args), edits: message.edits + 1 });
    return { ok: true, channel: channel.id, ts: message.ts };
  },
  'conversations.open'(at, args) {
    const user = at.users.get(textOf(args['users']));
    if (!user) return no('user_not_found');
    const channel = directWith(at, user);
    return isAnswer(channel) ? channel : { ok: true, channel: { id: channel.id } };
  },
  'users.info'(at, args) {
    const user = at.users.get(textOf(args['user']));
    return user ? { ok: true, user: { id: user.id, name: user.name, deleted: user.disabled ?? false } } : no('user_not_found');
  },
  'views.open'(at, args) {
    const view = open(at, args);
    if ('ok' in view) return view;
    at.dialogs.set(view.user, view);
    return shown(view);
  },
  'views.update'(at, args) {
    const view = [...at.dialogs.values()].find((one) => one.id === args['view_id']);
    if (!view) return no('not_found');
    const fault = faultOfView(args['view']);
    if (fault) return fault;
    Object.assign(view, { view: args['view'], errors: {} });
    return shown(view);
  },
  'views.publish'(at, args) {
    const user = textOf(args['user_id']);
    if (!at.users.has(user)) return no('user_not_found');
    const fault = faultOfView(args['view']);
    if (fault) return fault;
    at.homes.set(user, { id: at.newId('V'), view: args['view'] as Part, user, errors: {} });
    return { ok: true };
  },
};
