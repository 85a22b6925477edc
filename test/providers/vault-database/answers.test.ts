import { describe, expect, test } from 'vitest';
import type { ProviderError } from '../../../src/domain/provider.ts';
import { asFailure, clean, saidOf } from '../../../src/providers/vault-database/answers.ts';
import { UnusableAnswer } from '../../../src/providers/vault-database/send.ts';

const failureOf = (error: unknown, aborted = false): ProviderError =>
  asFailure(error, 'orders-vault', 'https://vault.example.com', 'making the token of a lease', aborted);

describe('what Vault says is cleaned of what must not be repeated', () => {
  test.each([
    ['a service token', 'bad token hvs.CAESIJ0xAAAAAAAAAAAAAAAA found', 'bad token … found'],
    ['a token of OpenBao', 's.Y9nTtk68kJb9u50oeHo6jAF8.ns12 is gone', '… is gone'],
    ['a JWT', 'cannot parse eyJhbGciOi.eyJzdWIi.abc', 'cannot parse …'],
    ['a literal of a statement', `syntax error in PASSWORD 'hunter2' VALID`, `syntax error in PASSWORD '…' VALID`],
    ['what a parser points at', 'ERROR: syntax error at or near "hunter2"', 'ERROR: syntax error at or near …'],
    ['line breaks and a final stop', '1 error occurred:\n\t* invalid accessor.\n\n', '1 error occurred: * invalid accessor'],
  ])('%s', (_name, text, wanted) => {
    expect(clean(text)).toBe(wanted);
  });
});

describe('failures are told apart', () => {
  test.each([
    [new UnusableAnswer(503, {}, { errors: ['Vault is sealed'] }), 'target_unreachable', /is sealed/, /unseal/],
    [new UnusableAnswer(429, { 'retry-after': '3' }, null), 'target_failed', /rate limit/, /quota/],
    [new UnusableAnswer(473, {}, {}), 'target_unreachable', /standby/, /active server/],
    [new UnusableAnswer(307, { location: 'https://v2.example.com/x' }, null), 'target_unreachable', /standby/, /v2\.example\.com/],
    [new UnusableAnswer(403, {}, { errors: ['permission denied'] }), 'target_forbids', /permission denied/, /policy/],
    [new UnusableAnswer(500, {}, { errors: ['boom'] }), 'target_failed', /failed while making the token of a lease: boom/, /log/],
    [Object.assign(new Error('x'), { code: 'ECONNREFUSED' }), 'target_unreachable', /ECONNREFUSED/, /address/],
    [Object.assign(new Error('x'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }), 'target_unreachable', /prove who it is/, /tlsCaFile/],
    [Object.assign(new Error('x'), { code: 'CERT_HAS_EXPIRED' }), 'target_unreachable', /has expired \(CERT_HAS_EXPIRED\)/, /Renew it/],
    [Object.assign(new Error('x'), { code: 'CERT_NOT_YET_VALID' }), 'target_unreachable', /not valid yet/, /clocks/],
    [Object.assign(new Error('x'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }), 'target_unreachable', /another name/, /Set address/],
    [Object.assign(new Error('x'), { code: 'ERR_SSL_WRONG_VERSION_NUMBER' }), 'target_unreachable', /does not speak TLS/, /address/],
    [Object.assign(new Error('x'), { code: 'HPE_INVALID_CONSTANT' }), 'target_unreachable', /may want https/, /address/],
    [Object.assign(new Error('x'), { code: 'ABORT_ERR' }), 'target_timeout', /did not answer in time/, /storage/],
  ])('%s', (error, code, message, next) => {
    const failure = failureOf(error);
    expect(failure).toMatchObject({ code, message: expect.stringMatching(message), next: expect.stringMatching(next) });
  });

  test('the wait that a server asks for is kept, five minutes at most', () => {
    const wait = (seconds: string): number => (failureOf(new UnusableAnswer(429, { 'retry-after': seconds }, null)).retryAt?.getTime() ?? 0) - Date.now();
    expect(wait('7')).toBeGreaterThan(6_000);
    expect(wait('99999')).toBeLessThanOrEqual(300_000);
  });

  test('what was said is kept for our own branching, and is not printed', () => {
    const failure = failureOf(new UnusableAnswer(404, {}, { errors: ['no handler for route'] }));
    expect(saidOf(failure)).toEqual({ status: 404, message: 'no handler for route' });
    expect(JSON.stringify(failure)).not.toContain('no handler');
    expect(saidOf(new Error('x'))).toEqual({ status: 0, message: '' });
  });
});
