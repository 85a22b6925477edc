/** `halligan audit export | evidence | tail`: the log as files, and as it grows. */
import { randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Client, connect } from '../client.ts';
import { exit } from '../exit-codes.ts';
import { CliFault, usage } from '../fault.ts';
import { resolveId } from '../resolve.ts';
import { pause, put, putRaw, say, type Terminal } from '../terminal.ts';
import { line, safeJson } from '../text.ts';
import type { WireEvent } from '../wire.ts';
import { detail, sentence } from '../words.ts';

export interface ExportOptions {
  readonly out?: string;
  readonly checkpoints?: string;
  readonly format: string;
}

/** With `--checkpoints` the two files are cut to fit each other: the export ends where the newest checkpoint does. */
export async function exportAudit(terminal: Terminal, options: ExportOptions): Promise<number> {
  if (options.format !== 'jsonl' && options.format !== 'csv') throw usage(`--format is jsonl or csv, not ${JSON.stringify(options.format)}.`);
  const client = await connect(terminal);
  let end: string | undefined;
  if (options.checkpoints !== undefined) {
    const last = lastLine();
    await toFile(options.checkpoints, last.watch(await client.stream('/audit/checkpoints')));
    end = String(sizeOf(last.text()));
  }
  const { first, archiveSha256 } = await client.get<{ first?: number; archiveSha256?: string | null }>('/audit/checkpoint');
  const stream = await client.stream('/audit/export', { format: options.format, end, first: first ? String(first) : undefined });
  if (options.out === undefined) await toStdout(terminal, stream);
  else {
    await toFile(options.out, stream);
    const key =
      options.format === 'jsonl'
        ? ` next: halligan audit verify ${options.out} --key KEY${options.checkpoints ? ` --checkpoints ${options.checkpoints}` : ''}`
        : '';
    say(terminal, `Written: ${[options.out, options.checkpoints].filter(Boolean).join(', ')}.${first ? '' : key}`);
  }
  if (first) {
    const whole = `(head -n ${first} ARCHIVE; cat ${options.out ?? 'THIS'}) | halligan audit verify - --key KEY --checkpoints ${options.checkpoints ?? 'CHECKPOINTS'}`;
    say(terminal, `The log was pruned: this begins at entry ${first}. What comes before is in the archived export with the SHA-256 ${archiveSha256 ?? '?'}.`);
    if (options.format === 'jsonl') say(terminal, `Together they are the whole log: ${whole}`);
  }
  return exit.ok;
}

/** How many entries the checkpoint in this line covers; 0 while there is none. */
function sizeOf(text: string): number {
  if (text.trim() === '') return 0;
  try {
    const size = Number((JSON.parse(text) as { note: string }).note.split('\n')[1]);
    if (Number.isSafeInteger(size)) return size;
  } catch {
    // Falls through to the words below.
  }
  throw new CliFault('The last checkpoint of the server cannot be read.');
}

/** Remembers the last line of what passes through. */
function lastLine(): { watch(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array>; text(): string } {
  let rest = Buffer.alloc(0);
  return {
    async *watch(stream) {
      for await (const piece of stream) {
        const joined = Buffer.concat([rest, piece]);
        const body = joined.at(-1) === 10 ? joined.subarray(0, -1) : joined;
        rest = Buffer.from(joined.subarray(body.lastIndexOf(10) + 1));
        yield piece;
      }
    },
    text: () => rest.toString('utf8'),
  };
}

/** Writes a file whole or not at all, for its owner only. */
async function toFile(path: string, stream: AsyncIterable<Uint8Array | string>): Promise<void> {
  const draft = join(dirname(path), `.halligan-${randomBytes(6).toString('hex')}`);
  const file = await open(draft, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
    throw new CliFault(`${path} cannot be written (${error.code}).`, { next: 'Name a file in a folder of yours.' });
  });
  try {
    await file.writeFile(stream);
    await file.sync();
    await rename(draft, path);
  } finally {
    await file.close();
    await rm(draft, { force: true });
  }
}

/** A pipe gets the exact bytes, which is what can be verified; a terminal gets what it can show safely. */
async function toStdout(terminal: Terminal, stream: AsyncIterable<Uint8Array>): Promise<void> {
  const decoder = new TextDecoder();
  for await (const piece of stream) {
    const more = terminal.stdout.isTTY ? safeJson(decoder.decode(piece, { stream: true })) : piece;
    if (!terminal.stdout.write(more)) await new Promise<void>((resolve) => terminal.stdout.once('drain', resolve));
  }
}

