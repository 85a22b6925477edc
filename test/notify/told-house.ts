/**
 * A house without its own workers, whose notifier a test drives by hand; and channels that keep what they are given. Real mail and
 * real webhooks have tests of their own: here it is about what becomes a message, for whom, and when.
 */
import { randomBytes } from 'node:crypto';
import type { RouteStep } from '../../src/domain/notice.ts';
import type { Channel, ChannelName, Delivery, Story } from '../../src/notify/channel.ts';
import { headline } from '../../src/notify/words.ts';
import { type Notifier, type NotifyParts, notifier } from '../../src/workers/notify.ts';
import { type House, type HouseOptions, startTestHouse, until } from '../support/house.ts';

export interface Message {
  readonly channel: ChannelName;
  readonly form: Delivery['form'];
  readonly address: string;
  readonly type: Story['type'];
  readonly request: string;
  readonly headline: string;
  readonly id: string;
  readonly cardRef: unknown;
}

/** A channel that takes everything unless `fault` says otherwise. */
export interface ChannelDouble extends Channel {
  readonly sent: Message[];
  /** Called before a message is taken; what it throws is the channel's answer. */
  fault: ((delivery: Delivery, story: Story, signal: AbortSignal) => Promise<void> | void) | undefined;
  /** How many were on their way at once, at most. */
  most: number;
}

export function channelDouble(name: ChannelName, atOnce?: Channel['atOnce']): ChannelDouble {
  const sent: Message[] = [];
  let now = 0;
  const double: ChannelDouble = {
    name,
    ...(atOnce ? { atOnce } : {}),
    sent,
    fault: undefined,
    most: 0,
    async send(delivery, story, signal) {
      double.most = Math.max(double.most, ++now);
      try {
        await double.fault?.(delivery, story, signal);
        const { form, address, id, cardRef } = delivery;
        sent.push({ channel: name, form, address, type: story.type, request: story.request.id, headline: headline(story), id, cardRef });
        return { ref: { ts: String(sent.length) } };
      } finally {
        now--;
      }
    },
  };
  return double;
}

export const step = (places: Partial<RouteStep>): RouteStep => ({ afterSeconds: 0, slack: [], email: [], webhooks: [], ...places });

export interface ToldHouse {
  readonly house: House;
  readonly slack: ChannelDouble;
  readonly email: ChannelDouble;
  readonly webhook: ChannelDouble;
  readonly routes: Map<string, readonly RouteStep[]>;
  /** Spreads and sends all that is due, and waits until nothing is on its way. */
  tell(): Promise<void>;
  /** A notifier more, as another process would have it. */
  another(more?: Partial<NotifyParts>): Notifier;
  /** What was sent about this request since the last call, as `channel form address type`. */
  news(request: string): string[];
  query<T extends object>(sql: string, ...values: unknown[]): Promise<T[]>;
  /** Gives a person a mail address, a Slack account, or neither. */
  reach(subject: string, how: { email?: string; slack?: string }): Promise<string>;
  close(): Promise<void>;
}

export async function startToldHouse(options: HouseOptions = {}): Promise<ToldHouse> {
  process.env['TEST_HOOK_SECRET'] = `whsec_${randomBytes(24).toString('base64')}`;
  const house = await startTestHouse({
    worker: false,
    // A config that tells somebody, so that commands write notices down; where it goes is said by the tests' own routes.
    tell: `email: { host: 127.0.0.1, port: 9, tls: none, from: halligan@example.com }\nnotify: [ { email: [team@example.com] } ]`,
    ...options,
  });
  const [slack, email, webhook] = [channelDouble('slack'), channelDouble('email'), channelDouble('webhook', { all: 16, each: 2 })];
  const routes = new Map<string, readonly RouteStep[]>();
  const another = (more: Partial<NotifyParts> = {}): Notifier =>
    notifier(house.running.ctx, { channels: [slack, email, webhook], routes, workspace: 'T0TEST', serverUrl: new URL(house.url), ...more });
  const main = another();
  const query = async <T extends object>(sql: string, ...values: unknown[]): Promise<T[]> => (await house.database.superuser.query<T>(sql, values)).rows;
  let read = { slack: 0, email: 0, webhook: 0 };
  return {
    house,
    slack,
    email,
    webhook,
    routes,
    another,
    query,
    async tell() {
      await until('everything that is due is sent', async () => {
        await main.run();
        const due = await query(
          `SELECT FROM delivery d WHERE state = 'waiting' AND next_try_at <= now() AND (card_id IS NULL OR EXISTS (SELECT FROM delivery c WHERE c.id = d.card_id AND c.state <> 'waiting'))`,
        );
        return due.length === 0;
      });
    },
    news(request) {
      const all = [slack, email, webhook].flatMap((channel) => channel.sent.slice(read[channel.name]));
      read = { slack: slack.sent.length, email: email.sent.length, webhook: webhook.sent.length };
      return all.filter((one) => one.request === request).map((one) => `${one.channel} ${one.form} ${one.address} ${one.type}`);
    },
    async reach(subject, { email: address, slack: account }) {
      await house.tokenOf(subject);
      const { id } = await house.actor(subject);
      await query('UPDATE person SET email = $2 WHERE id = $1', id, address ?? null);
      await query('DELETE FROM alias WHERE person_id = $1', id);
      if (account) await query(`INSERT INTO alias (kind, workspace, account, person_id) VALUES ('slack', 'T0TEST', $2, $1)`, id, account);
      return id;
    },
    async close() {
      await main.stop();
      await house.close();
    },
  };
}
