/**
 * The directory outside the database into which checkpoints are published: `checkpoints.jsonl`, which only grows, and
 * `latest`, the newest signed note alone. Nothing here knows the database or the key. Only the holder of the sealer's
 * lock may write.
 */
import { constants } from 'node:fs';
import { access, type FileHandle, mkdir, open, readFile, rename, stat } from 'node:fs/promises';
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

async function lastLine(file: FileHandle, size: number): Promise<string | null> {
  const end = await wholeBytes(file, size);
  if (end === 0) return null;
  const start = await wholeBytes(file, end - 1);
  const line = Buffer.alloc(end - 1 - start);
  await file.read(line, 0, line.length, start);
  return line.toString('utf8');
}

export interface PublishedNotes {
  /** The note in the last whole line of `checkpoints.jsonl`; null when there is none. */
  readonly appended: string | null;
  /** The note in `latest`; null when there is none. */
  readonly latest: string | null;
}

/** What was published last. A torn last line counts as never written. Throws `SyntaxError` when the last line is not one of ours. */
export async function readPublishedNotes(directory: string): Promise<PublishedNotes> {
  const latest = await orNull(readFile(join(directory, latestFile), 'utf8'));
  const file = await orNull(open(join(directory, checkpointsFile), 'r'));
  if (!file) return { appended: null, latest };
  try {
    const line = await lastLine(file, (await file.stat()).size);
    if (line === null) return { appended: null, latest };
    const parsed = JSON.parse(line) as { note?: unknown } | null;
    if (typeof parsed?.note !== 'string') throw new SyntaxError('The last line has no note.');
    return { appended: parsed.note, latest };
  } finally {
    await file.close();
  }
}

/** Somebody else wrote into `checkpoints.jsonl` while we did. */
export class PublicationRace extends Error {
  override readonly name = 'PublicationRace';
}

/** Appends whole lines, after cutting off a torn one. Each line is on disk (fsync) before the next is asked for. Answers with how many were written. */
export async function appendLines(directory: string, lines: AsyncIterable<{ readonly line: string }>): Promise<number> {
  const path = join(directory, checkpointsFile);
  const file = await open(path, constants.O_RDWR | constants.O_APPEND | constants.O_CREAT, 0o644);
  try {
    const { size } = await file.stat();
    let end = await wholeBytes(file, size);
    if (end < size) await file.truncate(end);
    let written = 0;
    for await (const { line } of lines) {
      if ((await file.stat()).size !== end) throw new PublicationRace(`Another process writes to ${checkpointsFile}.`);
      const bytes = Buffer.from(line, 'utf8');
      await file.appendFile(bytes);
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

/** Replaces `latest` as a whole: a reader sees the old note or the new one. */
export async function writeLatest(directory: string, note: string): Promise<void> {
  const temporary = join(directory, `.${latestFile}.new`);
  const file = await open(temporary, 'w', 0o644);
  try {
    await file.writeFile(note, 'utf8');
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, join(directory, latestFile));
  await syncDirectory(directory);
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