export async function evidence(terminal: Terminal, given: string, options: { out?: string }): Promise<number> {
  const client = await connect(terminal);
  const id = await resolveId(client, 'gnt', given);
  const fetchBundle = () => client.get<{ entries: unknown[]; unsealed: number }>(`/grants/${id}/evidence`);
  let bundle = await fetchBundle();
  // Sealing takes a moment; a bundle without its newest events says less than it could.
  for (let tries = 0; bundle.unsealed > 0 && tries < 10; tries++) {
    await pause(terminal, 500);
    bundle = await fetchBundle();
  }
  const text = `${safeJson(JSON.stringify(bundle, null, 2))}\n`;
  if (options.out === undefined) putRaw(terminal, text);
  else await toFile(options.out, [text] as unknown as AsyncIterable<string>);
  if (bundle.unsealed > 0) say(terminal, `${bundle.unsealed} of its events are not sealed yet and are missing here; ask again in a few seconds.`);
  if (options.out !== undefined) say(terminal, `Written: ${options.out}. next: halligan audit verify-evidence ${options.out} --key KEY`);
  return exit.ok;
}

export interface TailOptions {
  readonly follow?: boolean;
  readonly number: string;
  readonly output?: string;
  readonly person?: string;
  readonly entitlement?: string;
  readonly incident?: string;
  readonly grant?: string;
  readonly type?: string;
}

const tailPollMs = 1_500;

/** The newest events, oldest of them first; with `-f` also those that come. `-o json` gives one object a line. */
export async function tail(terminal: Terminal, options: TailOptions): Promise<number> {
  const count = Number(options.number);
  if (!Number.isInteger(count) || count < 1 || count > 1_000) throw usage('-n takes a number from 1 to 1000.');
  if (options.output !== undefined && options.output !== 'table' && options.output !== 'json') throw usage('-o takes table or json here: one object a line.');
  const client = await connect(terminal);
  const { person, entitlement, incident, type } = options;
  const query = { person, entitlement, incident, type, grant: options.grant === undefined ? undefined : await resolveId(client, 'gnt', options.grant) };
  const watcher = newWatcher(client, query);
  const show = (events: readonly WireEvent[]): void => {
    for (const event of events.toReversed()) put(terminal, options.output === 'json' ? safeJson(JSON.stringify(event)) : inOneLine(event));
  };
  show(await watcher.first(count));
  while (options.follow) {
    await pause(terminal, tailPollMs);
    show(await watcher.more());
  }
  return exit.ok;
}

const rememberedAtMost = 2_000;

/** Reads the newest events and then those that come, each once. Commits may come a little out of the order of their ids, so it looks back past a run of known ones. */
function newWatcher(client: Client, query: Record<string, string | undefined>) {
  const seen = new Set<string>();
  /** Events with lower ids were there before; they are not looked for. */
  let floor = '';
  const events = () => client.all<WireEvent>('/audit/events', query);
  const remember = (found: readonly WireEvent[]): void => {
    for (const event of found.toReversed()) seen.add(event.id);
    for (const id of [...seen].slice(0, Math.max(0, seen.size - rememberedAtMost))) {
      seen.delete(id);
      if (id > floor) floor = id;
    }
  };
  return {
    async first(count: number): Promise<WireEvent[]> {
      const found: WireEvent[] = [];
      for await (const event of events()) if (found.push(event) >= count) break;
      floor = found.at(-1)?.id ?? '';
      remember(found);
      return found;
    },
    async more(): Promise<WireEvent[]> {
      const found: WireEvent[] = [];
      let known = 0;
      for await (const event of events()) {
        if (event.id < floor) break;
        if (!seen.has(event.id)) found.push(event);
        else if (++known >= 50) break;
      }
      remember(found);
      return found;
    },
  };
}

const inOneLine = (event: WireEvent): string => {
  const about = [event.incident, event.entitlements.join(',')].filter(Boolean).map((text) => line(String(text)));
  return [event.at, event.type.padEnd(24), [sentence(event), detail(event), ...about].filter(Boolean).join(' · ')].join('  ');
};
