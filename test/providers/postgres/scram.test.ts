import { createHash, createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import { newPassword, scramVerifier } from '../../../src/providers/postgres/scram.ts';

test('the verifier is the one of RFC 7677 §3: its keys prove the example’s client and sign as its server', async () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
  const verifier = await scramVerifier('pencil', salt);
  const [, storedKey = '', serverKey = ''] = /^SCRAM-SHA-256\$4096:W22ZaJ0SNY7soEsUEjb6gQ==\$([^:]{44}):([^:]{44})$/.exec(verifier) ?? [];
  const messages = [
    'n=user,r=rOprNGfwEbeRWgbNEkqO',
    'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
  ].join(',');
  const sign = (key: string) => createHmac('sha256', Buffer.from(key, 'base64')).update(messages).digest();
  expect(sign(serverKey).toString('base64')).toBe('6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
  const proof = Buffer.from('dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=', 'base64');
  const clientKey = Buffer.from(sign(storedKey).map((byte, at) => byte ^ (proof[at] ?? 0)));
  expect(createHash('sha256').update(clientKey).digest('base64')).toBe(storedKey);
});

test('passwords are long, random and need no quoting; others than printable ASCII are refused', async () => {
  expect(newPassword()).toMatch(/^[A-Za-z0-9_-]{32}$/);
  expect(newPassword()).not.toBe(newPassword());
  await expect(scramVerifier('pässword')).rejects.toThrow(TypeError);
  await expect(scramVerifier('')).rejects.toThrow(TypeError);
});
