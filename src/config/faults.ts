/** What can be wrong with a config file, in words: where, what, and what would be right. */
import { z } from 'zod';

export interface ConfigFault {
  readonly path: string;
  /** 1-based; undefined when the whole file is meant. */
  readonly line: number | undefined;
  readonly message: string;
}

/** Every fault of a config file, in the order of its lines. */
export class ConfigError extends Error {
  readonly file: string;
  readonly faults: readonly ConfigFault[];
  constructor(file: string, faults: readonly ConfigFault[]) {
    super(faults.map((fault) => `${file}${fault.line ? `:${fault.line}` : ''}: ${fault.path ? `${fault.path}: ` : ''}${fault.message}`).join('\n'));
    this.name = 'ConfigError';
    this.file = file;
    this.faults = faults;
  }
}

/** Notes one fault; the path points into the file. */
export type Fault = (path: readonly PropertyKey[], message: string) => void;

const wanted: Readonly<Record<string, string>> = {
  object: 'a block',
  record: 'a block of names',
  array: 'a list',
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

/** One zod issue in words: an unknown key with the nearest right name, a wrong type with the right one, everything else as zod says it. */
export function report(issue: z.core.$ZodIssue, base: readonly string[], schema: z.ZodType, fault: Fault): void {
  const path = [...base, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, issue.path);
    for (const key of issue.keys) fault([...path, key], `is not a setting${nearest(key, known)}`);
  } else if (issue.code === 'invalid_type' && issue.message.startsWith('Invalid input')) {
    const belongs = `${wanted[issue.expected] ?? `a ${issue.expected}`} belongs here`;
    fault(path, issue.message.endsWith('received undefined') ? `is missing: ${belongs}` : `${belongs}, not ${issue.message.split(' received ')[1] ?? 'this'}`);
  } else if (issue.code === 'invalid_key') fault(path, `is not a name here: ${issue.issues[0]?.message ?? issue.message}`);
  else fault(path, issue.message);
}

function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Record<string, unknown> | undefined;
  for (const key of path) {
    const next =
      (json?.['properties'] as Record<string, unknown> | undefined)?.[String(key)] ??
      (typeof key === 'number' ? json?.['items'] : json?.['additionalProperties']);
    json = next as Record<string, unknown> | undefined;
  }
  return Object.keys((json?.['properties'] as object | undefined) ?? {});
}

/** `; did you mean "…"?` when a known name is close, otherwise what is known. */
export function nearest(given: string, known: readonly string[]): string {
  const best = known.map((name) => ({ name, far: distance(given.toLowerCase(), name.toLowerCase()) })).sort((a, b) => a.far - b.far)[0];
  if (best && best.far <= Math.max(2, Math.floor(given.length / 3))) return `; did you mean ${JSON.stringify(best.name)}?`;
  return known.length > 0 ? `; known here: ${known.slice(0, 20).join(', ')}` : '';
}

/** Levenshtein's distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length] ?? 0;
}
