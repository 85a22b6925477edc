/** Slack as a way of telling people: cards, their rewriting, and lines in their threads. It decides nothing. */
import type { Ctx } from '../commands/context.ts';
import type { Json } from '../domain/canonical.ts';
import { type Channel, type Delivery, DeliveryFault, type Story } from '../notify/channel.ts';
import { type SlackApi, SlackFault, tokenFaults } from './api.ts';
import { inert } from './blocks.ts';
import { handlesNeeded, holderCard, type Message, replyOf, requestCard } from './cards.ts';
import { checkSlack } from './check.ts';
import { newHandle } from './handles.ts';
import { slackMayDecide } from './may-decide.ts';

interface Pace {
  readonly burst: number;
  readonly everyMs: number;
}
/** Slack takes about one message a second in each channel, and short bursts. */
const posting: Pace = { burst: 4, everyMs: 1_050 };
/** And of rewritings fifty a minute in all (chat.update, tier 3). */
const updating: Pace = { burst: 20, everyMs: 1_250 };
/** A turn that comes sooner is waited for; a later one is taken up by the next try, so that no lane stands still. */
const patienceMs = 1_500;

/** What says that the place is gone or closed, or will never take such a message; in words for the request's page. */
const placeFaults: Readonly<Record<string, string>> = {
  channel_not_found: 'there is no such channel, or Halligan was not invited to it',
  not_in_channel: 'Halligan is not in the channel: invite it there',
  is_archived: 'the channel is archived',
  user_not_found: 'there is no such user',
  user_disabled: 'the account is deactivated',
  cannot_dm_bot: 'the account is a bot',
  message_not_found: 'the message was deleted',
  cant_update_message: 'the message is not ours to change',
  edit_window_closed: 'Slack lets nobody change the message any more',
  restricted_action: 'the workspace does not let Halligan write there',
  messages_tab_disabled: "messages to people are switched off in the app's home",
  invalid_blocks: 'Slack did not take its form',
  invalid_arguments: 'Slack did not take its form',
  msg_too_long: 'it is too long for Slack',
};

/** The channel `slack`. */
export function slackChannel({
  ctx,
  api,
  workspace,
}: {
  readonly ctx: Pick<Ctx, 'db' | 'policy'>;
  readonly api: SlackApi;
  readonly workspace: string;
}): Channel {
  const turns = turnsOf();
  const direct = new Map<string, string>();

  /** Messages to a person go where Slack keeps those with us. */
  const placeOf = async (address: string): Promise<string> => {
    if (!/^[UW]/.test(address)) return address;
    const known = direct.get(address);
    if (known !== undefined) return known;
    const { channel } = await api.call('conversations.open', { users: address });
    const id = typeof channel === 'object' ? channel.id : undefined;
    if (id === undefined) throw new SlackFault('no_answer', 'Slack did not say where messages to this person go');
    direct.set(address, id);
    if (direct.size > 10_000) direct.clear();
    return id;
  };

  const post = async (delivery: Delivery, message: Message, threadTs?: string): Promise<{ ref: Json }> => {
    const channel = threadTs === undefined ? await placeOf(delivery.address) : refOf(delivery).channel;
    await turns.take(channel, delivery.id, posting);
    try {
      const { ts = '' } = await api.call('chat.postMessage', { channel, ...message, ...inert, ...(threadTs === undefined ? {} : { thread_ts: threadTs }) });
      return { ref: { channel, ts } };
    } catch (error) {
      if (error instanceof SlackFault && error.retryAfterSeconds !== undefined) turns.hold(channel, error.retryAfterSeconds * 1_000);
      throw error;
    }
  };

  const deliver = async (delivery: Delivery, story: Story): Promise<{ ref?: Json }> => {
    if (delivery.form === 'reply') return post(delivery, replyOf(story), refOf(delivery).ts);
    if (delivery.form === 'card' && delivery.personId === story.request.person.id) return post(delivery, holderCard(story));
    if (delivery.form === 'card') return post(delivery, await cardOf(ctx, story));
    const { channel, ts } = refOf(delivery);
    await turns.take('chat.update', delivery.id, updating);
    const message = await cardOf(ctx, story);
    await api.call('chat.update', { channel, ts, ...message, ...inert });
    return { ref: { channel, ts } };
  };

  return {
    name: 'slack',
    atOnce: { all: 8, each: 1 },
    check: () => checkSlack(api, workspace),
    async send(delivery, story, signal) {
      const late = new Promise<never>((_, reject) =>
        signal.addEventListener('abort', () => reject(new DeliveryFault('Slack did not answer in time')), { once: true }),
      );
      late.catch(() => undefined);
      try {
        return await Promise.race([deliver(delivery, story), late]);
      } catch (error) {
        throw asDeliveryFault(error);
      }
    },
  };
}

