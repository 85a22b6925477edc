/** How a client command ends when it does not end well: words, the next step, and an exit code. */
import { Refusal } from '../domain/errors.ts';
import { exit, exitCodeOf } from './exit-codes.ts';

/** A fault found on this side of the wire. `message` says what happened and why, `next` the next command. Neither carries a secret. */
export class CliFault extends Error {
  readonly exitCode: number;
  readonly next: string | undefined;
  constructor(message: string, more: { exitCode?: number; next?: string } = {}) {
    super(message);
    this.name = 'CliFault';
    this.exitCode = more.exitCode ?? exit.error;
    this.next = more.next;
  }
}

/** The command was not written as it must be: exit code 2. */
export const usage = (message: string, next?: string): CliFault => new CliFault(message, { exitCode: exit.usage, ...(next === undefined ? {} : { next }) });

/** The server could not be reached, or did not answer in time. Waiting commands go on after it; others end. */
export class Unreachable extends CliFault {}

/** Words and exit code of anything that was thrown. What was not foreseen is said as such, without its stack. */
export function wordsOf(error: unknown): { message: string; next: string | undefined; exitCode: number } {
  if (error instanceof CliFault) return { message: error.message, next: error.next, exitCode: error.exitCode };
  if (error instanceof Refusal) return { message: error.message, next: error.next ?? fallback(error), exitCode: exitCodeOf(error.code) };
  return {
    message: `Halligan's command line failed in a way it did not foresee: ${error instanceof Error ? error.message : String(error)}`,
    next: undefined,
    exitCode: exit.error,
  };
}

const fallback = (refusal: Refusal): string | undefined => nextSteps[exitCodeOf(refusal.code)];

/** The next command where the server named none. */
const nextSteps: Partial<Record<number, string>> = {
  [exit.notLoggedIn]: 'halligan login',
  [exit.notEligible]: 'halligan entitlements shows what you may ask for.',
  [exit.error]: 'halligan status shows what is open and what waits.',
};
