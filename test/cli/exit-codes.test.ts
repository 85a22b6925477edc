import { expect, test } from 'vitest';
import { exit, exitCodeOf, exitMeanings } from '../../src/cli/exit-codes.ts';
import { CliFault, usage, wordsOf } from '../../src/cli/fault.ts';
import { errorCodes, Refusal } from '../../src/domain/errors.ts';

test('every error code has an exit code that is one of those with a meaning, and none is success', () => {
  const known = exitMeanings.map(([code]) => code).filter((code) => code !== exit.ok);
  for (const code of Object.keys(errorCodes)) expect(known, code).toContain(exitCodeOf(code));
});

test('the meanings list every exit code once', () => {
  expect(exitMeanings.map(([code]) => code)).toEqual(Object.values(exit));
});

test('the codes that scripts branch on', () => {
  expect(
    ['not_logged_in', 'self_decision', 'not_an_approver', 'not_eligible', 'grant_not_active', 'duration_invalid', 'request_lapsed'].map(exitCodeOf),
  ).toEqual([4, 6, 6, 6, 5, 2, 3]);
});

test('a code of a newer server, and names that objects have by themselves, are plain errors', () => {
  expect(['not_invented_yet', 'constructor', '__proto__'].map(exitCodeOf)).toEqual([1, 1, 1]);
});

test('every refusal comes with a next step, its own or a usual one', () => {
  expect(wordsOf(new Refusal('not_logged_in'))).toEqual({ message: errorCodes.not_logged_in, next: 'halligan login', exitCode: 4 });
  expect(wordsOf(new Refusal('not_found', 'No.', { next: 'Look.' }))).toEqual({ message: 'No.', next: 'Look.', exitCode: 1 });
  expect(wordsOf(usage('No.', 'Yes.'))).toEqual({ message: 'No.', next: 'Yes.', exitCode: 2 });
  expect(wordsOf(new CliFault('No.'))).toMatchObject({ exitCode: 1 });
  expect(wordsOf(new TypeError('x is not a function')).message).toContain('did not foresee');
});
