/** Who am I. */
import { z } from 'zod';
import { seesEverything } from '../../db/read-models/viewer.ts';
import { route } from '../route.ts';
import { at } from '../schemas/common.ts';

export const meRoutes = [
  route({
    method: 'get',
    path: '/me',
    summary: 'The person behind this call, and how they logged in',
    auth: 'person',
    answer: z.object({
      id: z.string(),
      name: z.string(),
      subject: z.string(),
      groups: z.array(z.string()),
      via: z.string(),
      login: z.string(),
      authAt: at,
      acr: z.string().nullable(),
      readsEverything: z.boolean(),
    }),
    handle: async ({ ctx, actor }) => ({
      id: actor.id,
      name: actor.name,
      subject: actor.subject,
      groups: actor.groups,
      via: actor.via,
      login: actor.loginId,
      authAt: actor.authAt,
      acr: actor.acr ?? null,
      readsEverything: seesEverything(ctx.policy, actor),
    }),
  }),
];
