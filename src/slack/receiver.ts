/**
 * Calls from Slack over HTTP, before anything else looks at them: signed over the very bytes that came, not older than
 * five minutes, never here before, of our workspace and our app. Everything else is refused and counted.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Receiver, ReceiverEvent } from '@slack/bolt';
import express, { type Request, type Response, Router } from 'express';
import type { Db } from '../db/pool.ts';
import { firstTime, sweepSlack } from './handles.ts';
import type { RefusedCalls, RefusedFor } from './refused.ts';

type App = Parameters<Receiver['init']>[0];
export type Body = Readonly<Record<string, unknown>>;

export interface HttpParts {
  readonly db: Db;
  readonly signingSecret: () => Promise<string>;
  readonly refused: RefusedCalls;
  /** Why a call that is signed is not for us. */
  readonly foreign: (body: Body) => RefusedFor | undefined;
  readonly failed: (error: unknown) => void;
}

const maxAgeSeconds = 300;

/** bolt's receiver as a router, for `/slack/events`. */
export function httpReceiver(parts: HttpParts): Receiver & { readonly router: Router } {
  let app: App | undefined;
  const router = Router();
  router.post('/slack/events', express.raw({ type: () => true, limit: '256kb' }), async (request: Request, response: Response) => {
    const raw = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    const body = await accepted(parts, request, raw);
    if (typeof body === 'string') {
      await parts.refused.note(body);
      return refuse(response);
    }
    if (body['ssl_check']) return void response.end();
    if (body['type'] === 'url_verification') return void response.json({ challenge: body['challenge'] });
    await app?.processEvent(eventOf(body, request, response)).catch(parts.failed);
    if (!response.headersSent) response.end();
  });
  return {
    router,
    init: (given) => {
      app = given;
    },
    start: () => Promise.resolve(undefined),
    stop: () => Promise.resolve(undefined),
  };
}

/** The same answer whatever was wrong: who forges learns nothing. */
const refuse = (response: Response): void =>
  void response
    .status(401)
    .type('application/problem+json')
    .send(
      JSON.stringify({
        type: 'urn:halligan:error:slack_refused',
        title: 'A call that claims to come from Slack was not accepted.',
        status: 401,
        code: 'slack_refused',
      }),
    );

let sweptAt = 0;

async function accepted(parts: HttpParts, request: Request, raw: Buffer): Promise<Body | RefusedFor> {
  const signature = request.get('x-slack-signature') ?? '';
  const timestamp = request.get('x-slack-request-timestamp') ?? '';
  if (!/^v0=[0-9a-f]{64}$/.test(signature) || !/^\d{1,12}$/.test(timestamp)) return 'signature';
  const expected = createHmac('sha256', await parts.signingSecret())
    .update(`v0:${timestamp}:`)
    .update(raw)
    .digest();
  if (!timingSafeEqual(expected, Buffer.from(signature.slice(3), 'hex'))) return 'signature';
  if (Math.abs(Date.now() / 1_000 - Number(timestamp)) > maxAgeSeconds) return 'stale';
  const body = bodyOf(raw, request.get('content-type') ?? '');
  if (!body) return 'unreadable';
  if (!(await firstTime(parts.db, signature))) return 'replayed';
  if (Date.now() - sweptAt > 60_000) {
    sweptAt = Date.now();
    void sweepSlack(parts.db).catch(parts.failed);
  }
  return parts.foreign(body) ?? body;
}

/** JSON for events, a form for commands, a form with JSON in `payload` for everything that is pressed. */
function bodyOf(raw: Buffer, type: string): Body | undefined {
  try {
    const text = raw.toString('utf8');
    if (/^application\/json\b/i.test(type)) return record(JSON.parse(text));
    const form = new URLSearchParams(text);
    const payload = form.get('payload');
    return payload === null ? Object.fromEntries(form) : record(JSON.parse(payload));
  } catch {
    return undefined;
  }
}

const record = (value: unknown): Body | undefined => (typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Body) : undefined);

/** Acknowledging is answering; what comes after it is the listener's own. */
function eventOf(body: Body, request: Request, response: Response): ReceiverEvent {
  const retry = request.get('x-slack-retry-num');
  return {
    body,
    ...(retry === undefined ? {} : { retryNum: Number(retry) }),
    async ack(answer?: unknown) {
      if (response.headersSent) return;
      if (answer === undefined || answer === '') response.end();
      else if (typeof answer === 'string') response.type('text/plain').send(answer);
      else response.json(answer);
    },
  };
}

/** Another workspace, a user of another workspace in a shared channel, an installation for a whole organisation, another app. */
export function foreignTo(workspace: string, appId: () => string | undefined): HttpParts['foreign'] {
  return (body) => {
    const team = field(body['team'], 'id') ?? text(body['team_id']);
    const usersTeam = field(body['user'], 'team_id') ?? text(field(body['event'], 'user_team'));
    if (body['ssl_check'] || body['type'] === 'url_verification') return undefined;
    if (team !== workspace || (usersTeam !== undefined && usersTeam !== workspace)) return 'workspace';
    if (body['is_enterprise_install'] === true || body['is_enterprise_install'] === 'true') return 'workspace';
    const ours = appId();
    return ours !== undefined && text(body['api_app_id']) !== undefined && body['api_app_id'] !== ours ? 'app' : undefined;
  };
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
const field = (value: unknown, name: string): string | undefined => (typeof value === 'object' && value !== null ? text((value as Body)[name]) : undefined);
