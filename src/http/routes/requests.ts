/** Asking and deciding. */
import { z } from 'zod';
import { decideRequest } from '../../commands/decide-request.ts';
import { cursor, decideInput, flag, id, submitInput } from '../../commands/inputs.ts';
import { submitRequest } from '../../commands/submit-request.ts';
import { withdrawRequest } from '../../commands/withdraw-request.ts';
import { storyOf } from '../../db/read-models/audit-events.ts';
import { offeredTo } from '../../db/read-models/entitlements.ts';
import { listRequests, readRequest } from '../../db/read-models/requests.ts';
import { canonicalHash, type Json } from '../../domain/canonical.ts';
import { Refusal } from '../../domain/errors.ts';
import { type Call, route } from '../route.ts';
import * as answers from '../schemas/answers.ts';
import { nothing, pageOf } from '../schemas/common.ts';

const one = z.strictObject({ id: id('request') });

/** `Idempotency-Key`: 1 to 128 visible ASCII characters. */
export function idempotencyOf(header: string | undefined, body: unknown): { key: string; bodyHash: string } | undefined {
  if (header === undefined) return undefined;
  if (!/^[\x21-\x7e]{1,128}$/.test(header)) throw new Refusal('bad_input', 'The Idempotency-Key has 1 to 128 visible ASCII characters.');
  return { key: header, bodyHash: canonicalHash(body as Json) };
}

const whole = async ({ ctx, actor }: Pick<Call<unknown, unknown, unknown>, 'ctx' | 'actor'>, requestId: string) => ({
  ...(await readRequest(ctx.db, ctx.policy, ctx.policy.entitlements, actor, requestId)),
  story: await storyOf(ctx.db, requestId),
});

export const requestRoutes = [
  route({
    method: 'get',
    path: '/entitlements',
    summary: 'What you may ask for, decide or review: policy in words, approvers, limits',
    auth: 'person',
    answer: z.object({ items: z.array(answers.entitlement) }),
    handle: async ({ ctx, actor }) => ({ items: offeredTo(ctx.policy.entitlements, ctx.targets, ctx.policy, actor) }),
  }),
  route({
    method: 'post',
    path: '/requests',
    summary: 'Ask for entitlements for a time, with a reason; breakGlass opens at once. Honours Idempotency-Key',
    auth: 'person',
    body: submitInput,
    answer: answers.request,
    status: 201,
    handle: async (call) => {
      const { ctx, actor, body, request } = call;
      const { duration: durationSeconds, incident: ticket, startAt, ...rest } = body;
      const idempotency = idempotencyOf(request.get('idempotency-key'), request.body);
      const { requestId } = await submitRequest(ctx, actor, { ...rest, durationSeconds, incident: ticket ?? null, startAt: startAt ?? null, idempotency });
      return whole(call, requestId);
    },
  }),
  route({
    method: 'get',
    path: '/requests',
    summary: 'Requests that you may see, newest first',
    auth: 'person',
    query: z.strictObject({ state: z.enum(['pending', 'approved', 'denied', 'withdrawn', 'lapsed']).optional(), mine: flag, toDecide: flag, cursor }),
    answer: pageOf(answers.request),
    handle: async ({ ctx, actor, query }) => listRequests(ctx.db, ctx.policy, ctx.policy.entitlements, actor, query),
  }),
  route({
    method: 'get',
    path: '/requests/:id',
    summary: 'The whole story of one request',
    auth: 'person',
    params: one,
    answer: answers.request,
    handle: (call) => whole(call, call.params.id),
  }),
  route({
    method: 'post',
    path: '/requests/:id/decisions',
    summary: 'Approve or deny exactly what you saw; seen is the hash that the request shows',
    auth: 'person',
    params: one,
    body: decideInput,
    answer: answers.request,
    handle: async (call) => {
      await decideRequest(call.ctx, call.actor, call.params.id, call.body);
      return whole(call, call.params.id);
    },
  }),
  route({
    method: 'post',
    path: '/requests/:id/withdraw',
    summary: 'Take your own pending request back',
    auth: 'person',
    params: one,
    answer: nothing,
    handle: async ({ ctx, actor, params }) => {
      await withdrawRequest(ctx, actor, params.id);
      return { ok: true };
    },
  }),
];
