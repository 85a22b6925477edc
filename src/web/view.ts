/** What every page handler gets, and how a page is sent. */
import type { Request, Response } from 'express';
import type { Auth } from '../auth/auth.ts';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { readHead } from '../db/read-models/audit-events.ts';
import { quarantineOn } from '../db/read-models/quarantine.ts';
import { countToDecide } from '../db/read-models/requests.ts';
import { countToReview } from '../db/read-models/reviews.ts';
import { html, type Part } from './html.ts';
import { type Frame, page } from './layout.ts';
import { quarantineNote } from './pages/quarantine.ts';

export interface View {
  readonly ctx: Ctx;
  readonly auth: Auth;
  readonly actor: PersonActor;
  readonly csrf: string;
  readonly request: Request;
  readonly response: Response;
}

/** What a write says on the page that it leads to, by the key in `?did=`. */
const did: Record<string, string> = {
  asked: 'Asked. Those who can decide see it now.',
  approved: 'Approved.',
  counted: 'Your approval counts. More are needed.',
  denied: 'Denied.',
  withdrawn: 'Withdrawn.',
  returned: 'Given back. The login is being removed.',
  revoked: 'Ended. The logins are being removed.',
  ended: 'Everything of the incident is being ended.',
  reviewed: 'The review is closed.',
  unlinked: 'Unlinked. What comes from that account is nobody’s from now on.',
  repeated: 'The webhook is called again.',
  glass: 'The glass is broken: it is open now, and a review is due afterwards.',
};

/** Sends a page with the bar's counts and the log's head, read while the page was made. */
export async function send(view: View, frame: Omit<Frame, 'actor' | 'csrf' | 'toDecide' | 'toReview' | 'head'> & { status?: number }): Promise<void> {
  const { ctx, actor, csrf, response, request } = view;
  const [toDecide, toReview, head, quarantine] = await Promise.all([
    countToDecide(ctx.db, actor),
    countToReview(ctx.db, ctx.policy, actor),
    readHead(ctx.db),
    quarantineOn(ctx.db),
  ]);
  const sealedSecondsAgo = head.sealedAt ? (head.readAt.getTime() - head.sealedAt.getTime()) / 1_000 : null;
  const told = did[String(request.query['did'] ?? '')];
  const note: Part = told ? html`<div class="note done" role="status">${told}</div>` : '';
  response.setHeader('Cache-Control', 'no-store');
  response
    .status(frame.status ?? 200)
    .type('html')
    .send(
      page({
        ...frame,
        body: [quarantine && quarantineNote(quarantine, head.readAt), note, frame.body],
        actor,
        csrf,
        toDecide,
        toReview,
        head: { size: head.size, waiting: head.waiting, sealedSecondsAgo },
        now: head.readAt,
      }),
    );
}

/** The page after a write. */
export const goTo = (view: View, path: string, what?: keyof typeof did & string): void => view.response.redirect(303, what ? `${path}?did=${what}` : path);
