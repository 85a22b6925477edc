/** Signed notes and checkpoints against what Go's `sumdb/note` signs, and against the verifier's own reading. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checkpointBody, generateSigningKey, NoteFault, openCheckpoint, openNote, signerFrom } from '../../src/audit/checkpoint.ts';
import { BadForm, readKey, openNote as verifierOpenNote } from '../../src/audit/verify-note.ts';

const { note, long } = JSON.parse(readFileSync(new URL('./vectors/merkle.json', import.meta.url), 'utf8')) as {
  note: { signerKey: string; verifierKey: string; text: string; signed: string; checkpointText: string; checkpoint: string };
  long: { roots: Record<string, string> };
};

describe('the note that sumdb/note signs', () => {
  const signer = signerFrom(`${note.signerKey}\n`);
  test('is signed by us to the same bytes', () => {
    expect(signer.name).toBe('PeterNeumann');
    expect(signer.verifierKey).toBe('PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW');
    expect(signer.sign(note.text)).toBe(note.signed);
    expect(note.signed).toContain('— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n');
    expect(openNote(note.signed, note.verifierKey)).toBe(note.text);
  });
  test('holds a checkpoint, to the same bytes', () => {
    const root = Buffer.from(long.roots['1000'] ?? '', 'hex');
    expect(checkpointBody({ origin: 'PeterNeumann', size: 1000, root })).toBe(note.checkpointText);
    expect(signer.sign(note.checkpointText)).toBe(note.checkpoint);
    expect(openCheckpoint(note.checkpoint, note.verifierKey)).toEqual({ origin: 'PeterNeumann', size: 1000, root });
    expect(verifierOpenNote(note.checkpoint, readKey(note.verifierKey))).toEqual({ head: { size: 1000, root: root.toString('hex') } });
  });
  test('with a second signature by an unknown key is still good', () => {
    const cosigned = `${note.checkpoint}— witness.example/w ${Buffer.alloc(68, 7).toString('base64')}\n`;
    expect(openCheckpoint(cosigned, note.verifierKey).size).toBe(1000);
    expect(verifierOpenNote(cosigned, readKey(note.verifierKey))).toHaveProperty('head.size', 1000);
  });
});

test('a new key signs what its verifier key opens, and nothing else', () => {
  const { signingKey, verifierKey } = generateSigningKey('halligan.example.com/audit');
  const signer = signerFrom(signingKey);
  const signed = signer.sign(checkpointBody({ origin: signer.name, size: 7, root: Buffer.alloc(32, 1) }));
  expect(openCheckpoint(signed, verifierKey).size).toBe(7);
  const other = generateSigningKey('halligan.example.com/audit');
  expect(() => openCheckpoint(signed, other.verifierKey)).toThrow(NoteFault);
  expect(verifierOpenNote(signed, readKey(other.verifierKey))).toMatchObject({ fault: 'signature' });
  // A note of the same key that is no checkpoint of this log.
  expect(() => openCheckpoint(signer.sign('another.example/log\n7\nAAAA\n'), verifierKey)).toThrow(/not a checkpoint/);
});

test.each([
  ['nothing', ''],
  ['a PEM key', '-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n'],
  ['a verifier key', note.verifierKey],
  ['a key with another hash', note.signerKey.replace('c74f20a3', 'c74f20a4')],
  ['a key with another name', note.signerKey.replace('Peter', 'Pieter')],
  ['a cut key', note.signerKey.slice(0, -8)],
  ['a key of another type', note.signerKey.replace('+AYEK', '+AoEK')],
  ['two lines', `${note.signerKey}\n${note.signerKey}\n`],
])('a signing key file with %s is refused in words, without its content', (_, text) => {
  const fault = (() => {
    try {
      signerFrom(text);
      return null;
    } catch (error) {
      return error;
    }
  })();
  expect(fault).toBeInstanceOf(NoteFault);
  expect((fault as NoteFault).message).toMatch(/^The audit signing key /);
  expect((fault as NoteFault).message).not.toContain('FALVFGyNhPJEMzD1QIDr');
});

test('the name of a log may hold neither spaces nor plus signs', () => {
  expect(() => generateSigningKey('a log')).toThrow(NoteFault);
  expect(() => generateSigningKey('a+log')).toThrow(NoteFault);
  expect(() => generateSigningKey('')).toThrow(NoteFault);
});

describe('manglings of a verifier key', () => {
  const key = note.verifierKey;
  test('any part of it, and any byte of it raised by one, is no key', () => {
    for (let from = 0; from < key.length; from += 1) {
      for (let to = from + 1; to <= key.length; to += 3) {
        if (from > 0 || to < key.length) expect(() => readKey(key.slice(from, to))).toThrow(BadForm);
      }
      const raised = key.slice(0, from) + String.fromCharCode(key.charCodeAt(from) + 1) + key.slice(from + 1);
      expect(() => readKey(raised)).toThrow(BadForm);
      expect(() => openNote(note.signed, raised)).toThrow(NoteFault);
    }
  });
  test('a wrong length and an unknown algorithm are refused although the hash fits', () => {
    expect(() => readKey('PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==')).toThrow(BadForm);
    expect(() => readKey('PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW')).toThrow(BadForm);
  });
  test('the secret key is named as such', () => {
    expect(() => readKey(note.signerKey)).toThrow(/secret signing key/);
  });
});

describe('invariant 21: manglings of a note', () => {
  const key = readKey(note.verifierKey);
  test('any byte of the text or of our signature changed is found', () => {
    const bytes = Buffer.from(note.checkpoint, 'utf8');
    for (let at = 0; at < bytes.length; at += 1) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(verifierOpenNote(changed.toString('utf8'), key), `byte ${at}`).toHaveProperty('fault');
    }
  });
  test.each([
    ['no newline at its end', note.checkpoint.slice(0, -1)],
    ['no signature', note.checkpointText],
    ['a carriage return', note.checkpoint.replaceAll('\n', '\r\n')],
    ['no blank line', note.checkpoint.replace('\n\n', '\n')],
    ['a hyphen for the dash', note.checkpoint.replace('—', '-')],
    [
      'a longer signature',
      note.checkpoint.replace(/(\S+)\n$/, (_, sig: string) => `${Buffer.concat([Buffer.from(sig, 'base64'), Buffer.of(1)]).toString('base64')}\n`),
    ],
  ])('%s', (_, changed) => {
    expect(verifierOpenNote(changed, key)).toHaveProperty('fault');
    expect(() => openCheckpoint(changed, note.verifierKey)).toThrow(NoteFault);
  });
  test.each([
    ['size with a leading zero', '1000', '01000'],
    ['size with a sign', '1000', '+1000'],
    ['size beyond 2^53', '1000', '9999999999999999'],
    ['another origin', 'PeterNeumann', 'PeterNewman'],
    ['a short root', /\n\S+=\n$/, '\nAAAA\n'],
    ['no root', /\n\S+=\n$/, '\n\n'],
  ])('properly signed, but %s', (_, from, to) => {
    const signed = signerFrom(note.signerKey).sign(note.checkpointText.replace(from, to));
    expect(verifierOpenNote(signed, key)).toHaveProperty('fault');
    expect(() => openCheckpoint(signed, note.verifierKey)).toThrow(NoteFault);
  });
});