async function cardOf(ctx: Pick<Ctx, 'db' | 'policy'>, story: Story): Promise<Message> {
  const { request } = story;
  const decidesHere = request.state === 'pending' && (await slackMayDecide(ctx, request.id));
  const needs = handlesNeeded(request, decidesHere);
  const secondsUntil = (at: Date) => (at.getTime() - Date.now()) / 1_000;
  const decide = needs.decide
    ? await newHandle(ctx.db, { purpose: 'decide', requestId: request.id, seconds: secondsUntil(request.lapsesAt) + 86_400 })
    : undefined;
  const end =
    needs.end && request.grant
      ? await newHandle(ctx.db, { purpose: 'end', requestId: request.id, grantId: request.grant.id, seconds: secondsUntil(request.grant.endsAt) + 86_400 })
      : undefined;
  return requestCard(story, { decide, end }, decidesHere);
}

function refOf({ cardRef }: Delivery): { readonly channel: string; readonly ts: string } {
  const { channel, ts } = (cardRef ?? {}) as { channel?: unknown; ts?: unknown };
  if (typeof channel !== 'string' || typeof ts !== 'string')
    throw new DeliveryFault('Slack never said where the message is that this belongs to', { final: true });
  return { channel, ts };
}

function asDeliveryFault(error: unknown): DeliveryFault {
  if (error instanceof DeliveryFault) return error;
  if (!(error instanceof SlackFault)) return new DeliveryFault(error instanceof Error ? error.message : String(error));
  const { code, message, retryAfterSeconds } = error;
  if (retryAfterSeconds !== undefined) return new DeliveryFault(message, { retryAt: new Date(Date.now() + retryAfterSeconds * 1_000), placeOnly: true });
  if (tokenFaults.has(code)) return new DeliveryFault(message);
  const place = placeFaults[code];
  return place === undefined ? new DeliveryFault(message) : new DeliveryFault(`${place} (${code})`, { final: true });
}

/**
 * Whose turn it is in each channel, and for rewritings. A message whose turn is far off is told when it comes and keeps its turn, so that
 * hundreds at once go out one after the other, without calls that Slack would refuse and without holding others up.
 */
function turnsOf() {
  const free = new Map<string, number>();
  const promised = new Map<string, number>();
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  return {
    async take(place: string, delivery: string, { burst, everyMs }: Pace): Promise<void> {
      const now = Date.now();
      const kept = promised.get(delivery);
      const next = Math.max(free.get(place) ?? 0, now - burst * everyMs);
      const turn = kept ?? next;
      if (kept === undefined) free.set(place, next + everyMs);
      const wait = turn - now;
      if (wait <= patienceMs) {
        promised.delete(delivery);
        if (wait > 0) await sleep(wait);
        return;
      }
      promised.set(delivery, turn);
      if (promised.size > 20_000) promised.clear();
      throw new DeliveryFault('it waits for its turn: Slack takes no more at once', { retryAt: new Date(turn), placeOnly: true });
    },
    /** Slack said to wait: nobody's turn is before that. */
    hold(channel: string, ms: number): void {
      free.set(channel, Math.max(free.get(channel) ?? 0, Date.now() + ms));
    },
  };
}
