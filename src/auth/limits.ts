/**
 * Limits on what can be guessed or flooded without a login. In memory: each process counts for itself, which only
 * multiplies a limit by the number of processes.
 */
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { Refusal } from '../domain/errors.ts';

export interface Limits {
  /** Logins started, per address. */
  readonly loginStart: Limit;
  /** Answers from the identity provider, per address: each refused one is witnessed. */
  readonly callback: Limit;
  /** Device codes started, per address. */
  readonly deviceStart: Limit;
  /** Codes exchanged or asked for, per address. */
  readonly codeExchange: Limit;
  /** User codes typed in, per person: 20^8 codes are far out of reach at this pace. */
  readonly userCode: Limit;
  /** Calls of the API, per login. Ending access is not counted. */
  readonly call: Limit;
}

/** Counts one use for `key`, or throws `rate_limited`. */
export type Limit = (key: string) => Promise<void>;

/** At most `points` uses of a key in each window of so many seconds. */
export function limit(points: number, seconds: number): Limit {
  const limiter = new RateLimiterMemory({ points, duration: seconds });
  return async (key) => {
    try {
      await limiter.consume(key);
    } catch (error) {
      if (!(error instanceof RateLimiterRes)) throw error;
      throw new Refusal('rate_limited', undefined, { next: `Try again in ${Math.max(1, Math.ceil(error.msBeforeNext / 1000))} s.` });
    }
  };
}

/** The limits of one process; a test or a bench may replace some. */
export const newLimits = (others: Partial<Limits> = {}): Limits => ({
  loginStart: limit(300, 60),
  callback: limit(300, 60),
  deviceStart: limit(30, 60),
  codeExchange: limit(300, 60),
  userCode: limit(20, 600),
  call: limit(6_000, 60),
  ...others,
});
