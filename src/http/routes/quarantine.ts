/** After a restore: what differs, and the word of an admin that Halligan goes on. */
import { z } from 'zod';
import { reason } from '../../commands/inputs.ts';
import { liftQuarantine, type Publication } from '../../commands/quarantine.ts';
import { causeWords, readQuarantine } from '../../db/read-models/quarantine.ts';
import { route } from '../route.ts';
import { lifted, quarantine } from '../schemas/quarantine.ts';

/** `publication`: where the log is published, from which it is continued. */
export const quarantineRoutes = (publication: Publication) => [
  route({
    method: 'get',
    path: '/quarantine',
    summary: 'Whether nothing is opened because of a restore, and where targets and rows differ; for auditors and admins',
    auth: 'person',
    answer: z.object({ quarantine: quarantine.nullable() }),
    handle: async ({ ctx, actor }) => {
      const on = await readQuarantine(ctx.db, ctx.policy, actor);
      return { quarantine: on && { ...on, why: causeWords(on) } };
    },
  }),
  route({
    method: 'post',
    path: '/quarantine/lift',
    summary: 'End the quarantine, by an admin: the log goes on from what was published, and access can be opened again',
    auth: 'person',
    body: z.strictObject({ reason }),
    answer: lifted,
    handle: ({ ctx, actor, body }) => liftQuarantine(ctx, publication, actor, body.reason),
  }),
];
