/** The verifier's own reading of keys, signed notes (C2SP signed-note) and checkpoints (C2SP tlog-checkpoint). Shares nothing with the writer. */
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';

export interface VerifierKey {
  readonly name: string;
  readonly id: string;
  readonly key: KeyObject;
}

export interface Head {
  readonly size: number;
  /** 64 hex digits. */
  readonly root: string;
}

/** Something is not of the form it must have. The message is for people. */
export class BadForm extends Error {
  override readonly name = 'BadForm';
}

function fromBase64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') !== text) throw new BadForm('That is not base64.');
  return bytes;
}

/** Reads `name+hash+base64(0x01 ‖ Ed25519 public key)`. Throws `BadForm`. */
export function readKey(text: string): VerifierKey {
  const trimmed = text.trim();
  if (trimmed.startsWith('PRIVATE+KEY+')) throw new BadForm('This is the secret signing key. Verifying takes the verifier key, name+hash+base64.');
  const first = trimmed.indexOf('+');
  const second = trimmed.indexOf('+', first + 1);
  const name = trimmed.slice(0, Math.max(first, 0));
  const id = trimmed.slice(first + 1, second);
  if (name === '' || second < 0 || !/^[0-9a-f]{8}$/.test(id) || /[\s\p{Cc}]/u.test(name))
    throw new BadForm('The verifier key is not of the form name+hash+base64.');
  const typed = fromBase64(trimmed.slice(second + 1));
  if (typed.length !== 33 || typed[0] !== 1) throw new BadForm('The verifier key is not an Ed25519 key.');
  const digest = createHash('sha256').update(`${name}\n`).update(typed).digest('hex');
  if (digest.slice(0, 8) !== id) throw new BadForm('The verifier key does not match its own hash: it was cut or changed.');
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: typed.subarray(1).toString('base64url') };
  return { name, id, key: createPublicKey({ key: jwk, format: 'jwk' }) };
}

export type OpenedNote = { readonly head: Head } | { readonly fault: 'signature' | 'form'; readonly message: string };

const bad = (fault: 'signature' | 'form', message: string): OpenedNote => ({ fault, message });

// Control characters below U+0020 other than newline.
const forbidden = /[^\P{Cc}\n\u007f-\u009f]/u;

/** Checks a signed note and reads the checkpoint inside. Signatures by other keys are ignored, as the specification asks; ours must be there and fit. */
export function openNote(note: string, by: VerifierKey): OpenedNote {
  if (forbidden.test(note) || !note.endsWith('\n')) return bad('form', 'it is not a signed note');
  const split = note.lastIndexOf('\n\n');
  if (split < 0) return bad('form', 'it is not a signed note');
  const text = note.slice(0, split + 1);
  const signatures = note.slice(split + 2, -1).split('\n');
  if (signatures.length > 64) return bad('form', 'it bears more than 64 signatures');
  let signed = false;
  for (const line of signatures) {
    const [dash, name, encoded, ...more] = line.split(' ');
    if (dash !== '—' || !name || !encoded || more.length > 0) return bad('form', 'a line of signature is not one');
    const bytes = Buffer.from(encoded, 'base64');
    if (bytes.toString('base64') !== encoded || bytes.length < 5) return bad('form', 'a line of signature is not one');
    if (name !== by.name || bytes.toString('hex', 0, 4) !== by.id) continue;
    if (bytes.length !== 68 || !verify(null, Buffer.from(text, 'utf8'), by.key, bytes.subarray(4)))
      return bad('signature', `the signature by ${by.name} does not fit`);
    signed = true;
  }
  if (!signed) return bad('signature', `it is not signed by ${by.name}+${by.id}`);
  return readBody(text, by.name);
}

function readBody(text: string, origin: string): OpenedNote {
  const [first, size, root, ...rest] = text.split('\n');
  if (first !== origin) return bad('signature', `it is a checkpoint of another log than ${origin}`);
  // Extension lines may follow; the last part after the final newline is empty.
  if (rest.at(-1) !== '' || rest.slice(0, -1).includes('')) return bad('form', 'its text is not a checkpoint');
  if (!size || !/^(0|[1-9]\d{0,15})$/.test(size) || !Number.isSafeInteger(Number(size))) return bad('form', 'its size is not a number');
  const bytes = Buffer.from(root ?? '', 'base64');
  if (bytes.length !== 32 || bytes.toString('base64') !== root) return bad('form', 'its root is not a SHA-256 hash');
  return { head: { size: Number(size), root: bytes.toString('hex') } };
}
