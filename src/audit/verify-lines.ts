/** Lines out of a file or of standard input, by blocks of about a megabyte, so that memory stays the same however long the log is. */
import { type FileHandle, open } from 'node:fs/promises';
import { BadForm } from './verify-note.ts';

const blockBytes = 1_048_576;
/** No line of ours comes near this; something that does is not a log. */
const longestLine = 64 * blockBytes;
const newline = 10;

/** A place in a stream of lines. `bytes[at - 1]` always exists and may be overwritten, as long as it is put back. */
export interface Lines {
  bytes: Buffer;
  /** Where the next line starts, and where the whole lines in `bytes` end (after a newline). */
  at: number;
  end: number;
  /** Makes `at < end` true; false at the end of the stream. */
  fill(): Promise<boolean>;
  close(): Promise<void>;
}

type Read = (into: Buffer, offset: number) => Promise<number>;

function readerOf(handle: FileHandle | null): Read {
  if (handle) return async (into, offset) => (await handle.read(into, offset, into.length - offset, null)).bytesRead;
  const chunks = process.stdin[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let rest: Buffer = Buffer.alloc(0);
  return async (into, offset) => {
    if (rest.length === 0) {
      const { value, done } = await chunks.next();
      if (done) return 0;
      rest = Buffer.from(value);
    }
    const count = rest.copy(into, offset);
    rest = rest.subarray(count);
    return count;
  };
}

/** Opens a file, or standard input for `-`. A last line without a newline counts as whole. Throws the system's error, and `BadForm` for a line above 64 MiB. */
export async function openLines(path: string): Promise<Lines> {
  const handle = path === '-' ? null : await open(path, 'r');
  const read = readerOf(handle);
  let filled = 1;
  let ended = false;
  const lines: Lines = {
    bytes: Buffer.alloc(1 + blockBytes),
    at: 1,
    end: 1,
    fill: async () => {
      if (lines.at < lines.end) return true;
      if (ended && lines.end === filled) return false;
      lines.bytes.copyWithin(1, lines.end, filled);
      filled -= lines.end - 1;
      lines.at = 1;
      lines.end = 1;
      while (!ended) {
        if (filled === lines.bytes.length) lines.bytes = grown(lines.bytes);
        const count = await read(lines.bytes, filled);
        ended = count === 0;
        const last = lines.bytes.subarray(filled, filled + count).lastIndexOf(newline);
        if (last >= 0) lines.end = filled + last + 1;
        filled += count;
        if (lines.end > 1 && filled === lines.bytes.length) return true;
      }
      if (filled > 1 && lines.bytes[filled - 1] !== newline) {
        if (filled === lines.bytes.length) lines.bytes = grown(lines.bytes);
        lines.bytes[filled] = newline;
        filled += 1;
      }
      lines.end = filled;
      return lines.at < lines.end;
    },
    close: async () => {
      await handle?.close();
    },
  };
  return lines;
}

function grown(bytes: Buffer): Buffer {
  if (bytes.length > longestLine) throw new BadForm('There is a line above 64 MiB: this is not a log of Halligan.');
  const larger = Buffer.alloc(2 * bytes.length);
  bytes.copy(larger);
  return larger;
}

/** The next line without its newline (valid until the next `fill`), or null at the end. */
export async function nextLine(lines: Lines): Promise<Buffer | null> {
  if (!(await lines.fill())) return null;
  const to = lines.bytes.indexOf(newline, lines.at);
  const line = lines.bytes.subarray(lines.at, to);
  lines.at = to + 1;
  return line;
}
