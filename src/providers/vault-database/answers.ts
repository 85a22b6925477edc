/** What Vault's answers mean: every failure becomes a `ProviderError`, in words, with a next step, and without anything that was sent. */
import { ProviderError } from '../../domain/provider.ts';
import { oneLine } from '../postgres/sql.ts';
import { UnusableAnswer } from './send.ts';

/** What our own code branches on; it is not shown, and holds no secret. */
export interface Said {
  /** 0 when there was no answer. */
  readonly status: number;
  readonly message: string;
}

type Code = ConstructorParameters<typeof ProviderError>[0];

/** What Vault said with this failure; status 0 when it said nothing. */
export function saidOf(error: unknown): Said {
  const cause = error instanceof ProviderError ? (error.cause as Said | undefined) : undefined;
  return cause ?? { status: 0, message: '' };
}

/** The failure with what was said kept aside for `saidOf`. */
export function failed(code: Code, message: string, said: Said, more: { next?: string; retryAt?: Date; nothingMade?: boolean } = {}): ProviderError {
  const error = new ProviderError(code, message, more);
  Object.defineProperty(error, 'cause', { value: said, enumerable: false });
  return error;
}

/**
 * A database's own words can quote a statement, and a statement can hold a new password; tokens could be echoed by a
 * proxy. Quoted literals and everything that looks like a token is left out.
 */
export const clean = (text: string): string =>
  oneLine(
    text
      .replace(/\b(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9]+)?/g, '…')
      .replace(/\beyJ[A-Za-z0-9_.-]+/g, '…')
      .replace(/'[^']*'/g, "'…'")
      .replace(/at or near "[^"]*"/g, 'at or near …'),
  ).replace(/[.\s]+$/, '');

const tlsCode = /CERT|TLS|SSL|SELF_SIGNED|ALTNAME|UNABLE_TO|DEPTH_ZERO/;

/** What is wrong with a server's certificate, and what mends it. */
const certificateFaults: readonly { readonly code: RegExp; readonly what: string; readonly next: string }[] = [
  {
    code: /EXPIRED/,
    what: 'its certificate, or that of the authority that signed it, has expired',
    next: "Renew it at the server; where it is the authority's own, put the new one into tlsCaFile. If neither is true, look at the clock of this machine.",
  },
  {
    code: /NOT_YET_VALID/,
    what: 'its certificate is not valid yet',
    next: 'Look at the clocks of this machine and of the one that made the certificate.',
  },
  {
    code: /ALTNAME/,
    what: 'its certificate is for another name',
    next: 'Set address to a name that stands in the certificate, or have that name put into it.',
  },
];
const otherCertificateFault = {
  what: 'its certificate is not signed by an authority that is trusted here',
  next: "Set tlsCaFile to the authority that signed the server's certificate.",
};

/** Translates whatever a call threw. `doing` finishes the sentence "… while". */
export function asFailure(error: unknown, name: string, address: string, doing: string, aborted: boolean): ProviderError {
  if (error instanceof ProviderError) return error;
  if (error instanceof UnusableAnswer) return refused(error, name, doing);
  const { code = '', message = '' } = error as { code?: string; message?: string };
  const silent = { status: 0, message: '' };
  if (aborted || code === 'ABORT_ERR' || code === 'AbortError' || code === 'TimeoutError' || code === 'ETIMEDOUT')
    return failed('target_timeout', `${name}: Vault at ${address} did not answer in time while ${doing}.`, silent, {
      next: 'Look whether the server is up, and whether its storage and the database behind it answer.',
    });
  if (/wrong.version|PACKET_LENGTH/i.test(`${message} ${code}`))
    return failed('target_unreachable', `${name}: what answers at ${address} does not speak TLS there; it may want http.`, silent, {
      next: 'Correct "address".',
    });
  if (tlsCode.test(code)) {
    const { what, next } = certificateFaults.find((fault) => fault.code.test(code)) ?? otherCertificateFault;
    return failed('target_unreachable', `${name}: Vault at ${address} could not prove who it is: ${what} (${clean(code)}).`, silent, { next });
  }
  if (/Parse Error|HPE_/.test(`${message} ${code}`))
    return failed('target_unreachable', `${name}: what answers at ${address} does not speak plain HTTP there; it may want https.`, silent, {
      next: 'Correct "address".',
    });
  return failed('target_unreachable', `${name}: Vault at ${address} could not be reached while ${doing} (${clean(code || message)}).`, silent, {
    next: 'Look whether the server is up and the address is right.',
  });
}

function refused(answer: UnusableAnswer, name: string, doing: string): ProviderError {
  const said = { status: answer.status, message: messageOf(answer.body) };
  const words = said.message === '' ? `status ${answer.status}` : `${said.message} (${answer.status})`;
  const { retryAfter } = answer.headers;
  const waits = retryAfter === undefined ? {} : { retryAt: new Date(Date.now() + Math.min(300, Number(retryAfter) || 1) * 1_000) };
  if (answer.status === 503 && /seal/i.test(said.message))
    return failed('target_unreachable', `${name}: Vault is sealed, so nothing can be done there while ${doing}.`, said, {
      next: 'Unseal it: bao operator unseal.',
    });
  if (answer.status === 503 && /maintenance|not init/i.test(said.message))
    return failed('target_unreachable', `${name}: Vault is not ready: ${words}.`, said, { next: 'Look at bao status there.' });
  if (answer.status === 307 || answer.status === 472 || answer.status === 473 || (/standby/i.test(said.message) && answer.status >= 400))
    return failed('target_unreachable', `${name}: this Vault server is a standby and does not pass calls on.`, said, {
      next: `Set address to the active server or to a balancer${answer.headers['location'] ? ` (it points to ${hostOf(answer.headers['location'])})` : ''}.`,
    });
  if (answer.status === 429)
    return failed('target_failed', `${name}: Vault takes no more calls for the moment (a rate limit) while ${doing}.`, said, {
      next: 'Raise the quota of Halligan there; the call can be tried again.',
      ...waits,
    });
  if (answer.status === 403)
    return failed('target_forbids', `${name}: Vault refused while ${doing}: ${words}.`, said, {
      next: 'Give Halligan the policy that docs/providers.md prints for this target.',
    });
  if (answer.status >= 500)
    return failed('target_failed', `${name}: Vault failed while ${doing}: ${words}.`, said, { next: "Look at Vault's own log.", ...waits });
  return failed('target_failed', `${name}: Vault refused while ${doing}: ${words}.`, said);
}

const messageOf = (body: unknown): string => {
  const errors = body !== null && typeof body === 'object' && 'errors' in body && Array.isArray(body.errors) ? body.errors : [];
  return clean(errors.filter((line): line is string => typeof line === 'string').join('; '));
};

const hostOf = (location: string): string => (URL.canParse(location) ? new URL(location).host : 'another server');
