import fc from 'fast-check';
import { expect, test } from 'vitest';
import { agentInWords, plainLine, safeReturnTo } from '../../src/auth/untrusted-text.ts';

test('returnTo: whatever comes in, a browser stays with us', () => {
  const ours = new URL('https://halligan.example/login');
  const piece = fc.constantFrom(
    '/',
    '\\',
    '.',
    '..',
    '%2f',
    '%5c',
    '\t',
    '\n',
    '\r',
    '@',
    ':',
    '?',
    '#',
    'https:',
    'javascript:',
    'evil.example',
    ' ',
    '\u3002',
    '\u0000',
    'a',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), fc.boolean(), (pieces, rooted) => {
      const result = safeReturnTo((rooted ? '/' : '') + pieces.join(''));
      expect(result).toMatch(/^\/(?!\/|\\)/);
      expect(new URL(result, ours).origin).toBe(ours.origin);
    }),
    { numRuns: 2_000 },
  );
});

test('returnTo keeps a path with its query', () => {
  expect(safeReturnTo('/requests/req_1?tab=story&x=%2F')).toBe('/requests/req_1?tab=story&x=%2F');
  expect(safeReturnTo(undefined)).toBe('/');
  expect(safeReturnTo(['/a'])).toBe('/');
});

test('a line is one line, visible, and short', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const line = plainLine(text, 20);
      expect(line).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
      expect([...line].length).toBeLessThanOrEqual(20);
    }),
  );
});

test('browsers in words', () => {
  expect(agentInWords('Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0')).toBe('Firefox on Linux');
  expect(agentInWords('Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15')).toBe(
    'Safari on macOS',
  );
  expect(agentInWords(undefined)).toBe('A browser');
});
