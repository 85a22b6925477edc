/** What a way of telling people must do. Formatting and delivery, nothing else: a channel decides nothing and changes no request. */
import type { RequestView } from '../db/read-models/requests.ts';
import type { Json } from '../domain/canonical.ts';
import type { NoticeType } from '../domain/notice.ts';

export type ChannelName = 'slack' | 'email' | 'webhook';

/** One message to one place. */
export interface Delivery {
  readonly id: string;
  readonly channel: ChannelName;
  /** `card`: a message of its own; `update`: the card is written again; `reply`: one more line under the card. */
  readonly form: 'card' | 'update' | 'reply';
  /** A Slack channel or user, a mail address, the name of a webhook. */
  readonly address: string;
  /** Whom it is for, where that is one person. */
  readonly personId: string | null;
  /** What the other side called the card that this follows. */
  readonly cardRef: Json | null;
  /** Attempts before this one. */
  readonly tries: number;
}

/** What there is to tell, read when it is sent: a message that comes late says what is true then. */
export interface Story {
  readonly noticeId: string;
  readonly type: NoticeType;
  /** When it happened. */
  readonly at: Date;
  readonly grantId: string | null;
  readonly leaseId: string | null;
  readonly request: RequestView;
  /** The request's page. */
  readonly url: string;
}

/** What stands in the way of a channel, for `halligan doctor`. */
export interface ChannelTrouble {
  readonly place: string;
  readonly message: string;
  readonly next: string;
}

export interface Channel {
  readonly name: ChannelName;
  /** The most messages on their way at once: of the channel, and to one address. Four and two unless said. */
  readonly atOnce?: { readonly all: number; readonly each: number };
  /** Sends one message and returns what the other side calls it, where it does. Ends by its signal. Throws `DeliveryFault`. */
  send(delivery: Delivery, story: Story, signal: AbortSignal): Promise<{ readonly ref?: Json }>;
  /** What would keep it from sending now; sends nothing. */
  check?(signal: AbortSignal): Promise<ChannelTrouble[]>;
  close?(): Promise<void>;
}

/** A message that was not taken. `message` is shown to people and holds no secret. */
export class DeliveryFault extends Error {
  /** Trying again is no use: the place is gone, or will never take it. */
  readonly final: boolean;
  /** Not before this: the other side asked for it. */
  readonly retryAt: Date | undefined;
  /** The other side asked everybody to slow down, not this message alone: the whole channel waits until `retryAt`. */
  readonly pause: boolean;
  /** It says something about this one place and nothing about the channel. */
  readonly placeOnly: boolean;
  constructor(message: string, more: { final?: boolean; retryAt?: Date; pause?: boolean; placeOnly?: boolean } = {}) {
    super(message);
    this.name = 'DeliveryFault';
    this.final = more.final ?? false;
    this.retryAt = more.retryAt;
    this.pause = more.pause ?? false;
    this.placeOnly = more.placeOnly ?? this.final;
  }
}
