/**
 * What a login is wished to be: recent (`max_age`), of a class (`acr_values`), or silent (`prompt=none`). A wish travels
 * in the addresses of our login pages and is kept with the attempt; what counts in the end is what the ID token says.
 */
import { type LoginNeed, Refusal } from '../domain/errors.ts';
import type { Identity } from './identity.ts';

export interface LoginWish {
  /** Seconds since the person proved who they are, at most. */
  readonly maxAge?: number;
  readonly acrValues?: readonly string[];
  /** Ask the provider nothing of the person: for reading groups again. */
  readonly silent?: boolean;
}

/** A time that two clocks that are kept by NTP can differ by, in seconds. */
const clocksDifferBy = 10;

type Values = Readonly<Record<string, unknown>>;

/** Reads `max_age`, `acr_values` and `prompt` of a query or a form. Throws `bad_input` for what cannot be one. */
export function readWish(values: Values): LoginWish {
  const { max_age: maxAge, acr_values: acrValues, prompt } = values;
  const faults: { path: string; message: string }[] = [];
  const check = (path: string, good: boolean, message: string) => void (good || faults.push({ path, message }));
  check('max_age', maxAge === undefined || (typeof maxAge === 'string' && /^\d{1,9}$/.test(maxAge)), 'must be a number of seconds');
  // OpenID Connect Core §3.1.2.1: values separated by spaces; RFC 6749 has the characters of such a word.
  const words = acrValues === undefined ? [] : typeof acrValues === 'string' && acrValues.length <= 1_000 ? acrValues.split(' ') : [''];
  check('acr_values', words.length <= 8 && words.every((word) => /^[\x21\x23-\x5b\x5d-\x7e]{1,200}$/.test(word)), 'must be words of visible ASCII');
  check('prompt', prompt === undefined || prompt === 'none', 'must be none');
  if (faults.length > 0) throw new Refusal('bad_input', 'This login was not asked for the way Halligan accepts.', { next: 'Start again.', faults });
  return {
    ...(maxAge === undefined ? {} : { maxAge: Number(maxAge) }),
    ...(words.length === 0 ? {} : { acrValues: words }),
    ...(prompt === 'none' ? { silent: true } : {}),
  };
}

/** The wish as parameters, for the provider (OpenID Connect Core §3.1.2.1) and for our own addresses alike. */
export const wishParameters = ({ maxAge, acrValues, silent }: LoginWish): Record<string, string> => ({
  ...(maxAge === undefined ? {} : { max_age: String(maxAge) }),
  ...(acrValues === undefined ? {} : { acr_values: acrValues.join(' ') }),
  ...(silent ? { prompt: 'none' } : {}),
});

/** Whether the wish asks for more than any login gives. */
export const wishesProof = ({ maxAge, acrValues }: LoginWish): boolean => maxAge !== undefined || acrValues !== undefined;

/** The wish that answers a refusal: a fresh proof where one is missing, otherwise a silent login that reads groups again. */
export const wishFor = ({ maxAgeSeconds, acrValues }: LoginNeed, code: string): LoginWish =>
  code === 'groups_stale'
    ? { silent: true }
    : { ...(maxAgeSeconds === undefined ? {} : { maxAge: maxAgeSeconds }), ...(acrValues === undefined ? {} : { acrValues }) };

/** Reads what a terminal asks of the login that lets it in: `max_age`, `acr_values`, `groups_max_age`. Throws `bad_input`. */
export function readNeed(values: Values): LoginNeed {
  const { maxAge, acrValues } = readWish({ max_age: values.max_age, acr_values: values.acr_values });
  const { maxAge: groupsMaxAge } = readWish({ max_age: values.groups_max_age });
  return {
    ...(maxAge === undefined ? {} : { maxAgeSeconds: maxAge }),
    ...(acrValues === undefined ? {} : { acrValues }),
    ...(groupsMaxAge === undefined ? {} : { groupsMaxAgeSeconds: groupsMaxAge }),
  };
}

/** The same as parameters of an address. */
export const needParameters = ({ maxAgeSeconds, acrValues, groupsMaxAgeSeconds }: LoginNeed): Record<string, string> => ({
  ...(maxAgeSeconds === undefined ? {} : { max_age: String(maxAgeSeconds) }),
  ...(acrValues === undefined ? {} : { acr_values: acrValues.join(' ') }),
  ...(groupsMaxAgeSeconds === undefined ? {} : { groups_max_age: String(groupsMaxAgeSeconds) }),
});

/** The address of our login page for this wish. `returnTo` is a path of ours. */
export const loginAddress = (returnTo: string, wish: LoginWish = {}, more: Record<string, string> = {}): string =>
  `/login?${new URLSearchParams({ returnTo, ...wishParameters(wish), ...more })}`;

/**
 * Throws `login_refused` when the provider did not do what was asked. `startedAt`: seconds since 1970 at which the
 * attempt began, by Postgres' clock.
 */
export function assertKept(wish: LoginWish, identity: Identity, startedAt: number): void {
  const { maxAge, acrValues = [] } = wish;
  if (maxAge !== undefined) {
    if (identity.authTime === undefined)
      throw new Refusal('login_refused', 'The identity provider did not say when you proved who you are, though it was asked for that.', {
        next: 'Tell whoever runs it: an ID token that was asked for with max_age needs auth_time (OpenID Connect Core §2).',
      });
    if (identity.authTime < startedAt - maxAge - clocksDifferBy)
      throw new Refusal('login_refused', 'The identity provider did not ask you again: its proof of who you are is older than what was asked for.', {
        next: 'Log out at the identity provider, and try again. If it stays so, it ignores max_age; tell whoever runs it.',
      });
  }
  for (const acr of acrValues)
    if (acr !== identity.acr)
      throw new Refusal('login_refused', `The identity provider's proof is not of the class ${acr} that was asked for.`, {
        next: 'Use the second factor when it asks for one. If it never asks, tell whoever runs it.',
      });
}
