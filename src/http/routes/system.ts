/** How Halligan itself does: what should have ended, what lags, who is alive. For those who run it. */
import { readSystem } from '../../db/read-models/system.ts';
import { route } from '../route.ts';
import { system } from '../schemas/system.ts';

export const systemRoutes = [
  route({
    method: 'get',
    path: '/system',
    summary: 'What is due, overdue and retried at each target, what lags, and which processes are alive; for auditors and admins',
    auth: 'person',
    answer: system,
    handle: ({ ctx, actor }) => readSystem(ctx.db, ctx.policy, actor, ctx.targets.keys()),
  }),
];
