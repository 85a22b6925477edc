/**
 * The independent verifier: from an export, its checkpoints and a public key, and nothing else, it shows that the log is
 * the one that was signed, or names the first entry that is not (invariant 21). It and its `verify-*.ts` parts share
 * no code with the writer and import only Node's own modules; a test holds them to it.
 *
 * How: the entries are read once, in order. Each checkpoint's signature is checked, and when the stream has passed its
 * size, the root of everything read so far must be its root. As every checkpoint is a root over the beginning of the
 * same stream, each contains the one before; no consistency proof is needed, and none is asked for.
 */
import { stat } from 'node:fs/promises';
import { type Checkpoints, openCheckpoints, type PublishedCheckpoint } from './verify-checkpoints.ts';
import { type Entries, endsOf, entriesByThread, entriesHere, rowLength } from './verify-entries.ts';
import { type Lines, nextLine } from './verify-lines.ts';
import { type LossAccount, newLossAccount } from './verify-losses.ts';
import { BadForm, type Head, openNote, readKey, type VerifierKey } from './verify-note.ts';
import { copyOf, extend, hashAt, newRow, newTree, type Row, rootOf, type Tree } from './verify-tree.ts';
import { type Difference, type EntryName, formFault, nameOf, type VerifyFailure, type VerifyResult, whatHappened } from './verify-words.ts';

export { verifyEvidence } from './verify-evidence.ts';
export type { LostRange } from './verify-losses.ts';
export type { EntryName, VerifyFailure, VerifyProblem, VerifyResult, VerifySuccess } from './verify-words.ts';

export interface VerifyOptions {
  /** The export, JSONL; `-` is standard input. */
  readonly log: string;
  /** A `checkpoints.jsonl`, the directory of one, or a file with one signed note. */
  readonly checkpoints: string;
  /** The C2SP verifier key: `name+hash+base64`. */
  readonly key: string;
  /** Entries after the newest checkpoint are counted instead of refused. */
  readonly allowUnsealed?: boolean;
  /** Told now and then how many entries were checked. */
  readonly onProgress?: (entries: number) => void;
}

const width = 32;
/** Bytes of a log above which a second thread saves more time than it takes to start. */
const worthASecondThread = 16 * 1_048_576;

interface Run {
  readonly entries: Entries;
  readonly key: VerifierKey;
  readonly tree: Tree;
  readonly row: Row;
  readonly spare: Row;
  readonly onProgress: (entries: number) => void;
  first: EntryName;
  last: EntryName;
  checkpoints: number;
  headAt: string | null;
  readonly losses: LossAccount;
}

const failed = (run: Run, problem: VerifyFailure['problem'], message: string, more: Partial<VerifyFailure> = {}): VerifyFailure => ({
  ok: false,
  problem,
  message,
  intactBefore: run.tree.size,
  ...more,
});

/** Verifies an export. Answers with what is proven, or with the first thing that is wrong; it does not throw for bad input. */
export async function verifyExport(options: VerifyOptions): Promise<VerifyResult> {
  try {
    const key = readKey(options.key);
    return (await inTwoThreads(options, key)) ?? (await inOneThread(options, key));
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (error instanceof BadForm) return { ok: false, problem: 'key', message: error.message, intactBefore: 0 };
    if (typeof code === 'string' && path) return { ok: false, problem: 'unreadable', message: `${path} cannot be read: ${code}.`, intactBefore: 0 };
    throw error;
  }
}

const newRun = (entries: Entries, key: VerifierKey, options: VerifyOptions, losses: LossAccount): Run => ({
  entries,
  key,
  losses,
  tree: newTree(),
  row: newRow(rowLength),
  spare: newRow(rowLength),
  onProgress: options.onProgress ?? (() => undefined),
  first: nameOf(Buffer.alloc(0)),
  last: nameOf(Buffer.alloc(0)),
  checkpoints: 0,
  headAt: null,
});

async function inOneThread(options: VerifyOptions, key: VerifierKey): Promise<VerifyResult> {
  const checkpoints = await openCheckpoints(options.checkpoints);
  try {
    const losses = newLossAccount();
    const entries = await entriesHere(options.log, losses);
    try {
      const run = newRun(entries, key, options, losses);
      try {
        return (await allCheckpoints(run, checkpoints)) ?? (await theEnd(run, entries.lines, options.allowUnsealed ?? false));
      } catch (error) {
        if (error instanceof BadForm) return failed(run, 'malformed', error.message);
        throw error;
      }
    } finally {
      await entries.close();
    }
  } finally {
    await checkpoints.close();
  }
}

/**
 * The same for a large file, with a second thread that hashes the entries. It answers only when everything is good to the
 * last byte. Otherwise null: the log is then read again in one thread, which can say what is wrong.
 */
