/** Identifiers: a prefix that tells what it is, and a UUIDv7 (RFC 9562 §5.7) as 32 hex digits, so that ids sort by time. */
import { randomBytes } from 'node:crypto';

export const idPrefixes = {
  person: 'per',
  request: 'req',
  grant: 'gnt',
  lease: 'lse',
  decision: 'dec',
  review: 'rev',
  event: 'evt',
  token: 'tok',
  session: 'ses',
  notice: 'ntc',
  delivery: 'dlv',
  process: 'prc',
  quarantine: 'qrn',
} as const;
export type IdKind = keyof typeof idPrefixes;

/** A new id of this kind. `at` is in milliseconds since 1970; it only helps sorting and decides nothing. */
export function newId(kind: IdKind, at: number = Date.now()): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(at, 0, 6);
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  return `${idPrefixes[kind]}_${bytes.toString('hex')}`;
}

/** Whether `text` has the form of an id of this kind. */
export const isId = (kind: IdKind, text: string): boolean => new RegExp(`^${idPrefixes[kind]}_[0-9a-f]{32}$`).test(text);
