/** The log: searching it, exporting it, proving from it. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Response } from 'express';
import { z } from 'zod';
import { evidenceFor, exportCheckpoints, exportLog, proofFor } from '../../audit/export.ts';
import { exportCsv } from '../../audit/export-csv.ts';
import { assertKept, readPruned } from '../../audit/pruned.ts';
import { newestCheckpoint } from '../../audit/stored-tree.ts';
import type { Ctx } from '../../commands/context.ts';
import { cursor, id, incident, instant } from '../../commands/inputs.ts';
import { listAuditEvents, readHead } from '../../db/read-models/audit-events.ts';
import { readGrant } from '../../db/read-models/grants.ts';
import { seesEverything, type Viewer } from '../../db/read-models/viewer.ts';
import { auditEventTypes } from '../../domain/audit-event.ts';
import { Refusal } from '../../domain/errors.ts';
import { route } from '../route.ts';
import * as answers from '../schemas/answers.ts';
import { at, pageOf } from '../schemas/common.ts';

const filter = {
  person: z.string().max(100).optional(),
  entitlement: z.string().max(63).optional(),
  incident: incident.optional(),
  request: id('request').optional(),
  grant: id('grant').optional(),
  type: z.enum(Object.keys(auditEventTypes) as [string, ...string[]]).optional(),
};
const index = z
  .string()
  .regex(/^\d{1,15}$/, 'is not the number of an entry')
  .transform(Number);

function assertReadsAll(ctx: Ctx, viewer: Viewer): void {
  if (!seesEverything(ctx.policy, viewer))
    throw new Refusal('not_eligible', 'Only auditors and admins export the log.', { next: 'roles.auditors in the config says who they are.' });
}

/** Streams what `chunks` gives; a break in the middle ends the connection, so that half a log never looks whole. */
async function stream(response: Response, type: string, name: string, chunks: AsyncIterable<string>): Promise<void> {
  response.status(200).type(type).setHeader('Content-Disposition', `attachment; filename="${name}"`);
  await pipeline(Readable.from(chunks), response);
}

export const auditRoutes = [
  route({
    method: 'get',
    path: '/audit/events',
    summary: 'Events that you may see, newest first',
    auth: 'person',
    query: z.strictObject({ ...filter, from: instant.optional(), to: instant.optional(), cursor }),
    answer: pageOf(answers.event),
    handle: async ({ ctx, actor, query }) => listAuditEvents(ctx.db, ctx.policy, actor, query),
  }),
  route({
    method: 'get',
    path: '/audit/export',
    summary: 'The sealed log: jsonl is the log itself, line n is leaf n; csv is for reading only. One that was pruned is given from `first` on',
    auth: 'person',
    query: z.strictObject({ format: z.enum(['jsonl', 'csv']).default('jsonl'), first: index.optional(), end: index.optional() }),
    handle: async ({ ctx, actor, query, response }) => {
      assertReadsAll(ctx, actor);
      const range = { from: query.first, to: query.end };
      await assertKept(ctx.db, query.first ?? 0);
      if (query.format === 'csv') await stream(response, 'text/csv', 'halligan-audit.csv', exportCsv(ctx.db, range));
      else await stream(response, 'application/jsonl', 'halligan-audit.jsonl', exportLog(ctx.db, range));
    },
  }),
  route({
    method: 'get',
    path: '/audit/checkpoints',
    summary: 'Every signed checkpoint with the leaf hashes it added, one JSON object a line',
    auth: 'person',
    handle: async ({ ctx, actor, response }) => {
      assertReadsAll(ctx, actor);
      await stream(response, 'application/jsonl', 'halligan-checkpoints.jsonl', exportCheckpoints(ctx.db));
    },
  }),
  route({
    method: 'get',
    path: '/audit/checkpoint',
    summary: 'The newest checkpoint: a C2SP signed note',
    auth: 'person',
    answer: z.object({
      note: z.string().nullable(),
      size: z.int(),
      sealedAt: at.nullable(),
      waiting: z.int(),
      first: z.int().describe('The first entry whose text is here: those before it were pruned, and are in an archived export.'),
      archiveSha256: z.string().nullable().describe('The SHA-256 (hex) of that export.'),
    }),
    handle: async ({ ctx }) => {
      const [checkpoint, head, pruned] = await Promise.all([newestCheckpoint(ctx.db), readHead(ctx.db), readPruned(ctx.db)]);
      const { size, sealedAt, waiting } = head;
      return { note: checkpoint?.note ?? null, size, sealedAt, waiting, first: pruned.first, archiveSha256: pruned.exportSha256 };
    },
  }),
  route({
    method: 'get',
    path: '/audit/proof/:index',
    summary: 'One entry with its inclusion proof under the newest checkpoint; for auditors and admins',
    auth: 'person',
    params: z.strictObject({ index }),
    answer: z.object({ index: z.int(), line: z.string(), leafHash: z.string(), proof: z.array(z.string()), checkpoint: z.string() }),
    handle: async ({ ctx, actor, params }) => {
      assertReadsAll(ctx, actor);
      return proofFor(ctx.db, params.index);
    },
  }),
  route({
    method: 'get',
    path: '/grants/:id/evidence',
    summary: 'Everything witnessed about a grant, with inclusion proofs and the checkpoint',
    auth: 'person',
    params: z.strictObject({ id: id('grant') }),
    answer: z.object({
      v: z.literal(1),
      grant: z.string(),
      checkpoint: z.string(),
      entries: z.array(z.object({ index: z.int(), line: z.string(), leafHash: z.string(), proof: z.array(z.string()) })),
      unsealed: z.int(),
    }),
    handle: async ({ ctx, actor, params }) => {
      // Who reads everything also reads of a grant whose row was deleted long after its end.
      if (!seesEverything(ctx.policy, actor)) await readGrant(ctx.db, ctx.policy, actor, params.id);
      return evidenceFor(ctx.db, params.id);
    },
  }),
];
