/** A duration in the config file, as people write it. */
import { z } from 'zod';
import { parseDuration } from '../domain/duration.ts';
import { isRefusal } from '../domain/errors.ts';

/** A duration such as `90m`; gives seconds. */
export const duration = z
  .string({
    error: ({ input }) =>
      typeof input === 'number' ? `${input} is not a duration, because nobody can know its unit: say ${input}s, ${input}m or 1h30m` : undefined,
  })
  .describe('A duration: 90s, 90m, 1h30m, 2d or PT1H30M. A bare number is refused.')
  .transform((text, context) => {
    try {
      return parseDuration(text);
    } catch (error) {
      context.addIssue({ code: 'custom', message: isRefusal(error) ? error.message : 'not a duration' });
      return z.NEVER;
    }
  });
