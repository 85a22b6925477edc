/** The quarantine after a restore, as it travels. */
import { z } from 'zod';
import { at } from './common.ts';

export const quarantine = z.object({
  id: z.string(),
  causes: z.array(z.enum(['log-ahead', 'store-moved'])),
  why: z.string().describe('The causes in words.'),
  beganAt: at,
  databaseEntries: z.int().describe('Sealed entries of the log in the database when it began.'),
  publishedEntries: z.int().describe('Entries of the log that were published outside it.'),
  differences: z
    .object({
      found: z.array(
        z.object({
          kind: z.enum(['unexplained', 'missing', 'unfinished']).describe('unexplained: only the target has it; missing: only the rows have it.'),
          target: z.string(),
          name: z.string(),
          lease: z.string(),
          endsAt: z.string().nullable(),
        }),
      ),
      more: z.int().describe('So many more were found.'),
      unread: z.array(z.object({ target: z.string(), why: z.string() })),
    })
    .nullable(),
  comparedAt: at.nullable(),
});

export const lifted = z.object({
  continued: z
    .object({
      from: z.int(),
      to: z.int().describe('The entries that the database did not have, without this one.'),
      found: z.int().describe('Of so many the text was still there.'),
      lost: z.int().describe('Of so many only the hash is known.'),
    })
    .nullable(),
});