async function inTwoThreads(options: VerifyOptions, key: VerifierKey): Promise<VerifyResult | null> {
  if (options.log === '-' || (await stat(options.log)).size < worthASecondThread) return null;
  const checkpoints = await openCheckpoints(options.checkpoints);
  const entries = entriesByThread(options.log);
  try {
    const run = newRun(entries, key, options, newLossAccount());
    const failure = await allCheckpoints(run, checkpoints);
    if (failure || (await entries.hashInto(run.row, 0, 1)) > 0) return null;
    const [first, last] = await endsOf(options.log);
    run.first = nameOf(first);
    run.last = nameOf(last);
    return good(run, 0);
  } catch {
    return null;
  } finally {
    await entries.close();
    await checkpoints.close();
  }
}

async function allCheckpoints(run: Run, checkpoints: Checkpoints): Promise<VerifyFailure | null> {
  const latest = checkpoints.latest === null ? null : openNote(checkpoints.latest, run.key);
  if (latest && 'fault' in latest)
    return failed(run, latest.fault === 'signature' ? 'checkpoint-signature' : 'malformed', `The note in \`latest\` is not good: ${latest.message}.`);
  let latestSeen = latest === null;
  let before: string | null = null;
  for (;;) {
    let published: PublishedCheckpoint | null;
    try {
      published = await checkpoints.next();
    } catch (error) {
      if (error instanceof BadForm) return failed(run, 'malformed', error.message);
      throw error;
    }
    if (!published) break;
    // A sealer that died after it wrote a line may write the same line again: that says nothing new.
    if (published.note === before) continue;
    before = published.note;
    const failure = await oneCheckpoint(run, published);
    if (failure) return failure;
    if (latest?.head.size === run.tree.size) {
      if (latest.head.root !== rootOf(run.tree))
        return failed(run, 'consistency', 'The note in `latest` and the checkpoint of the same size have two roots: two trees were signed.', {
          checkpoint: latest.head.size,
        });
      latestSeen = true;
    }
  }
  if (run.checkpoints === 0) return failed(run, 'missing-checkpoint', 'There is no checkpoint, so nothing can be proven.');
  if (latestSeen || !latest) return null;
  return failed(run, 'missing-checkpoint', `The note in \`latest\` is over ${latest.head.size} entries, and checkpoints.jsonl has no such checkpoint.`, {
    checkpoint: latest.head.size,
  });
}

async function oneCheckpoint(run: Run, published: PublishedCheckpoint): Promise<VerifyFailure | null> {
  const opened = openNote(published.note, run.key);
  const number = run.checkpoints + 1;
  if ('fault' in opened)
    return failed(run, opened.fault === 'signature' ? 'checkpoint-signature' : 'malformed', `Checkpoint ${number} is not good: ${opened.message}.`);
  const { head } = opened;
  const from = run.tree.size;
  const count = head.size - from;
  if (count <= 0) {
    return failed(run, 'checkpoint-order', `Checkpoint ${number} is over ${head.size} entries, but the one before it already covers ${from}.`, {
      checkpoint: head.size,
    });
  }
  if (published.leaves !== null && published.leaves.length !== count * width) {
    const message = `Checkpoint ${number} covers the entries ${from} to ${head.size - 1}, but lists ${published.leaves.length / width} hashes: a checkpoint before it is missing, or its list was cut.`;
    return failed(run, 'missing-checkpoint', message, { checkpoint: head.size });
  }
  const before = copyOf(run.tree);
  const { read, difference } = await readEntries(run, count, published.leaves);
  if (read === count && rootOf(run.tree) === head.root) {
    if (difference) return leafListFault(run, before, head, difference, published);
    run.checkpoints += 1;
    run.headAt = published.at;
    return null;
  }
  return whatIsWrong(run, before, head, read, difference, published.leaves);
}

const leafListFault = (run: Run, before: Tree, head: Head, difference: Difference, published: PublishedCheckpoint): VerifyFailure =>
  failed(run, 'leaf-list', `The entries up to ${head.size} are the sealed ones, but the published hash of entry ${difference.index} was changed.`, {
    index: difference.index,
    entry: nameOf(difference.line),
    expected: difference.found,
    found: published.leaves?.toString('hex', (difference.index - before.size) * width, (difference.index - before.size + 1) * width) ?? '',
    checkpoint: head.size,
  });

