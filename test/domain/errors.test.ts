import { expect, test } from 'vitest';
import { errorCodes, isRefusal, Refusal } from '../../src/domain/errors.ts';
import { ProviderError } from '../../src/domain/provider.ts';

test('a refusal says its code, and the sentence of the code unless it has a better one', () => {
  expect(new Refusal('not_found')).toMatchObject({ code: 'not_found', message: errorCodes.not_found, next: undefined, faults: undefined });
  expect(new Refusal('bad_input', 'so', { next: 'do', faults: [{ path: 'a', message: 'b' }] })).toMatchObject({
    message: 'so',
    next: 'do',
    faults: [{ path: 'a' }],
  });
});

test('isRefusal asks for any code, or for one of those named', () => {
  const refusal = new Refusal('conflict');
  expect(isRefusal(refusal)).toBe(true);
  expect(isRefusal(refusal, 'not_found', 'conflict')).toBe(true);
  expect(isRefusal(refusal, 'not_found')).toBe(false);
  expect(isRefusal({ code: 'conflict' })).toBe(false);
  expect(isRefusal(undefined)).toBe(false);
});

test("a provider's error is a refusal; it claims that nothing was made only when told", () => {
  const error = new ProviderError('target_timeout', 'late');
  expect(isRefusal(error, 'target_timeout')).toBe(true);
  expect(error).toMatchObject({ nothingMade: false, cut: undefined });
});

test('codes are snake_case and their sentences end', () => {
  for (const [code, sentence] of Object.entries(errorCodes)) {
    expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
    expect(sentence).toMatch(/^[A-Z].*\.$/);
  }
});
