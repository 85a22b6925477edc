/** The Slack surface as one piece: the channel for telling, the router for calls over HTTP, the socket for Socket Mode. A Slack that is away, or that does not take our token, stops nothing else. */
import { App, type Receiver, SocketModeReceiver } from '@slack/bolt';
import type { Router } from 'express';
import type { Ctx } from '../commands/context.ts';
import { readSecret } from '../config/secrets.ts';
import type { SlackConfig } from '../config/tell.ts';
import type { Channel } from '../notify/channel.ts';
import { type SlackApi, SlackFault, silent, slackApi } from './api.ts';
import { slackChannel } from './channel.ts';
import { firstTime } from './handles.ts';
import { listen } from './listeners.ts';
import type { SlackParts } from './parts.ts';
import { type Body, foreignTo, type HttpParts, httpReceiver } from './receiver.ts';
import { refusedCalls } from './refused.ts';

export interface Slack {
  readonly channel: Channel;
  /** For `/slack/events`; undefined without a signing secret. */
  readonly router: Router | undefined;
  /** Opens the socket, where the config has an app token, and keeps it open. Resolves at once. */
  start(): void;
  close(): Promise<void>;
}

export interface SlackOptions {
  readonly ctx: Ctx;
  readonly config: SlackConfig;
  readonly serverUrl: URL;
}

/** Makes it. Nothing is contacted before it is needed. */
export function createSlack({ ctx, config, serverUrl }: SlackOptions): Slack {
  const api = slackApi(config);
  const refused = refusedCalls(ctx);
  const parts: SlackParts = { ctx, api, workspace: config.workspace, serverUrl, refused };
  const app = ownApp(ctx, api);
  const foreign = foreignTo(config.workspace, app.id);
  const failed = (error: unknown): void =>
    ctx.log.error({ code: 'slack_failed', why: (error as Error).message }, 'a call from Slack could not be worked through');
  const { signingSecret, appToken } = config;
  const http = signingSecret && httpReceiver({ db: ctx.db, signingSecret: () => readSecret(signingSecret), refused, foreign, failed });
  if (http) listen(appWith(http, failed), parts);
  const socket = appToken && socketLoop({ ctx, parts, appToken: () => readSecret(appToken), apiUrl: config.apiUrl, foreign, failed });
  return {
    channel: slackChannel({ ctx, api, workspace: config.workspace }),
    router: http?.router,
    start() {
      void app.learn();
      socket?.start();
    },
    async close() {
      socket?.stop();
      await refused.flush();
    },
  };
}

/** Which app our token belongs to, asked once; as long as Slack has not said, no call is refused for it. */
function ownApp(ctx: Pick<Ctx, 'log'>, api: SlackApi) {
  let id: string | undefined;
  return {
    id: () => id,
    async learn(): Promise<void> {
      try {
        id = (await api.call('auth.test', {})).app_id;
      } catch (error) {
        ctx.log.warn(
          { code: 'slack_unusable', why: (error as Error).message },
          `Slack cannot be used now: ${(error as Error).message}. Everything else goes on; messages wait`,
        );
      }
    },
  };
}

/** bolt, without calls of its own: it routes what came to the listeners. */
function appWith(receiver: Receiver, failed: (error: unknown) => void): App {
  const app = new App({
    receiver,
    authorize: () => Promise.resolve({}),
    logger: silent,
    convoStore: false,
    ignoreSelf: false,
    tokenVerificationEnabled: false,
  });
  app.error(async (error) => failed(error));
  return app;
}

interface SocketParts {
  readonly ctx: Ctx;
  readonly parts: SlackParts;
  readonly appToken: () => Promise<string>;
  readonly apiUrl: string;
  readonly foreign: HttpParts['foreign'];
  readonly failed: (error: unknown) => void;
}

const soonMs = 1_000;
const lateMs = 60_000;

/** Socket Mode, opened again whenever it ends: bolt's own way of coming back throws where nobody can catch it. */
function socketLoop({ ctx, parts, appToken, apiUrl, foreign, failed }: SocketParts) {
  let stopped = false;
  let receiver: SocketModeReceiver | undefined;
  let timer: NodeJS.Timeout | undefined;
  let told = false;
  const open = async (waitMs: number): Promise<void> => {
    let ended = false;
    const again = (ms: number): void => {
      if (!stopped && !ended) timer = setTimeout(() => void open(Math.min(lateMs, ms * 2)), ms).unref();
      ended = true;
    };
    try {
      receiver = new SocketModeReceiver({
        appToken: await appToken(),
        autoReconnectEnabled: false,
        logger: silent,
        installerOptions: { clientOptions: { slackApiUrl: apiUrl, retryConfig: { retries: 0 }, timeout: 8_000 } },
        customPropertiesExtractor: ({ envelope_id: envelope }: { envelope_id?: string }) => ({ envelope }),
      });
      const app = appWith(receiver, failed);
      app.use(async ({ context, next, ...args }) => {
        const reason = foreign(args.body as unknown as Body) ?? (await seenBefore(ctx, context['envelope']));
        if (!reason) return next();
        await parts.refused.note(reason);
        // Acknowledged with nothing, or Slack would send it again and again.
        if ('ack' in args && typeof args.ack === 'function') await (args.ack as () => Promise<void>)();
      });
      listen(app, parts);
      receiver.client.once('disconnected', () => again(soonMs));
      await receiver.start();
      if (told) ctx.log.info({ code: 'slack_socket_open' }, 'the socket to Slack is open again');
      told = false;
    } catch (error) {
      const why = error instanceof SlackFault ? error.message : 'Slack did not let us open the socket, or could not be reached';
      if (!told) ctx.log.warn({ code: 'slack_socket_failed', why }, 'nothing comes from Slack: the socket could not be opened; it is tried again');
      told = true;
      again(waitMs);
    }
  };
  return {
    start: () => void open(soonMs),
    stop() {
      stopped = true;
      clearTimeout(timer);
      void receiver?.stop().catch(() => undefined);
    },
  };
}

/** Slack sends an envelope again when it missed our acknowledgement. */
const seenBefore = async ({ db }: Pick<Ctx, 'db'>, envelope: unknown): Promise<'replayed' | undefined> =>
  typeof envelope === 'string' && !(await firstTime(db, `envelope ${envelope}`)) ? 'replayed' : undefined;
