/** The code of the refusal that `act` throws; fails when it throws none, or something else. */
import { expect } from 'vitest';
import { type ErrorCode, isRefusal } from '../../src/domain/errors.ts';

export function refusedWith(act: () => unknown): ErrorCode {
  try {
    act();
  } catch (error) {
    if (isRefusal(error)) return error.code;
    throw error;
  }
  return expect.fail('it was not refused');
}
