/** Using what was granted, and ending it. */
import { z } from 'zod';
import { claimLease } from '../../commands/claim-lease.ts';
import { returnGrant, revokeGrant, revokeIncident } from '../../commands/end-grant.ts';
import { cursor, flag, id, incident, reason } from '../../commands/inputs.ts';
import { listGrants, readGrant } from '../../db/read-models/grants.ts';
import { route } from '../route.ts';
import * as answers from '../schemas/answers.ts';
import { pageOf } from '../schemas/common.ts';

const one = z.strictObject({ id: id('grant') });

export const grantRoutes = [
  route({
    method: 'get',
    path: '/grants',
    summary: 'Grants that you may see, newest first; state=open is everything that has not ended',
    auth: 'person',
    query: z.strictObject({
      state: z.enum(['open', 'scheduled', 'active', 'ending', 'ended', 'cancelled']).optional(),
      mine: flag,
      incident: incident.optional(),
      cursor,
    }),
    answer: pageOf(answers.grant),
    handle: async ({ ctx, actor, query }) => listGrants(ctx.db, ctx.policy, actor, query),
  }),
  route({
    method: 'get',
    path: '/grants/:id',
    summary: 'One grant, its leases and their ends',
    auth: 'person',
    params: one,
    answer: answers.grant,
    handle: ({ ctx, actor, params }) => readGrant(ctx.db, ctx.policy, actor, params.id),
  }),
  route({
    method: 'post',
    path: '/grants/:id/leases',
    summary:
      'Claim a credential. The one answer that carries a secret; a second claim gives one more credential of the same login where the target can, and replaces the login where it cannot',
    auth: 'person',
    params: one,
    body: z.strictObject({ entitlement: z.string().min(1).max(63) }),
    answer: answers.claimed,
    status: 201,
    handle: async ({ ctx, actor, params, body, response }) => {
      const claimed = await claimLease(ctx, actor, params.id, body.entitlement);
      response.setHeader('Cache-Control', 'no-store');
      const { leaseId: lease, grantId: grant, entitlement, kind, target, expiresAt, issued } = claimed;
      return { lease, grant, entitlement, kind, target, handle: issued.handle, expiresAt, connection: issued.connection, secret: issued.secret };
    },
  }),
  route({
    method: 'post',
    path: '/grants/:id/return',
    unlimited: true,
    summary: 'Give your own grant back before its time',
    auth: 'person',
    params: one,
    answer: answers.grant,
    handle: async ({ ctx, actor, params }) => {
      await returnGrant(ctx, actor, params.id);
      return readGrant(ctx.db, ctx.policy, actor, params.id);
    },
  }),
  route({
    method: 'post',
    path: '/grants/:id/revoke',
    unlimited: true,
    summary: "End somebody's grant, with a reason; for those who may decide or review it, and admins",
    auth: 'person',
    params: one,
    body: z.strictObject({ reason }),
    answer: answers.grant,
    handle: async ({ ctx, actor, params, body }) => {
      await revokeGrant(ctx, actor, params.id, body.reason);
      return readGrant(ctx.db, ctx.policy, actor, params.id);
    },
  }),
  route({
    method: 'post',
    path: '/incidents/:ref/revoke',
    unlimited: true,
    summary: 'End every open grant of an incident that you may end',
    auth: 'person',
    params: z.strictObject({ ref: incident }),
    body: z.strictObject({ reason }),
    answer: z.object({ ended: z.array(z.string()) }),
    handle: async ({ ctx, actor, params, body }) => ({ ended: await revokeIncident(ctx, actor, params.ref, body.reason) }),
  }),
];
