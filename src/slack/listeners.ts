/** What Slack says that its users did, and which part of the surface does it. Everything is acknowledged first, except what is answered with its acknowledgement. */
import type { App } from '@slack/bolt';
import type { Asked, ViewAnswer } from './answer.ts';
import { sayPrivately } from './answer.ts';
import { pressAsk, submitAsk } from './ask.ts';
import { type Decision, pressDecide, submitDecision } from './decide.ts';
import { pressEnd, submitEnd } from './end.ts';
import { publishHome } from './home.ts';
import { helpAnswer, linkAccount, linkLimits } from './link.ts';
import type { SlackParts } from './parts.ts';

/** Something that a listener is called with, as far as it is looked at. Slack's own types promise more than its calls hold. */
type Loose = Readonly<Record<string, unknown>>;

const at = (value: unknown, ...path: readonly string[]): unknown =>
  path.reduce<unknown>((inner, name) => (typeof inner === 'object' && inner !== null ? (inner as Loose)[name] : undefined), value);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const typed = (view: unknown, block: string): string => text(at(view, 'state', 'values', block, 'value', 'value'));

const askedOf = (body: unknown): Asked => ({
  user: text(at(body, 'user', 'id')) || text(at(body, 'user_id')),
  trigger: text(at(body, 'trigger_id')),
  channel: text(at(body, 'channel', 'id')) || text(at(body, 'channel_id')) || undefined,
});

/** Puts the listeners into one of bolt's apps. */
export function listen(app: App, parts: SlackParts): void {
  const { log } = parts.ctx;
  /** What fails after the acknowledgement is told to the one who pressed, in words that say nothing of the inside. */
  const guarded = async (asked: Asked, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      log.error({ code: 'slack_failed', why: (error as Error).message }, 'what somebody did in Slack could not be worked through');
      await sayPrivately(parts, asked, 'Halligan could not do that just now. Nothing was decided. Try again, or use its pages.');
    }
  };
  buttons(app, parts, guarded);
  dialogs(app, parts);
  const limits = linkLimits();
  app.command('/halligan', async ({ body, ack }) => {
    const asked = askedOf(body);
    const [verb = '', ...rest] = text(at(body, 'text')).trim().split(/\s+/);
    if (verb === '') {
      await ack();
      return guarded(asked, () => pressAsk(parts, asked));
    }
    const answer = verb.toLowerCase() === 'link' && rest.length > 0 ? linkAccount(parts, limits, asked.user, rest.join('')) : helpAnswer(parts);
    await guarded(asked, async () => ack(await answer));
  });
  app.shortcut('halligan-ask', async ({ body, ack }) => {
    await ack();
    const asked = askedOf(body);
    await guarded(asked, () => pressAsk(parts, asked));
  });
  app.event('app_home_opened', async ({ event }) => {
    if (event.tab !== 'home') return;
    await publishHome(parts, event.user).catch((error: unknown) =>
      log.warn({ code: 'slack_home_failed', why: (error as Error).message }, 'a home tab could not be shown'),
    );
  });
}

function buttons(app: App, parts: SlackParts, guarded: (asked: Asked, work: () => Promise<void>) => Promise<void>): void {
  const on = (action: string, press: (asked: Asked, value: unknown) => Promise<void>): void =>
    app.action(action, async ({ body, action: pressed, ack }) => {
      await ack();
      const asked = askedOf(body);
      await guarded(asked, () => press(asked, at(pressed, 'value')));
    });
  for (const decision of ['approve', 'deny'] as const) on(decision, (asked, value) => pressDecide(parts, asked, decision, value));
  on('end', (asked, value) => pressEnd(parts, asked, value));
  on('ask', (asked) => pressAsk(parts, asked));
  on('open-page', () => Promise.resolve());
}

function dialogs(app: App, parts: SlackParts): void {
  const sentOf = (body: unknown, view: unknown) => ({
    user: text(at(body, 'user', 'id')),
    viewId: text(at(view, 'id')),
    handle: at(view, 'private_metadata'),
    reason: typed(view, 'reason'),
  });
  for (const decision of ['approve', 'deny'] satisfies Decision[])
    app.view(`decide-${decision}`, async ({ body, view, ack }) => submitDecision(parts, (answer: ViewAnswer) => ack(answer), sentOf(body, view), decision));
  app.view('end', async ({ body, view, ack }) => submitEnd(parts, (answer: ViewAnswer) => ack(answer), sentOf(body, view)));
  app.view('ask', async ({ body, view, ack }) => {
    const chosen = at(view, 'state', 'values', 'entitlements', 'value', 'selected_options');
    const entitlements = Array.isArray(chosen) ? chosen.map((one) => text(at(one, 'value'))) : [];
    const duration = text(at(view, 'state', 'values', 'duration', 'value', 'selected_option', 'value'));
    await submitAsk(parts, (answer: ViewAnswer) => ack(answer), {
      ...sentOf(body, view),
      typed: { entitlements, duration, reason: typed(view, 'reason'), incident: typed(view, 'incident') },
    });
  });
}
