/** Small forms that many answers are made of. Times are RFC 3339, UTC. */
import { z } from 'zod';

export const at = z.iso.datetime();
export const person = z.object({ id: z.string(), name: z.string() });
export const pageOf = (item: z.ZodType) => z.object({ items: z.array(item), next: z.string().nullable() });
export const nothing = z.object({ ok: z.literal(true) });
