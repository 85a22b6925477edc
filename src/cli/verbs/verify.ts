/** `halligan audit verify` and `verify-evidence`: the independent verifier, in words. They need no server and no login. */
import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type VerifyResult, type VerifySuccess, verifyEvidence, verifyExport } from '../../audit/verify.ts';
import { exit } from '../exit-codes.ts';
import { CliFault, usage } from '../fault.ts';
import { formatOf, liveLine, put, putData, say, type Terminal } from '../terminal.ts';
import { line } from '../text.ts';
import { about, grouped, plural } from '../words.ts';

export interface VerifyCommandOptions {
  readonly key: string;
  readonly checkpoints?: string;
  readonly allowUnsealed?: boolean;
  readonly output?: string;
}

export async function verify(terminal: Terminal, log: string, options: VerifyCommandOptions): Promise<number> {
  const format = formatOf(options.output);
  const key = await keyOf(options.key);
  const checkpoints = options.checkpoints ?? (await checkpointsBeside(log));
  const live = liveLine(terminal);
  const result = await verifyExport({
    log,
    checkpoints,
    key,
    allowUnsealed: options.allowUnsealed ?? false,
    onProgress: (entries) => live.show(`${grouped(entries)} entries…`),
  });
  live.clear();
  if (format !== 'table') await putData(terminal, format, result);
  else if (result.ok) showGood(terminal, result);
  else showBad(terminal, result);
  return result.ok ? exit.ok : exit.error;
}

/** A verifier key, or the file that holds one. */
async function keyOf(given: string): Promise<string> {
  if (/^[^+\s/]+(\/[^+\s]*)?\+[0-9a-f]{8}\+/.test(given)) return given;
  const text = await readFile(given, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new CliFault(`The key ${given} cannot be read (${error.code}).`, { next: '--key takes a verifier key (name+hash+base64) or a file that holds one.' });
  });
  if (text.startsWith('PRIVATE+KEY+')) throw usage(`${given} holds the private key. An auditor needs the public one only.`, `--key ${given}.pub`);
  return text.trim();
}

/** The checkpoints that lie beside the export: `checkpoints/` or `checkpoints.jsonl`. */
async function checkpointsBeside(log: string): Promise<string> {
  const folder = log === '-' ? '.' : dirname(log);
  for (const name of ['checkpoints', 'checkpoints.jsonl']) if (await stat(join(folder, name)).catch(() => undefined)) return join(folder, name);
  throw usage(
    `There are no checkpoints beside ${log === '-' ? 'this' : log}.`,
    '--checkpoints names the file or folder of them; halligan audit export --checkpoints FILE fetches them.',
  );
}

function showGood(terminal: Terminal, result: VerifySuccess): void {
  const sealed = result.headSealedWithinMs === null ? '' : `, sealed ${about(result.headSealedWithinMs / 1_000)} after it was written`;
  put(
    terminal,
    result.entries === 0 ? 'no entries' : `${plural(result.entries, 'entry', 'entries')}, ${result.first.at ?? '?'} to ${result.last.at ?? '?'}`,
    'chain        ok      every entry is under the root',
    `checkpoints  ok      ${grouped(result.checkpoints)} signed, each contains the one before`,
    `head         ok      entry ${grouped(Math.max(0, result.entries - 1))}${sealed}`,
  );
  for (const [first, last] of result.lost) {
    const which = first === last ? `entry ${grouped(first)} is` : `entries ${grouped(first)} to ${grouped(last)} are`;
    put(terminal, `lost         ▲       ${which} known by the hash alone: the text was lost in a restore, as a later entry log.continued says`);
  }
  if (result.unsealed > 0)
    put(terminal, `not sealed   –       ${plural(result.unsealed, 'entry', 'entries')} after the newest checkpoint, of which nothing is proven`);
}

function showBad(terminal: Terminal, result: Exclude<VerifyResult, VerifySuccess>): void {
  const { index, entry, expected, found, checkpoint, intactBefore } = result;
  const named =
    index !== undefined && entry
      ? ` (${[entry.type, entry.at]
          .filter((part) => part !== null)
          .map(line)
          .join(', ')})`
      : '';
  if (result.problem === 'entry' && index !== undefined && expected && found) {
    put(
      terminal,
      `entry ${grouped(index)}${named} is not what was sealed: its hash is ${found.slice(0, 4)}…, checkpoint ${grouped(checkpoint ?? 0)} has ${expected.slice(0, 4)}….`,
    );
  }
  const rest = line(result.message).replace(/^Entry \d+ is not the one that was sealed\. /, '');
  put(terminal, rest);
  put(terminal, intactBefore > 0 ? `entries 0 to ${grouped(intactBefore - 1)} are intact.` : 'No entry is proven to be intact.');
  say(terminal, `NOT VERIFIED: ${result.problem}`);
  if (result.problem === 'truncated' || result.problem === 'unsealed') {
    say(
      terminal,
      'Were the export and the checkpoints made at different moments? These two fit each other: halligan audit export --out FILE --checkpoints FILE',
    );
  }
}

export async function verifyBundle(terminal: Terminal, file: string, options: { key: string; output?: string }): Promise<number> {
  const format = formatOf(options.output);
  const key = await keyOf(options.key);
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new CliFault(`${file} cannot be read (${error.code}).`, { next: 'halligan audit evidence gnt_… --out FILE makes one.' });
  });
  let bundle: unknown;
  try {
    bundle = JSON.parse(text);
  } catch {
    throw new CliFault(`${file} is not JSON, so it is no evidence bundle.`);
  }
  const result = verifyEvidence(bundle, key);
  if (format !== 'table') await putData(terminal, format, result);
  else if (result.ok) {
    put(
      terminal,
      `${plural(result.entries, 'entry', 'entries')} about ${line(result.grant)}`,
      `inclusion    ok      each is in the signed log of ${plural(result.size, 'entry', 'entries')}`,
    );
    if (result.unsealed > 0) put(terminal, `not sealed   –       ${plural(result.unsealed, 'event')} came after the checkpoint and are not in the bundle`);
  } else {
    put(terminal, line(result.message));
    say(terminal, `NOT VERIFIED: ${result.problem}`);
  }
  return result.ok ? exit.ok : exit.error;
}
