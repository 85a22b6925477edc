/** From validated ID token claims to an identity: issuer and subject, a name to show, and groups. Pure. */
import { Refusal } from '../domain/errors.ts';
import type { AuthConfig } from './config.ts';
import { plainLine } from './untrusted-text.ts';

export interface Identity {
  readonly issuer: string;
  readonly subject: string;
  readonly name: string;
  readonly groups: readonly string[];
  /** When the person last proved who they are to the provider (`auth_time`), in seconds since 1970; else when the token was made. */
  readonly authTime: number;
}

const refuse = (reason: string, next: string) => new Refusal('login_refused', reason, { next });

/**
 * Reads the claims of an ID token whose signature, issuer, audience, times and nonce were checked before. An e-mail
 * address is never looked at. Throws `login_refused` when groups are missing, malformed or left out for size.
 */
export function identityOf(claims: Readonly<Record<string, unknown>>, config: Pick<AuthConfig, 'groupsClaim' | 'nameClaim'>): Identity {
  const { iss, sub, iat, auth_time: authTime } = claims;
  if (typeof iss !== 'string' || typeof sub !== 'string' || sub === '' || sub.length > 255)
    throw refuse('The identity provider did not say who this is.', 'Tell whoever runs it: the ID token needs iss and sub.');
  const named = [config.nameClaim ?? 'name', 'preferred_username'].map((claim) => plainLine(claims[claim], 120)).find((name) => name !== '');
  return {
    issuer: iss,
    subject: sub,
    name: named ?? plainLine(sub, 120),
    groups: groupsOf(claims, config.groupsClaim),
    authTime: typeof authTime === 'number' ? authTime : Number(iat),
  };
}

function groupsOf(claims: Readonly<Record<string, unknown>>, claim: string): string[] {
  const elsewhere = claims._claim_names;
  if (typeof elsewhere === 'object' && elsewhere !== null && Object.hasOwn(elsewhere, claim)) {
    throw refuse(
      `The person is in too many groups: the identity provider left the claim ${claim} out of the token.`,
      'Have it send only the groups that Halligan uses.',
    );
  }
  const groups = Object.hasOwn(claims, claim) ? claims[claim] : undefined;
  if (groups === undefined)
    throw refuse(`The identity provider sent no claim ${claim}.`, 'Have it add the claim to the ID token, or correct login.groupsClaim.');
  if (!Array.isArray(groups) || groups.length > 2000 || !groups.every((group): group is string => typeof group === 'string' && group.length <= 256)) {
    throw refuse(`The claim ${claim} is not a list of at most 2,000 group names.`, 'Have the identity provider send a list of strings.');
  }
  return [...new Set(groups)];
}
