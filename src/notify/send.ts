/**
 * Sends what is due, each channel in a lane of its own: at least once, in order for what follows one card, again later when
 * it fails. A row is marked before the call, so that a crash repeats it and two processes do not.
 */
import type { Logger } from 'pino';
import type { Db } from '../db/pool.ts';
import { failpoint } from '../domain/failpoint.ts';
import type { Channel, ChannelName, Story } from './channel.ts';
import { DeliveryFault } from './channel.ts';
import { drop, markFailed, markSent, type Taken, take } from './delivery-rows.ts';
import { isOver } from './words.ts';

export interface LaneParts {
  readonly db: Db;
  readonly log: Logger;
  readonly channel: Channel;
  /** The story of a notice as it stands now. */
  readonly storyOf: (noticeId: string) => Promise<Story | undefined>;
  /** Called with a request when what is known of a message about it has changed. */
  readonly changed?: (requestId: string) => void;
  /** The most that one message may take, in milliseconds; ten seconds unless set. */
  readonly deadlineMs?: number;
}

export interface Lane {
  readonly name: ChannelName;
  /** Sends what is due, as many at once as the channel may; does not wait for them. */
  pump(): void;
  /** What the channel last said, when it does not work; null when it does. For webhooks, of those that do not. */
  trouble(): string | null;
  /** Takes no more, and gives what is being sent two more seconds. */
  stop(): Promise<void>;
}

export const sendDeadlineMs = 10_000;
/** A stop gives what is on its way this long, then lets it be sent again by the next start. */
const stopPatienceMs = 2_000;
const giveUpAfterMs = 24 * 3_600_000;
const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;
/** The schedule that Standard Webhooks recommends, counted from each failure. */
const webhookWaits = [5 * second, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour];

/** One lane. Nothing is sent before `pump`. */
export function sendingLane({ db, log, channel, storyOf, changed, deadlineMs = sendDeadlineMs }: LaneParts): Lane {
  const running = new Set<Promise<void>>();
  const { all, each } = channel.atOnce ?? { all: 4, each: 2 };
  const troubles = troublesOf(channel.name, log);
  const stopping = new AbortController();
  let stopped = false;
  let claiming: Promise<void> | undefined;
  let again = false;
  let pausedUntil = 0;
  const pauseUntil = (time: number): void => {
    pausedUntil = Math.max(pausedUntil, time);
  };
  const sender: Sender = { db, log, channel, storyOf, deadlineMs, troubles, stopping: stopping.signal, pauseUntil };

  const claim = async (): Promise<void> => {
    do {
      again = false;
      const room = all - running.size;
      if (stopped || room <= 0 || Date.now() < pausedUntil) return;
      const taken = await take(db, channel.name, { room, each, forMs: deadlineMs + 10_000 });
      for (const delivery of taken) {
        const one = sendOne(sender, delivery)
          .catch((error: unknown) =>
            log.error({ code: 'notify_not_recorded', delivery: delivery.id, why: (error as Error).message }, 'what became of a message was not recorded'),
          )
          .finally(() => {
            running.delete(one);
            if (delivery.form === 'card') changed?.(delivery.requestId);
            pump();
          });
        running.add(one);
      }
      if (taken.length === room) again = true;
    } while (again);
  };

  const pump = (): void => {
    again = true;
    if (stopped || claiming !== undefined) return;
    claiming = claim()
      .catch((error: unknown) => log.debug({ code: 'notify_claim_failed', why: (error as Error).message }, 'messages could not be read; the next round does'))
      .finally(() => {
        claiming = undefined;
        // Somebody asked while this one was on its way out.
        if (again) pump();
      });
  };

  return {
    name: channel.name,
    pump,
    trouble: troubles.now,
    async stop() {
      stopped = true;
      await claiming;
      const patience = setTimeout(() => stopping.abort(), stopPatienceMs);
      await Promise.allSettled(running);
      clearTimeout(patience);
      await channel.close?.();
    },
  };
}

