/** Who was told, and webhooks that are called again. */
import { z } from 'zod';
import { id } from '../../commands/inputs.ts';
import { repeatDelivery } from '../../commands/repeat-delivery.ts';
import { toldOf } from '../../db/read-models/deliveries.ts';
import { route } from '../route.ts';
import { nothing } from '../schemas/common.ts';
import { told } from '../schemas/deliveries.ts';

export const deliveryRoutes = [
  route({
    method: 'get',
    path: '/requests/:id/deliveries',
    summary: 'Who was told of a request, who could not be, and why',
    auth: 'person',
    params: z.strictObject({ id: id('request') }),
    answer: told,
    handle: ({ ctx, actor, params }) => toldOf(ctx.db, ctx.policy, actor, params.id),
  }),
  route({
    method: 'post',
    path: '/deliveries/:id/repeat',
    summary: 'Call a webhook again with the same message; for admins',
    auth: 'person',
    params: z.strictObject({ id: id('delivery') }),
    answer: nothing,
    handle: async ({ ctx, actor, params }) => {
      await repeatDelivery(ctx, actor, params.id);
      return { ok: true };
    },
  }),
];
