/**
 * The directory outside the database into which checkpoints are published: `checkpoints.jsonl`, which only grows, and
 * `latest`, the newest signed note alone. Nothing here knows the database or the key. One publisher writes at a time, by the sealer's
 * lock; but one that was stopped for longer than the lock lasts may go on beside its successor, and must then do no harm.
 */
import { constants } from 'node:fs';
import { access, type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

export const checkpointsFile = 'checkpoints.jsonl';
export const latestFile = 'latest';

const chunkBytes = 65_536;

/** Makes the directory (mode 0700) when it is missing. Throws, with the system's own code, when it cannot be written to. */
export async function prepareDirectory(directory: string): Promise<void> {
  await makeDirectory(directory);
  await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
}

// Not `mkdir({ recursive: true })`: below /proc it never comes back.
async function makeDirectory(directory: string): Promise<void> {
  const known = await orNull(stat(directory));
  if (known?.isDirectory()) return;
  const parent = dirname(directory);
  if (parent !== directory && !known) await makeDirectory(parent);
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    // Another process may have been a moment earlier.
    if (!(await orNull(stat(directory)))?.isDirectory()) throw error;
  }
}

const orNull = async <T>(reading: Promise<T>): Promise<T | null> => {
  try {
    return await reading;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
};

/** Bytes up to and with the last newline: what a crash in the middle of a write left whole. */
async function wholeBytes(file: FileHandle, size: number): Promise<number> {
  const chunk = Buffer.alloc(chunkBytes);
  for (let end = size; end > 0; ) {
    const from = Math.max(0, end - chunkBytes);
    const { bytesRead } = await file.read(chunk, 0, end - from, from);
    const newline = chunk.subarray(0, bytesRead).lastIndexOf(10);
    if (newline >= 0) return from + newline + 1;
    end = from;
  }
  return 0;
}

async function lastLine(file: FileHandle, end: number): Promise<string | null> {
  if (end === 0) return null;
  const start = await wholeBytes(file, end - 1);
  const line = Buffer.alloc(end - 1 - start);
  await file.read(line, 0, line.length, start);
  return line.toString('utf8');
}

export interface PublishedNotes {
  /** The note in the last whole line of `checkpoints.jsonl`; null when there is none. */
  readonly appended: string | null;
  /** Where the next line belongs in `checkpoints.jsonl`, in bytes: after this one. */
  readonly end: number;
  /** The note in `latest`; null when there is none. */
  readonly latest: string | null;
}

/** What was published last. A torn last line counts as never written. Throws `SyntaxError` when the last line is not one of ours. */
export async function readPublishedNotes(directory: string): Promise<PublishedNotes> {
  const latest = await orNull(readFile(join(directory, latestFile), 'utf8'));
  const file = await orNull(open(join(directory, checkpointsFile), 'r'));
  if (!file) return { appended: null, end: 0, latest };
  try {
    const end = await wholeBytes(file, (await file.stat()).size);
    const line = await lastLine(file, end);
    if (line === null) return { appended: null, end, latest };
    const parsed = JSON.parse(line) as { note?: unknown } | null;
    if (typeof parsed?.note !== 'string') throw new SyntaxError('The last line has no note.');
    return { appended: parsed.note, end, latest };
  } finally {
    await file.close();
  }
}

/** What stands in `checkpoints.jsonl` where a line belongs is another whole line. */
export class PublicationRace extends Error {
  override readonly name = 'PublicationRace';
}

/**
 * Writes whole lines, the first at byte `from`, which `readPublishedNotes` gave together with the line that they follow; over a torn one, if there is
 * one. Each line is on disk (fsync) before the next is asked for. Answers with how many were written.
 *
 * Each is written at its place in the file, and never appended: lines are a function of the database alone, so a publisher that was stopped in
 * here and goes on after others have published more writes the bytes that stand there already. For the same reason nothing is cut off.
 */
export async function appendLines(directory: string, from: number, lines: AsyncIterable<{ readonly line: string }>): Promise<number> {
  const path = join(directory, checkpointsFile);
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
  try {
    let end = from;
    let written = 0;
    for await (const { line } of lines) {
      const bytes = Buffer.from(line, 'utf8');
      await refuseOther(file, end, bytes);
      await writeAt(file, end, bytes);
      await file.datasync();
      end += bytes.length;
      written += 1;
    }
    if (written > 0) await syncDirectory(directory);
    return written;
  } finally {
    await file.close();
  }
}

/** What is there may be the beginning of what comes, or torn; a whole line that is another one is not ours to write over. */
async function refuseOther(file: FileHandle, at: number, bytes: Buffer): Promise<void> {
  const there = Buffer.alloc(bytes.length);
  const { bytesRead } = await file.read(there, 0, there.length, at);
  const found = there.subarray(0, bytesRead);
  if (!bytes.subarray(0, bytesRead).equals(found) && found.includes(10)) throw new PublicationRace(`Another line stands in ${checkpointsFile} at byte ${at}.`);
}

async function writeAt(file: FileHandle, at: number, bytes: Buffer): Promise<void> {
  for (let from = 0; from < bytes.length; ) from += (await file.write(bytes, from, bytes.length - from, at + from)).bytesWritten;
}

const draft = new RegExp(`^\\.${latestFile}-(\\d+)\\.new$`);

/** How many entries a note says that it is over; 0 where it says nothing. Not a check: that is the key's work. */
const saidSize = (note: string | null): number => Number(/^[^\n]*\n(\d{1,15})\n/.exec(note ?? '')?.[1] ?? 0);

/**
 * Replaces `latest` as a whole: a reader sees the old note or the new one. It never goes back to a smaller tree, also when a publisher that
 * was stopped in here goes on after others: it looks again before it renames, and whoever has published more has taken its draft away,
 * so that there is nothing left to rename. The draft's name is its size, so two of one name have one content.
 */
export async function writeLatest(directory: string, note: string): Promise<void> {
  const path = join(directory, latestFile);
  const size = saidSize(note);
  const newest = async (): Promise<number> => saidSize(await orNull(readFile(path, 'utf8')));
  while ((await newest()) <= size) {
    const name = join(directory, `.${latestFile}-${size}.new`);
    const bytes = Buffer.from(note, 'utf8');
    const file = await open(name, constants.O_WRONLY | constants.O_CREAT, 0o644);
    try {
      await writeAt(file, 0, bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    if ((await newest()) > size) break;
    await orNull(rename(name, path));
    await removeDrafts(directory, size);
    // Nobody's draft of a smaller tree is left: from now on `latest` can only grow.
    if ((await newest()) >= size) break;
  }
  await syncDirectory(directory);
}

/** Takes away what publishers that died or sleep have left. */
async function removeDrafts(directory: string, upTo: number): Promise<void> {
  for (const name of await readdir(directory)) {
    const found = draft.exec(name);
    if (found && Number(found[1]) <= upTo) await rm(join(directory, name), { force: true });
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