/** What sending one message needs of its lane. */
interface Sender extends Pick<LaneParts, 'db' | 'log' | 'channel' | 'storyOf'> {
  readonly deadlineMs: number;
  readonly troubles: ReturnType<typeof troublesOf>;
  readonly stopping: AbortSignal;
  readonly pauseUntil: (time: number) => void;
}

/** Sends one message and records what became of it. Rejects only when that could not be recorded. */
async function sendOne({ db, log, channel, storyOf, deadlineMs, troubles, stopping, pauseUntil }: Sender, delivery: Taken): Promise<void> {
  try {
    const signal = AbortSignal.any([AbortSignal.timeout(deadlineMs), stopping]);
    const story = await storyOf(delivery.noticeId);
    if (!story) throw new DeliveryFault('what it tells of is gone', { final: true });
    if (isOver(story)) return await drop(db, delivery.id, 'it was over before this could be sent');
    await failpoint('notify.taken');
    const { ref } = await inTime(channel.send(delivery, story, signal), signal);
    await failpoint('notify.sent');
    await markSent(db, delivery.id, ref);
    troubles.end(delivery.address);
  } catch (error) {
    // Nobody knows whether it arrived: the next start sends it, with the same id.
    if (stopping.aborted) return await markFailed(db, delivery.id, 'Halligan was stopped while it was sent', second);
    const fault = error instanceof DeliveryFault ? error : new DeliveryFault(error instanceof Error ? error.message : String(error));
    if (fault.pause && fault.retryAt) pauseUntil(fault.retryAt.getTime());
    // Being asked to slow down is no trouble.
    if (!fault.placeOnly && !fault.pause) troubles.begin(delivery.address, fault.message);
    const wait = waitOf(channel.name, delivery, fault);
    await markFailed(db, delivery.id, fault.message, wait);
    if (wait === null)
      log.warn({ code: 'notify_given_up', channel: channel.name, delivery: delivery.id, why: fault.message }, 'a message is not sent, and not tried again');
  }
}

/** Ends with the signal, whatever a channel does with it. */
async function inTime<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const late = Promise.withResolvers<never>();
  const onAbort = (): void => late.reject(new DeliveryFault('did not answer in time'));
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** What does not work at the moment, with one line in the log for each change. Each webhook is by itself; Slack and mail are one each. */
function troublesOf(channel: ChannelName, log: Logger) {
  const troubles = new Map<string, string>();
  const keyOf = (address: string): string => (channel === 'webhook' ? `webhook ${address}` : channel);
  return {
    begin(address: string, why: string): void {
      const key = keyOf(address);
      if (!troubles.has(key)) log.warn({ code: 'notify_failing', channel: key, why }, `messages by ${key} fail; they are tried again`);
      troubles.set(key, why);
    },
    end(address: string): void {
      const key = keyOf(address);
      if (troubles.delete(key)) log.info({ code: 'notify_mended', channel: key }, `messages by ${key} go out again`);
    },
    now: (): string | null => (troubles.size === 0 ? null : [...troubles].map(([key, why]) => `${key}: ${why}`).join('; ')),
  };
}

/** Milliseconds until the next try; null when there is none. A wait that the other side asked for counts, at most an hour, and gives nobody more time in all. */
function waitOf(channel: ChannelName, { tries, ageMs }: Taken, fault: DeliveryFault): number | null {
  if (fault.final) return null;
  const asked = fault.retryAt && Math.min(hour, Math.max(second, fault.retryAt.getTime() - Date.now()));
  if (channel === 'webhook') {
    const planned = webhookWaits[tries];
    return planned === undefined ? null : Math.max(planned * (1 + Math.random() / 10), asked ?? 0);
  }
  if (ageMs > giveUpAfterMs) return null;
  return asked ?? Math.min(15 * minute, 2 * second * 2 ** Math.min(tries, 10)) * (0.75 + Math.random() / 2);
}
