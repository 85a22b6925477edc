/** What break-glass was, said by somebody else afterwards. */
import { z } from 'zod';
import { closeReview } from '../../commands/close-review.ts';
import { closeReviewInput, cursor, id } from '../../commands/inputs.ts';
import { listReviews, readReview } from '../../db/read-models/reviews.ts';
import { route } from '../route.ts';
import * as answers from '../schemas/answers.ts';
import { pageOf } from '../schemas/common.ts';

const one = z.strictObject({ id: id('review') });

export const reviewRoutes = [
  route({
    method: 'get',
    path: '/reviews',
    summary: 'Reviews that you may see, newest first',
    auth: 'person',
    query: z.strictObject({ state: z.enum(['due', 'closed']).optional(), cursor }),
    answer: pageOf(answers.review),
    handle: async ({ ctx, actor, query }) => listReviews(ctx.db, ctx.policy, actor, query),
  }),
  route({
    method: 'get',
    path: '/reviews/:id',
    summary: 'One review',
    auth: 'person',
    params: one,
    answer: answers.review,
    handle: ({ ctx, actor, params }) => readReview(ctx.db, ctx.policy, actor, params.id),
  }),
  route({
    method: 'post',
    path: '/reviews/:id/close',
    summary: 'Say what the use was; never by its holder',
    auth: 'person',
    params: one,
    body: closeReviewInput,
    answer: answers.review,
    handle: async ({ ctx, actor, params, body }) => {
      await closeReview(ctx, actor, params.id, body);
      return readReview(ctx.db, ctx.policy, actor, params.id);
    },
  }),
];
