import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { durationInWords, formatDuration, parseDuration } from '../../src/domain/duration.ts';
import { refusedWith } from './refusal.ts';

test.each([
  ['90s', 90],
  ['90m', 5_400],
  ['1h30m', 5_400],
  ['2d', 172_800],
  ['1d2h3m4s', 93_784],
  ['0h5m', 300],
  ['PT2H', 7_200],
  ['PT1H30M', 5_400],
  ['P1DT1S', 86_401],
  ['P2D', 172_800],
])('%s is %i seconds', (text, seconds) => {
  expect(parseDuration(text)).toBe(seconds);
});

describe('refused by code', () => {
  test.each([
    '90',
    '0',
    '0m',
    '0h0m',
    'PT0S',
    '',
    'P',
    'PT',
    'P1',
    '1h90',
    '-5m',
    ' 5m',
    '5m ',
    '5m\n',
    '5 m',
    '1.5h',
    '1e3s',
    '5M',
    'pt5m',
    'm',
    '1m1h',
    '5m5m',
    'P1W',
    'P1Y',
    '٥m',
    '1h30m\u0000',
    '9999999s',
    '999999d',
    '24856d',
    'one hour',
    '5m'.repeat(10_000),
    'NaN',
    'Infinity',
  ])('%j', (text) => {
    expect(refusedWith(() => parseDuration(text))).toBe('duration_invalid');
  });

  test('a bare number is told its possible units; a long text is cut', () => {
    expect(() => parseDuration('90')).toThrow('"90" is not a duration: say 90s, 90m or 1h30m.');
    expect(() => parseDuration('x'.repeat(5_000))).toThrow(/^.{1,120}$/);
    expect(parseDuration('24855d3h14m7s')).toBe(2 ** 31 - 1);
    expect(refusedWith(() => parseDuration('24855d3h14m8s'))).toBe('duration_invalid');
    expect(() => parseDuration('24856d')).toThrow(/longer than Halligan can count: say 24855d3h14m7s or less/);
  });
});

test('what is formatted reads back as the same seconds, in its shortest form', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), (seconds) => {
      const text = formatDuration(seconds);
      expect(parseDuration(text)).toBe(seconds);
      expect(formatDuration(parseDuration(text))).toBe(text);
      expect(text).not.toMatch(/(^|[a-z])0[a-z]/);
    }),
  );
});

test('whatever parses is at least a second, and formats to something that parses to the same', () => {
  const part = (unit: string) => fc.option(fc.nat(999_999), { nil: undefined }).map((count) => (count === undefined ? '' : `${count}${unit}`));
  fc.assert(
    fc.property(part('d'), part('h'), part('m'), part('s'), (...parts) => {
      const text = parts.join('');
      let seconds: number;
      try {
        seconds = parseDuration(text);
      } catch {
        return;
      }
      expect(Number.isInteger(seconds) && seconds >= 1).toBe(true);
      expect(parseDuration(formatDuration(seconds))).toBe(seconds);
    }),
  );
});

test('in words', () => {
  expect(durationInWords(5_400)).toBe('1 hour 30 minutes');
  expect(durationInWords(86_401)).toBe('1 day 1 second');
  expect(durationInWords(0)).toBe('no time');
  expect(durationInWords(-5)).toBe('no time');
  expect(formatDuration(0)).toBe('0s');
});
