import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cut, displayWidth, line, lines, safeJson, shellWord } from '../../src/cli/text.ts';

test('escape sequences, line ends and bidi overrides are shown and not obeyed', () => {
  expect(line('a\u001b[2Jb')).toBe('a\\u001b[2Jb');
  expect(line('ok\r\nfake: line\tx')).toBe('ok ⏎ fake: line x');
  expect(line('ok\rfake')).toBe('ok\\u000dfake');
  expect(line('\u202eevil\u2066\u200b\u009b31m')).toBe('\\u202eevil\\u2066\\u200b\\u009b31m');
  expect(line('\u{e0041}\ud800')).toBe('\\u{e0041}\\ud800');
  expect(lines('one\ntwo\u0007')).toBe('one\ntwo\\u0007');
  expect(line('Zoë, 日本語, 👍')).toBe('Zoë, 日本語, 👍');
});

const harmful = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;

test('no text leaves a character that a terminal would obey', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !harmful.test(line(text))));
});

test('JSON keeps its meaning and loses what a terminal would obey', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const json = safeJson(JSON.stringify({ text }, null, 2));
      return (JSON.parse(json) as { text: string }).text === text && !harmful.test(json.replaceAll('\n', ''));
    }),
  );
});

test('width is counted in cells', () => {
  expect(['abc', 'Zoë', 'Zoe\u0308', '日本', '👍', '👩‍🚒', ''].map(displayWidth)).toEqual([3, 3, 3, 4, 2, 2, 0]);
  expect(cut('日本語です', 5)).toBe('日本…');
  expect(cut('short', 5)).toBe('short');
});

test('a shell reads back the word that was meant', () => {
  expect(['orders-readonly', 'it is', "it's", '', '$HOME'].map(shellWord)).toEqual(['orders-readonly', "'it is'", `'it'\\''s'`, "''", "'$HOME'"]);
});
