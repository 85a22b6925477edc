/** Who was told, as it travels. */
import { z } from 'zod';
import { at, person } from './common.ts';

export const told = z.object({
  items: z.array(
    z.object({
      id: z.string(),
      channel: z.enum(['slack', 'email', 'webhook']),
      to: z.string().describe('The place in words; a mail address is shortened for all but admins.'),
      person: person.nullable(),
      about: z.string().describe('What it tells: a type of event, or grant.ends-soon.'),
      state: z.enum(['waiting', 'sent', 'failed']),
      at: at.describe('When it was sent; else when it was made.'),
      tries: z.int(),
      nextTryAt: at.nullable(),
      why: z.string().nullable().describe('Why the last try failed.'),
      repeatable: z.boolean(),
    }),
  ),
  spread: z.boolean().describe('Nothing that has happened still waits to be made into messages.'),
  nextAt: at.nullable().describe('When the next people are told, if nobody decides before.'),
  readAt: at,
});
