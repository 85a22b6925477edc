/** The log for spreadsheets: one row per event, safe to open. It is a convenience for people and cannot be verified; the JSONL can. */
import type { Db } from '../db/pool.ts';
import type { Json } from '../domain/canonical.ts';
import { type ExportRange, type SealedLine, sealedPages } from './export.ts';

const columns = ['index', 'at', 'type', 'actor', 'via', 'person', 'request', 'grant', 'lease', 'incident', 'entitlements', 'data', 'id'] as const;

// Control characters, line and paragraph separators, and characters that change the direction of text.
const unsafe = /[\p{Cc}\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/gu;
// What a spreadsheet may take for a formula, with the wide forms that some of them treat alike.
const startsFormula = /^[\s\p{Cc}]*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/u;

/**
 * One CSV cell (RFC 4180 §2). A cell that could be read as a formula gets a leading `'`; control, direction and
 * line-breaking characters are written as `\u001b` and the like, so that a cell is always one line of plain text.
 */
export function csvCell(text: string): string {
  const visible = text.replace(unsafe, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const inert = startsFormula.test(text) ? `'${visible}` : visible;
  return /[",']|^\s|\s$/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

const word = (value: Json | undefined): string => (value === undefined || value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value));

function row({ index, line }: SealedLine): string {
  const event = JSON.parse(line) as { readonly [key: string]: Json | undefined };
  const actor = (event.actor ?? {}) as { readonly [key: string]: Json | undefined };
  const cells: Record<(typeof columns)[number], string> = {
    index: String(index),
    at: word(event.at),
    type: event.lost === true ? 'lost' : word(event.type),
    actor: word(actor.id ?? actor.system),
    via: word(actor.via),
    person: word(event.person),
    request: word(event.request),
    grant: word(event.grant),
    lease: word(event.lease),
    incident: word(event.incident),
    entitlements: Array.isArray(event.entitlements) ? event.entitlements.join(' ') : '',
    data: word(event.data),
    id: word(event.id),
  };
  return columns.map((column) => csvCell(cells[column])).join(',');
}

/** Sealed events as chunks of CSV with a header, CRLF after each row. */
export async function* exportCsv(db: Db, range: ExportRange = {}): AsyncGenerator<string> {
  yield `${columns.join(',')}\r\n`;
  for await (const rows of sealedPages(db, range)) yield `${rows.map(row).join('\r\n')}\r\n`;
}
