/** The forms of what comes in, whichever surface it came through. Strict everywhere: an unknown field is a fault. */
import { z } from 'zod';
import { parseDuration } from '../domain/duration.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { type IdKind, idPrefixes } from '../domain/ids.ts';

/** An id of this kind, in its full form. */
export const id = (kind: IdKind) =>
  z.string().regex(new RegExp(`^${idPrefixes[kind]}_[0-9a-f]{32}$`), `is not an id: one looks like ${idPrefixes[kind]}_ and 32 hex digits`);

/** What a person writes. Line breaks and tabs are text; other control characters and broken Unicode are refused. */
export const text = (most: number) =>
  z
    .string()
    .max(most, `is longer than ${most} characters`)
    .refine((value) => value.isWellFormed(), 'holds broken Unicode')
    .refine((value) => !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/.test(value), 'holds control characters')
    .transform((value) => value.replaceAll('\r\n', '\n').trim())
    .refine((value) => value !== '', 'is empty');

export const reason = text(2_000);

export const incident = z
  .string()
  .regex(/^[\p{L}\p{N}][\p{L}\p{N}._:#/-]{0,99}$/u, 'is not the name of an incident: letters, digits and . _ : # / - are, at most 100');

/** A duration as people write it; gives seconds. */
export const duration = z.string().transform((value, context) => {
  try {
    return parseDuration(value);
  } catch (error) {
    context.addIssue({ code: 'custom', message: isRefusal(error) ? error.message : 'is not a duration', params: { refusal: 'duration_invalid' } });
    return z.NEVER;
  }
});

export const instant = z.iso.datetime({ offset: true, error: 'is not a time: one looks like 2026-01-31T03:00:00Z' }).transform((value) => new Date(value));
export const cursor = z.string().max(200).optional();
export const flag = z
  .enum(['true', 'false', '1', '0'])
  .transform((value) => value === 'true' || value === '1')
  .optional();

/** Parses or throws `bad_input` with every fault. A duration's own refusal keeps its code. */
export function parse<T extends z.ZodType>(schema: T | undefined, value: unknown, what: string): z.output<T> {
  if (!schema) return undefined as z.output<T>;
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.flatMap((issue) => {
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => ({ path: [...issue.path, key].join('.'), message: 'is not a field here' }));
    return [{ path: issue.path.map(String).join('.'), message: issue.message }];
  });
  const coded = parsed.error.issues.find((issue) => issue.code === 'custom' && issue.params?.['refusal']) as
    | { params: { refusal: 'duration_invalid' }; message: string }
    | undefined;
  if (coded && faults.length === 1) throw new Refusal(coded.params.refusal, coded.message, { faults });
  const words = faults.map((fault) => (fault.path ? `${fault.path}: ${fault.message}` : fault.message)).join('; ');
  throw new Refusal('bad_input', `The ${what} has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}: ${words}`, { faults });
}

export const submitInput = z.strictObject({
  entitlements: z.array(z.string().min(1).max(63)).min(1, 'names no entitlement').max(8, 'names more than 8 entitlements'),
  duration,
  reason,
  incident: incident.nullish(),
  startAt: instant.nullish(),
  breakGlass: z.boolean().default(false),
});

export const decideInput = z.strictObject({
  decision: z.enum(['approve', 'deny']),
  reason,
  seen: z.string().regex(/^[0-9a-f]{64}$/, 'is not the hash that the request shows'),
});

export const closeReviewInput = z.strictObject({ verdict: z.enum(['justified', 'drill', 'follow-up', 'misuse']), notes: text(4_000) });
