/** The verifier's stream of entries' hashes: read here, line by line, or by a second thread that reads and hashes ahead (`verify-hasher.ts`). */
import { hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { type Lines, openLines } from './verify-lines.ts';
import { hashOfLine, type Row } from './verify-tree.ts';

const width = 32;
const endBytes = 1_048_576;

export interface Entries {
  /** Puts the hashes of the next entries into `row`, from place `at` up to and without `to`; answers with the place reached, which is `at` at the end of the log. */
  hashInto(row: Row, at: number, to: number): Promise<number>;
  /** The entry at a place of the last `hashInto`. Empty where only hashes are known. */
  lineAt(place: number): Buffer;
  /** The hash of the entry that comes next, or null. */
  hashAhead(): Promise<string | null>;
  close(): Promise<void>;
}

/** `{"hash":"<64 hex digits>","lost":true}`: what stands where the text of an entry was lost with a database that was restored. */
const lostForm = /^\{"hash":"([0-9a-f]{64})","lost":true\}$/;
const lostLength = 87;

/** The hash that such a line names, or null for any other line. */
const lostHash = (bytes: Buffer, start: number, end: number): string | null =>
  // Nearly no line has its length, or an `h` in its place.
  end - start === lostLength && bytes[start + 2] === 0x68 ? (lostForm.exec(bytes.toString('latin1', start, end))?.[1] ?? null) : null;

/** Told of entries whose text is lost, by their place, and of whole entries after the first of those. */
export interface Losses {
  lost(place: number): void;
  /** Undefined while nothing is lost: then nobody asks for the lines. */
  after?: ((line: Buffer) => void) | undefined;
}

/** Hashes whole lines at hand; answers with the place reached. The byte before a line serves as its 0x00 for a moment, so that nothing is copied. */
export function hashLines(lines: Lines, row: Row, at: number, to: number, losses: Losses): number {
  const { bytes, end } = lines;
  let place = at;
  let start = lines.at;
  while (place < to && start < end) {
    const newline = bytes.indexOf(10, start);
    const lost = lostHash(bytes, start, newline);
    if (lost === null) {
      bytes[start - 1] = 0;
      row.bytes.write(hash('sha256', bytes.subarray(start - 1, newline), 'binary'), 1 + place * width, width, 'latin1');
      bytes[start - 1] = 10;
      losses.after?.(bytes.subarray(start, newline));
    } else {
      row.bytes.write(lost, 1 + place * width, width, 'hex');
      losses.lost(place);
    }
    start = newline + 1;
    place += 1;
  }
  lines.at = start;
  return place;
}

/** Entries read in this thread. `lines` stays usable for what follows the last entry. */
export async function entriesHere(path: string, losses: Losses): Promise<Entries & { readonly lines: Lines }> {
  const lines = await openLines(path);
  let last = { start: 1, place: 0 };
  const lineFrom = (at: number): Buffer => lines.bytes.subarray(at, lines.bytes.indexOf(10, at));
  return {
    lines,
    hashInto: async (row, at, to) => {
      if (!(await lines.fill())) return at;
      last = { start: lines.at, place: at };
      return hashLines(lines, row, at, to, losses);
    },
    lineAt: (place) => {
      let start = last.start;
      for (let i = last.place; i < place; i += 1) start = lines.bytes.indexOf(10, start) + 1;
      return lineFrom(start);
    },
    hashAhead: async () =>
      (await lines.fill()) ? (lostHash(lines.bytes, lines.at, lines.bytes.indexOf(10, lines.at)) ?? hashOfLine(lineFrom(lines.at))) : null,
    close: lines.close,
  };
}

/** Rows that the hashing thread may be ahead: they lie in memory that both threads see, so nothing is allocated as they go. */
const rowsAhead = 16;
export const rowLength = 4096;

/** The memory between the two threads. */
export interface Ring {
  readonly path: string;
  readonly rows: SharedArrayBuffer;
  /** How many rows were taken. */
  readonly taken: Int32Array;
}

/** The place of the row with this number. */
export const rowOf = (ring: Ring, number: number): Row => ({ bytes: Buffer.from(ring.rows, (number % rowsAhead) * rowBytes, rowBytes) });
const rowBytes = 1 + rowLength * width;

/** Waits, in the hashing thread, until there is room for the row with this number. */
export function waitForRoom({ taken }: Ring, number: number): void {
  for (let seen = Atomics.load(taken, 0); number - seen >= rowsAhead; seen = Atomics.load(taken, 0)) Atomics.wait(taken, 0, seen, 1_000);
}

/** Entries of a file, read and hashed by a second thread. Throws what the thread threw. */
export function entriesByThread(path: string): Entries {
  const ring: Ring = { path, rows: new SharedArrayBuffer(rowsAhead * rowBytes), taken: new Int32Array(new SharedArrayBuffer(4)) };
  const file = import.meta.url.endsWith('.ts') ? './verify-hasher.ts' : './verify-hasher.js';
  const thread = new Worker(new URL(file, import.meta.url), { workerData: ring });
  /** How many entries each waiting row has; 0 at the end of the log. */
  const waiting: number[] = [];
  let fault: unknown = null;
  let wake = (): void => undefined;
  thread.on('message', (count: number) => {
    waiting.push(count);
    wake();
  });
  thread.on('error', (error) => {
    fault = error;
    wake();
  });
  thread.on('exit', () => {
    fault ??= new Error('The hashing thread ended early.');
    wake();
  });
  let number = 0;
  let used = 0;
  return {
    hashInto: async (row, at, to) => {
      while (waiting.length === 0 && fault === null) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const first = waiting[0];
      if (first === undefined) throw fault;
      const count = Math.min(to - at, first - used);
      rowOf(ring, number).bytes.copy(row.bytes, 1 + at * width, 1 + used * width, 1 + (used + count) * width);
      used += count;
      if (used === first && first > 0) {
        waiting.shift();
        used = 0;
        number += 1;
        Atomics.store(ring.taken, 0, number);
        Atomics.notify(ring.taken, 0);
      }
      return at + count;
    },
    lineAt: () => Buffer.alloc(0),
    hashAhead: () => Promise.resolve(null),
    close: async () => {
      await thread.terminate();
    },
  };
}

/** The first and the last line of the file, as far as a megabyte holds them. */
export async function endsOf(path: string): Promise<[Buffer, Buffer]> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const part = Buffer.alloc(Math.min(size, endBytes));
    await file.read(part, 0, part.length, 0);
    const first = Buffer.from(part.subarray(0, part.indexOf(10)));
    await file.read(part, 0, part.length, size - part.length);
    const end = part.at(-1) === 10 ? part.length - 1 : part.length;
    return [first, part.subarray(part.lastIndexOf(10, end - 1) + 1, end)];
  } finally {
    await file.close();
  }
}
