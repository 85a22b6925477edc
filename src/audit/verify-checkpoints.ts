/** The verifier's reading of published checkpoints: a `checkpoints.jsonl`, the directory that holds one, or a single signed note. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Lines, nextLine, openLines } from './verify-lines.ts';
import { BadForm } from './verify-note.ts';

export interface PublishedCheckpoint {
  readonly note: string;
  /** Hashes of the entries since the checkpoint before, 32 bytes each; null where only the note is known. Good until `next` is called again. */
  readonly leaves: Buffer | null;
  /** When it was signed, by the log's own word: this is not covered by the signature. */
  readonly at: string | null;
}

export interface Checkpoints {
  /** The next checkpoint, or null at the end. Throws `BadForm` for a line that is none. */
  next(): Promise<PublishedCheckpoint | null>;
  /** The note in `latest` beside `checkpoints.jsonl`; null when there is no such file. */
  readonly latest: string | null;
  close(): Promise<void>;
}

const openBrace = 0x7b;
const longestNote = 65_536;

/** Opens published checkpoints: a directory of them, or a file. Throws when `path` is not there. */
export async function openCheckpoints(path: string): Promise<Checkpoints> {
  const isDirectory = (await stat(path)).isDirectory();
  const lines = await openLines(isDirectory ? join(path, 'checkpoints.jsonl') : path);
  const latest = isDirectory ? await readFile(join(path, 'latest'), 'utf8').catch(absent) : null;
  const spare = { leaves: Buffer.alloc(0) };
  let number = 0;
  return {
    next: async () => {
      const first = number === 0;
      const line = await nextLine(lines);
      if (!line) return null;
      number += 1;
      if (first && line[0] !== openBrace) return await bareNote(line.toString('utf8'), lines);
      return parsed(line, number, spare);
    },
    latest,
    close: lines.close,
  };
}

const absent = (error: NodeJS.ErrnoException): null => {
  if (error.code === 'ENOENT') return null;
  throw error;
};

async function bareNote(start: string, lines: Lines): Promise<PublishedCheckpoint> {
  let note = `${start}\n`;
  for (let line = await nextLine(lines); line; line = await nextLine(lines)) {
    note += `${line.toString('utf8')}\n`;
    if (note.length > longestNote) throw new BadForm('The file of checkpoints is neither a checkpoints.jsonl nor a signed note.');
  }
  return { note, leaves: null, at: null };
}

const leavesStart = '"leaves":[';

function parsed(line: Buffer, number: number, spare: { leaves: Buffer }): PublishedCheckpoint {
  const fault = new BadForm(`Line ${number} of the checkpoints is not one: it should be {"at":…,"note":…,"leaves":[…]}.`);
  // The list is nearly all of a line. Written as we write it, it is decoded in place, without a string for each hash.
  const start = line.indexOf(leavesStart) + leavesStart.length;
  const quick = start < leavesStart.length ? null : hashesInPlace(line, start, spare);
  let value: unknown;
  try {
    value = JSON.parse(quick ? `${line.toString('utf8', 0, start)}]}` : line.toString('utf8'));
  } catch {
    throw fault;
  }
  if (typeof value !== 'object' || value === null) throw fault;
  const { note, leaves, at } = value as { note?: unknown; leaves?: unknown; at?: unknown };
  if (typeof note !== 'string' || !Array.isArray(leaves)) throw fault;
  return { note, leaves: quick ?? hashesIn(leaves, fault), at: typeof at === 'string' ? at : null };
}

function hashesIn(leaves: readonly unknown[], fault: BadForm): Buffer {
  for (const leaf of leaves) if (typeof leaf !== 'string' || leaf.length !== 64) throw fault;
  const bytes = Buffer.from(leaves.join(''), 'hex');
  if (bytes.length !== leaves.length * 32) throw fault;
  return bytes;
}

const [quote, comma, bracket, brace] = [0x22, 0x2c, 0x5d, 0x7d];
/** `"`, 64 hex digits, `"`, and a comma or the closing bracket. */
const stride = 67;
const notHex = 0x100;
const digits = Uint16Array.from({ length: 256 }, (_, byte) => '0123456789abcdef'.indexOf(String.fromCharCode(byte))).map((value) =>
  value > 15 ? notHex : value,
);

/** The hashes from `start` to the end of the line, if it reads exactly `"hex","hex"…]}`; null otherwise. */
function hashesInPlace(line: Buffer, start: number, spare: { leaves: Buffer }): Buffer | null {
  const count = (line.length - 1 - start) / stride;
  if (!Number.isInteger(count) || count < 1 || line[line.length - 1] !== brace) return null;
  if (spare.leaves.length < count * 32) spare.leaves = Buffer.alloc(count * 32);
  const { leaves } = spare;
  let bad = 0;
  for (let leaf = 0, to = 0; leaf < count; leaf += 1) {
    const from = start + leaf * stride;
    if (line[from] !== quote || line[from + 65] !== quote || line[from + 66] !== (leaf === count - 1 ? bracket : comma)) return null;
    for (let at = from + 1; at <= from + 63; at += 2, to += 1) {
      const byte = ((digits[line[at] as number] as number) << 4) | (digits[line[at + 1] as number] as number);
      bad |= byte;
      leaves[to] = byte;
    }
  }
  return bad > 0xff ? null : leaves.subarray(0, count * 32);
}