/** The root is not the signed one. The published hashes, if they lead to the signed root, name the first bad entry. */
function whatIsWrong(run: Run, before: Tree, head: Head, read: number, difference: Difference | null, leaves: Buffer | null): VerifyFailure {
  const from = before.size;
  const more = { checkpoint: head.size, intactBefore: from };
  const authentic = leaves !== null && rootOfList(before, leaves) === head.root;
  if (authentic && difference) {
    const at = (difference.index - from) * width;
    const message = `Entry ${difference.index} is not the one that was sealed. ${whatHappened(difference, leaves, from)}`;
    const { index, line, found } = difference;
    return failed(run, 'entry', message, { ...more, intactBefore: index, index, entry: nameOf(line), expected: leaves.toString('hex', at, at + width), found });
  }
  if (read < head.size - from && !difference) {
    const message = `The export ends after ${from + read} entries; the checkpoint covers ${head.size}.`;
    return failed(run, 'truncated', message, { ...more, intactBefore: authentic ? from + read : from, index: from + read });
  }
  const range = [from, head.size - 1] as const;
  const between = `entries ${from} to ${head.size - 1}, which lie between two good signatures`;
  if (difference || leaves === null) {
    return failed(
      run,
      'entry',
      `Among the ${between}, at least one is not as it was sealed; the published hashes do not lead to the signed root either, so it cannot be named.`,
      { ...more, range },
    );
  }
  const message = `The ${between}, agree with the published hashes but not with the signed root: entries were changed together with the hashes, or two trees were signed.`;
  return failed(run, 'consistency', message, { ...more, range });
}

function rootOfList(before: Tree, leaves: Buffer): string {
  const tree = copyOf(before);
  const count = leaves.length / width;
  const row = newRow(count);
  leaves.copy(row.bytes, 1);
  extend(tree, row, count, newRow(count));
  return rootOf(tree);
}

/** Reads up to `count` entries into the tree; `leaves` are the hashes they should have. Answers with the first that has another. */
async function readEntries(run: Run, count: number, leaves: Buffer | null): Promise<{ read: number; difference: Difference | null }> {
  const { entries, row } = run;
  const from = run.tree.size;
  let read = 0;
  let difference: Difference | null = null;
  while (read < count) {
    const want = Math.min(count - read, rowLength);
    let place = 0;
    run.losses.base = from + read;
    while (place < want) {
      const reached = await entries.hashInto(row, place, want);
      if (reached === place) break;
      if (from + read + place === 0) run.first = nameOf(entries.lineAt(0));
      if (read + reached === count) run.last = nameOf(entries.lineAt(reached - 1));
      if (leaves !== null && !difference) {
        const wanted = leaves.subarray((read + place) * width, (read + reached) * width);
        difference = await firstDifference(run, place, reached, wanted, from + read);
      }
      place = reached;
    }
    if (place === 0) break;
    extend(run.tree, row, place, run.spare);
    read += place;
    run.onProgress(from + read);
  }
  return { read, difference };
}

async function firstDifference({ row, entries }: Run, from: number, to: number, wanted: Buffer, rowStart: number): Promise<Difference | null> {
  if (row.bytes.subarray(1 + from * width, 1 + to * width).equals(wanted)) return null;
  let place = from;
  while (hashAt(row, place).equals(wanted.subarray((place - from) * width, (place - from + 1) * width))) place += 1;
  const line = Buffer.from(entries.lineAt(place));
  const foundNext = place + 1 < to ? hashAt(row, place + 1).toString('hex') : await entries.hashAhead();
  return { index: rowStart + place, line, found: hashAt(row, place).toString('hex'), foundNext };
}

async function theEnd(run: Run, lines: Lines, allowUnsealed: boolean): Promise<VerifyResult> {
  const entries = run.tree.size;
  let unsealed = 0;
  for (let line = await nextLine(lines); line; line = await nextLine(lines)) {
    const index = entries + unsealed;
    const fault = formFault(line) ?? (nameOf(line).id === null ? 'It is not an event.' : null);
    if (fault) return failed(run, 'malformed', `Entry ${index}, which no checkpoint covers, is not one. ${fault}`, { index });
    if (!allowUnsealed) {
      const message = `Entry ${index} and what follows is beyond the newest checkpoint, which covers ${entries}: it is not sealed yet, was put in, or newer checkpoints are missing.`;
      return failed(run, 'unsealed', message, { index, entry: nameOf(line) });
    }
    unsealed += 1;
  }
  const unaccounted = run.losses.unaccounted();
  if (unaccounted !== null) {
    const message = `The text of entry ${unaccounted} is missing, and the log does not say that it was lost: an entry log.continued over it would. It was taken away.`;
    return failed(run, 'lost', message, { index: unaccounted, intactBefore: run.losses.ranges()[0]?.[0] ?? 0 });
  }
  return good(run, unsealed);
}

function good({ tree, first, last, checkpoints, headAt, losses }: Run, unsealed: number): VerifyResult {
  const sealedWithin = headAt !== null && last.at !== null ? Date.parse(headAt) - Date.parse(last.at) : Number.NaN;
  return {
    ok: true,
    entries: tree.size,
    first,
    last,
    checkpoints,
    headSealedWithinMs: Number.isNaN(sealedWithin) ? null : sealedWithin,
    unsealed,
    lost: losses.ranges(),
  };
}
