/** Telling people: notices become deliveries, deliveries are sent. A channel that hangs delays neither the others nor anything else that workers do. */
import type { Ctx } from '../commands/context.ts';
import { quarantineNow } from '../commands/quarantine.ts';
import type { Channel } from '../notify/channel.ts';
import { failOrphans } from '../notify/delivery-rows.ts';
import { type Lane, sendingLane } from '../notify/send.ts';
import { type SpreadParts, spreadNotices } from '../notify/spread.ts';
import { readStory } from '../notify/story.ts';

export interface NotifyParts {
  readonly channels: readonly Channel[];
  readonly routes: SpreadParts['routes'];
  /** The Slack workspace, where Slack is set up. */
  readonly workspace: string | undefined;
  readonly serverUrl: URL;
}

export interface Notifier {
  /** Spreads what is due and starts to send; done when all is spread. */
  run(): Promise<void>;
  lanes: readonly Lane[];
  stop(): Promise<void>;
}

/** The notifier of this process. Without channels it still takes notices off the list. */
export function notifier(ctx: Pick<Ctx, 'db' | 'log' | 'policy' | 'nudge'>, parts: NotifyParts): Notifier {
  const { channels, routes, workspace, serverUrl } = parts;
  const storyOf = (noticeId: string) => readStory(ctx.db, ctx.policy.entitlements, serverUrl, noticeId);
  // Pages that show the request say at once who has been told.
  const changed = (requestId: string): void => ctx.nudge({ outbox: false, requests: [requestId], onlyTold: true });
  const lanes = channels.map((channel) => sendingLane({ db: ctx.db, log: ctx.log, channel, storyOf, changed }));
  const spread: SpreadParts = { db: ctx.db, log: ctx.log, routes, workspace, mail: channels.some((channel) => channel.name === 'email') };
  let orphansFailed = false;
  return {
    lanes,
    async run() {
      // The rows are as old as the backup: what they want told was told, or is no longer so.
      if (await quarantineNow(ctx.db)) return;
      if (!orphansFailed)
        await failOrphans(
          ctx.db,
          channels.map((channel) => channel.name),
        );
      orphansFailed = true;
      while ((await spreadNotices(spread)) > 0) for (const lane of lanes) lane.pump();
      for (const lane of lanes) lane.pump();
    },
    async stop() {
      await Promise.all(lanes.map((lane) => lane.stop()));
    },
  };
}
