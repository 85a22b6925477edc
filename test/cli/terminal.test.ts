import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { formatOf, liveLine, put, putData, say, type Terminal } from '../../src/cli/terminal.ts';
import { creds } from '../../src/cli/verbs/use.ts';

/** Streams that remember, and say that they are a terminal. */
function terminalDouble(isTTY: boolean): { terminal: Terminal; out(): string; err(): string } {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()].map((stream) => Object.assign(stream, { isTTY, columns: 80 }));
  const text = (stream: PassThrough | undefined): string => String(stream?.read() ?? '');
  const terminal = { env: {}, stdin, stdout, stderr, interrupted: new AbortController().signal } as unknown as Terminal;
  return { terminal, out: () => text(stdout), err: () => text(stderr) };
}

test('a password is not printed on a terminal, and nothing is claimed for it', async () => {
  const { terminal, out } = terminalDouble(true);
  // No login and no server here: it must be refused before either is looked for.
  await expect(creds(terminal, 'orders-readonly', { output: 'env' })).rejects.toMatchObject({
    exitCode: 2,
    message: 'Refusing to print a password on a terminal. Use  halligan psql orders-readonly,  -o pgpass --out FILE,  or --reveal.',
  });
  expect(out()).toBe('');
});

test('words go to stderr and data to stdout, both made safe', () => {
  const { terminal, out, err } = terminalDouble(false);
  say(terminal, 'hello\u001b[31m');
  put(terminal, 'one', 'two\u202e');
  expect(err()).toBe('hello\\u001b[31m\n');
  expect(out()).toBe('one\ntwo\\u202e\n');
});

test('JSON and YAML mean the same and hold nothing a terminal would obey', async () => {
  const value = { reason: 'a\u001b[2J\u202e "b": \u0085 c\nd\u{e0041}', at: '2026-11-24', list: [{ yes: 'no', n: 1.5, none: null }], long: 'x '.repeat(200) };
  const { terminal, out } = terminalDouble(false);
  await putData(terminal, 'json', value);
  const json = out();
  await putData(terminal, 'yaml', value);
  const yaml = out();
  for (const text of [json, yaml]) expect(text).not.toMatch(/[^\P{C}\n]/u);
  expect(JSON.parse(json)).toEqual(value);
  expect(parse(yaml)).toEqual(value);
  expect(() => formatOf('xml')).toThrow(expect.objectContaining({ exitCode: 2 }));
});

test('a live line is for terminals only', () => {
  const pipe = terminalDouble(false);
  liveLine(pipe.terminal).show('waiting');
  expect(pipe.err()).toBe('');
  const screen = terminalDouble(true);
  const live = liveLine(screen.terminal);
  live.show('waiting');
  live.clear();
  expect(screen.err()).toBe('\r\u001b[Kwaiting\r\u001b[K');
});
