/** Pages of a list, newest first, by an opaque cursor. Every list has an end. */
import { Refusal } from '../../domain/errors.ts';
import { type IdKind, isId } from '../../domain/ids.ts';

export interface Page<T> {
  readonly items: readonly T[];
  /** Give it back to read on; null at the end. */
  readonly next: string | null;
}

export const pageSize = 50;

/** The id of this kind after which to go on. Throws `cursor_invalid` for anything this list did not give out. */
export function readCursor(kind: IdKind, cursor: string | undefined): string | undefined {
  if (cursor === undefined || cursor === '') return undefined;
  const text = Buffer.from(cursor, 'base64url').toString('utf8');
  if (!isId(kind, text) || Buffer.from(text).toString('base64url') !== cursor)
    throw new Refusal('cursor_invalid', undefined, { next: 'Start again without a cursor.' });
  return text;
}

/** Makes a page out of `size + 1` rows. */
export function pageOf<T extends { readonly id: string }>(rows: readonly T[], size = pageSize): Page<T> {
  const items = rows.slice(0, size);
  const last = items.at(-1);
  return { items, next: rows.length > size && last ? Buffer.from(last.id).toString('base64url') : null };
}
