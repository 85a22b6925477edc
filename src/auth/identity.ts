/** From validated ID token claims to an identity: issuer and subject, a name to show, and groups. Pure. */
import { Refusal } from '../domain/errors.ts';
import type { AuthConfig } from './config.ts';
import { plainLine } from './untrusted-text.ts';

export interface Identity {
  readonly issuer: string;
  readonly subject: string;
  readonly name: string;
  readonly groups: readonly string[];
  /** Where mail for them goes, when the provider gave an address and did not call it unverified. It identifies nobody. */
  readonly email: string | null;
  /** When the person last proved who they are to the provider (`auth_time`), in seconds since 1970. A provider that was not asked may leave it out; then nothing is known. */
  readonly authTime: number | undefined;
  /** How they proved it (`acr`), where the provider said so. */
  readonly acr: string | null;
}

/** The provider said who it is, and not what groups they are in. What was known of their groups before no longer counts. */
export class GroupsUnread extends Refusal {
  readonly who: { readonly issuer: string; readonly subject: string };
  constructor(refusal: Refusal, who: GroupsUnread['who']) {
    super(refusal.code, refusal.message, refusal.next === undefined ? {} : { next: refusal.next });
    this.who = who;
  }
}

const refuse = (reason: string, next: string) => new Refusal('login_refused', reason, { next });

/**
 * Reads the claims of an ID token whose signature, issuer, audience, times and nonce were checked before. An e-mail
 * address tells where mail goes and nothing else. Throws `login_refused` when groups are missing, malformed or left out for size.
 */
export function identityOf(claims: Readonly<Record<string, unknown>>, config: Pick<AuthConfig, 'groupsClaim' | 'nameClaim' | 'emailClaim'>): Identity {
  const { iss, sub, auth_time: authTime, acr } = claims;
  if (typeof iss !== 'string' || typeof sub !== 'string' || sub === '' || sub.length > 255)
    throw refuse('The identity provider did not say who this is.', 'Tell whoever runs it: the ID token needs iss and sub.');
  const named = [config.nameClaim ?? 'name', 'preferred_username'].map((claim) => plainLine(claims[claim], 120)).find((name) => name !== '');
  return {
    issuer: iss,
    subject: sub,
    name: named ?? plainLine(sub, 120),
    groups: groupsOr(() => groupsOf(claims, config.groupsClaim), { issuer: iss, subject: sub }),
    email: emailOf(claims, config.emailClaim ?? 'email'),
    authTime: typeof authTime === 'number' && Number.isFinite(authTime) && authTime >= 0 ? authTime : undefined,
    acr: typeof acr === 'string' && acr.length <= 200 && acr !== '' ? acr : null,
  };
}

function groupsOr(read: () => string[], who: GroupsUnread['who']): string[] {
  try {
    return read();
  } catch (error) {
    throw error instanceof Refusal ? new GroupsUnread(error, who) : error;
  }
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

/** One address in a form that every mail server takes, or nothing. */
function emailOf(claims: Readonly<Record<string, unknown>>, claim: string): string | null {
  const address = Object.hasOwn(claims, claim) ? claims[claim] : undefined;
  if (typeof address !== 'string' || claims.email_verified === false || claims.email_verified === 'false') return null;
  return /^[^\s@<>,;:"()[\]\\\p{C}]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])$/u.test(address) ? address : null;
}
