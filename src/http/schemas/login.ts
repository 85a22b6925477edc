/** What the login API takes and gives. Names with underscores are those of RFC 8628 and RFC 7636, which clients know. */
import { z } from 'zod';

const time = z.iso.datetime().describe('RFC 3339, UTC');

export const personSchema = z.object({ id: z.string(), name: z.string(), subject: z.string(), groups: z.array(z.string()) });

export const exchangeBody = z.strictObject({
  code: z.string().min(1).max(200),
  code_verifier: z.string().regex(/^[A-Za-z0-9._~-]{43,128}$/, 'must be 43 to 128 unreserved characters (RFC 7636 §4.1)'),
  redirect_uri: z.string().min(1).max(200),
});

export const tokenAnswer = z.object({ token: z.string().describe('shown this once'), expiresAt: time, person: personSchema });

export const deviceStartBody = z.strictObject({
  label: z.string().max(200).optional().describe('what the terminal calls itself: user and host'),
  max_age: z.int().min(0).max(999_999_999).optional().describe('the login that lets it in must be at most this many seconds old (RFC 9470)'),
  acr_values: z.string().max(1_000).optional().describe('and of these classes'),
  groups_max_age: z.int().min(0).max(999_999_999).optional().describe('and its groups read at most this many seconds ago'),
});

export const deviceStartAnswer = z.object({
  device_code: z.string(),
  user_code: z.string().describe('eight consonants, in two groups'),
  verification_uri: z.url(),
  verification_uri_complete: z.url(),
  interval: z.number().describe('seconds between two polls'),
  expires_in: z.number().describe('seconds'),
});

export const devicePollBody = z.strictObject({ device_code: z.string().min(1).max(200) });

export const loginSchema = z.object({
  id: z.string(),
  kind: z.enum(['web', 'cli', 'device']),
  label: z.string(),
  createdAt: time,
  seenAt: time,
  expiresAt: time,
  current: z.boolean(),
});

export const loginsAnswer = z.object({ logins: z.array(loginSchema) });
export const endedAnswer = z.object({ ended: z.number().describe('how many logins were ended') });

/** The id of a login: a session or a terminal's token. */
export const loginIdParams = z.strictObject({ id: z.string().regex(/^(ses|tok)_[0-9a-f]{32}$/, 'must be the id of a login') });
