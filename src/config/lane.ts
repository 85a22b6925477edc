/** The part of a target's block that is the same for every kind: the lane in which access is ended there. */
import { z } from 'zod';

export const laneSchema = z
  .strictObject({
    concurrency: z
      .int()
      .min(1)
      .max(32)
      .optional()
      .describe('How many leases a worker ends there at once; 4 unless set, 32 where many are ended in one go: postgres.'),
    perSecond: z.number().min(0.1).max(1_000).optional().describe('How many tries begin there in a second, at most; no limit unless set.'),
  })
  .prefault({})
  .describe('How access is ended there: how much at once, and how fast.');

/** How a worker ends access at one target. */
export type LaneConfig = z.output<typeof laneSchema> & { readonly concurrency: number };

/** Of a target whose block and whose provider say nothing else. */
export const usualLane: LaneConfig = { concurrency: 4 };
