/** Where a command reads and writes: data on stdout, everything else on stderr. One value, so that tests can stand in for a terminal. */
import type { Readable, Writable } from 'node:stream';
import { usage } from './fault.ts';
import { lines, safeJson } from './text.ts';

export interface Terminal {
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  /** Gives up what is under way: Ctrl-C. */
  readonly interrupted: AbortSignal;
}

export type Format = 'table' | 'json' | 'yaml';

/** Says something to the person, on stderr. The text is made safe; it may have several lines. */
export const say = (terminal: Terminal, text: string): void => void terminal.stderr.write(`${lines(text)}\n`);

/** Writes lines of data to stdout, made safe. */
export const put = (terminal: Terminal, ...texts: readonly string[]): void => {
  for (const text of texts) terminal.stdout.write(`${lines(text)}\n`);
};

/** Secrets and signed bytes go out as they are: changing one character would break them. */
export const putRaw = (terminal: Terminal, text: string): void => void terminal.stdout.write(text);

/** How wide a table may be: the terminal's width, or no limit in a pipe. */
export const widthOf = (terminal: Terminal): number | undefined => (terminal.stdout.isTTY ? (terminal.stdout.columns ?? 80) : undefined);

/** Reads `-o`. Throws a usage fault for anything else. */
export function formatOf(given: string | undefined): Format {
  if (given === undefined || given === 'table') return 'table';
  if (given === 'json' || given === 'yaml') return given;
  throw usage(`-o takes table, json or yaml, not ${JSON.stringify(given)}.`);
}

/** Data for programs, as JSON or YAML. Both mean exactly `value`; what a terminal would obey is escaped. */
export async function putData(terminal: Terminal, format: 'json' | 'yaml', value: unknown): Promise<void> {
  if (format === 'json') return putRaw(terminal, `${safeJson(JSON.stringify(value, null, 2))}\n`);
  const { Document, visit } = await import('yaml');
  const document = new Document(JSON.parse(JSON.stringify(value)));
  visit(document, {
    Scalar(_, node) {
      if (typeof node.value === 'string' && /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.test(node.value)) node.type = 'QUOTE_DOUBLE';
    },
  });
  putRaw(terminal, safeJson(document.toString({ lineWidth: 0, doubleQuotedMinMultiLineLength: 1_000_000 })));
}

/** A live line on stderr that is written over. Where stderr is no terminal it shows nothing. */
export function liveLine(terminal: Terminal): { show(text: string): void; clear(): void } {
  let shown = false;
  const write = (text: string): void => void terminal.stderr.write(text);
  return {
    show(text) {
      if (!terminal.stderr.isTTY) return;
      write(`\r\u001b[K${text}`);
      shown = true;
    },
    clear() {
      if (shown) write('\r\u001b[K');
      shown = false;
    },
  };
}

/** Whether somebody is there to be asked. */
export const canAsk = (terminal: Terminal): boolean => Boolean(terminal.stdin.isTTY && terminal.stderr.isTTY);

/** Asks one question on stderr and gives the trimmed answer. Rejects when it is interrupted. */
export async function ask(terminal: Terminal, question: string): Promise<string> {
  const { createInterface } = await import('node:readline/promises');
  const reader = createInterface({ input: terminal.stdin, output: terminal.stderr, terminal: true });
  const stop = new AbortController();
  const interrupted = (): void => stop.abort(terminal.interrupted.reason ?? new Interrupted());
  reader.on('SIGINT', () => stop.abort(new Interrupted()));
  reader.on('close', interrupted);
  terminal.interrupted.addEventListener('abort', interrupted);
  try {
    return (await reader.question(question, { signal: stop.signal })).trim();
  } catch (error) {
    throw stop.signal.aborted ? new Interrupted() : error;
  } finally {
    terminal.interrupted.removeEventListener('abort', interrupted);
    reader.off('close', interrupted);
    reader.close();
  }
}

/** Ctrl-C, where nothing else is to be said. */
export class Interrupted extends Error {
  constructor() {
    super('Interrupted.');
    this.name = 'Interrupted';
  }
}

/** Waits so many milliseconds, or rejects with `Interrupted`. */
export async function pause(terminal: Terminal, ms: number): Promise<void> {
  const { setTimeout: sleep } = await import('node:timers/promises');
  try {
    await sleep(ms, undefined, { signal: terminal.interrupted });
  } catch {
    throw new Interrupted();
  }
}
