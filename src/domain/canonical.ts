/** RFC 8785 canonical JSON and the hash of it: equal values have equal bytes, whoever wrote them and in what order. */
import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined };

/** The one byte sequence of this value (UTF-8, no newline inside). Members that are `undefined` are left out. */
export function canonicalJson(value: Json): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError('nothing to canonicalize');
  return text;
}

/** SHA-256 of the canonical JSON, as 64 hex digits. */
export const canonicalHash = (value: Json): string => createHash('sha256').update(canonicalJson(value)).digest('hex');
