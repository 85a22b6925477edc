/**
 * Checkpoints as the writer signs them: the body of C2SP tlog-checkpoint inside a C2SP signed note, with one Ed25519
 * key whose name is the log's origin. Keys are written as Go's `sumdb/note` writes them, so that its tools read ours.
 */
import { createPrivateKey, createPublicKey, hash, type KeyObject, randomBytes, sign, timingSafeEqual, verify } from 'node:crypto';

/** A key or a note that is not what it should be. The message never holds key material. */
export class NoteFault extends Error {
  override readonly name = 'NoteFault';
}

export interface Checkpoint {
  readonly origin: string;
  readonly size: number;
  readonly root: Buffer;
}

export interface Signer {
  /** The key's name, which is also the log's origin. */
  readonly name: string;
  /** `name+hash+base64`: what an auditor needs to check this signer's notes. */
  readonly verifierKey: string;
  /** `text` (which ends in a newline) as a signed note. */
  sign(text: string): string;
}

const ed25519 = 1;
const pkcs8Head = Buffer.from('302e020100300506032b657004220420', 'hex');
const spkiHead = Buffer.from('302a300506032b6570032100', 'hex');
const nameForm = /^[^\s+\p{Cc}]+$/u;

/** C2SP signed-note, "Signatures": SHA-256(name ‖ 0x0A ‖ type ‖ public key), its first four bytes. */
const keyIdOf = (name: string, typed: Buffer): Buffer => hash('sha256', Buffer.concat([Buffer.from(`${name}\n`), typed]), 'buffer').subarray(0, 4);

const strictBase64 = (text: string): Buffer | null => {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : null;
};

/** Splits `…name+hash+base64`; the last part may itself hold a `+`. */
function keyParts(key: string, what: string): { name: string; id: string; bytes: Buffer } {
  const [, name, id, rest] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(key) ?? [];
  const bytes = rest === undefined ? null : strictBase64(rest);
  if (!name || !id || !bytes || !nameForm.test(name)) throw new NoteFault(`The ${what} is not of the form name+hash+base64.`);
  if (bytes.length !== 33 || bytes[0] !== ed25519) throw new NoteFault(`The ${what} is not an Ed25519 key (type 1, 32 bytes).`);
  return { name, id, bytes };
}

/**
 * The signer of a C2SP signing key, `PRIVATE+KEY+name+hash+base64(0x01 ‖ seed)`, as read from its file (one line, a
 * newline at its end is allowed). Throws `NoteFault` for anything else.
 */
export function signerFrom(keyText: string): Signer {
  const text = keyText.replace(/\r?\n$/, '');
  if (text.includes('BEGIN') || !text.startsWith('PRIVATE+KEY+')) {
    throw new NoteFault('The audit signing key must be one line that starts with PRIVATE+KEY+ (C2SP signed-note); PEM and other forms are not read.');
  }
  const { name, id, bytes } = keyParts(text.slice('PRIVATE+KEY+'.length), 'audit signing key');
  const privateKey = createPrivateKey({ key: Buffer.concat([pkcs8Head, bytes.subarray(1)]), format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(spkiHead.length);
  const typed = Buffer.concat([Buffer.of(ed25519), publicKey]);
  const keyId = keyIdOf(name, typed);
  if (keyId.toString('hex') !== id) throw new NoteFault('The audit signing key does not match its own hash: it was cut, changed or renamed.');
  return {
    name,
    verifierKey: `${name}+${id}+${typed.toString('base64')}`,
    sign: (body) => {
      if (!body.endsWith('\n')) throw new NoteFault('A note ends in a newline.');
      const signature = Buffer.concat([keyId, sign(null, Buffer.from(body, 'utf8'), privateKey)]);
      return `${body}\n— ${name} ${signature.toString('base64')}\n`;
    },
  };
}

/** A new signing key for the log called `name`: the secret line for the key file, and the verifier key for everybody. */
export function generateSigningKey(name: string): { signingKey: string; verifierKey: string } {
  if (!nameForm.test(name))
    throw new NoteFault('The name of a log holds neither spaces nor plus signs: use a host and path, such as halligan.example.com/audit.');
  const seed = randomBytes(32);
  const privateKey = createPrivateKey({ key: Buffer.concat([pkcs8Head, seed]), format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(spkiHead.length);
  const id = keyIdOf(name, Buffer.concat([Buffer.of(ed25519), publicKey])).toString('hex');
  const signingKey = `PRIVATE+KEY+${name}+${id}+${Buffer.concat([Buffer.of(ed25519), seed]).toString('base64')}`;
  return { signingKey, verifierKey: signerFrom(signingKey).verifierKey };
}

/** The body that is signed (C2SP tlog-checkpoint, "Note text"): origin, size in decimal, root in base64, a newline after each. */
export const checkpointBody = ({ origin, size, root }: Checkpoint): string => `${origin}\n${size}\n${root.toString('base64')}\n`;

function publicKeyOf(verifierKey: string): { name: string; keyId: Buffer; key: KeyObject } {
  const { name, id, bytes } = keyParts(verifierKey, 'verifier key');
  const keyId = keyIdOf(name, bytes);
  if (keyId.toString('hex') !== id) throw new NoteFault('The verifier key does not match its own hash.');
  return { name, keyId, key: createPublicKey({ key: Buffer.concat([spkiHead, bytes.subarray(1)]), format: 'der', type: 'spki' }) };
}

/** The text of a signed note, after its signature by `verifierKey` was checked. Signatures by other keys are ignored. Throws `NoteFault`. */
export function openNote(note: string, verifierKey: string): string {
  const { name, keyId, key } = publicKeyOf(verifierKey);
  const split = note.lastIndexOf('\n\n');
  if (split < 0 || !note.endsWith('\n')) throw new NoteFault('This is not a signed note.');
  const text = note.slice(0, split + 1);
  for (const line of note.slice(split + 2, -1).split('\n')) {
    const [, signedBy, encoded] = /^— (\S+) (\S+)$/.exec(line) ?? [];
    const bytes = encoded === undefined ? null : strictBase64(encoded);
    if (!signedBy || !bytes || bytes.length < 5) throw new NoteFault('This is not a signed note.');
    if (signedBy !== name || !timingSafeEqual(bytes.subarray(0, 4), keyId)) continue;
    if (!verify(null, Buffer.from(text, 'utf8'), key, bytes.subarray(4))) throw new NoteFault('The signature of the note does not fit its text.');
    return text;
  }
  throw new NoteFault(`The note is not signed by ${name}.`);
}

/** The checkpoint inside a signed note by `verifierKey`, whose name must be the checkpoint's origin. Throws `NoteFault`. */
export function openCheckpoint(note: string, verifierKey: string): Checkpoint {
  const [, origin, size, root] = /^([^\n]+)\n(0|[1-9]\d{0,15})\n([A-Za-z0-9+/]{43}=)\n/.exec(openNote(note, verifierKey)) ?? [];
  if (!origin || !size || !root || !Number.isSafeInteger(Number(size)) || origin !== verifierKey.split('+')[0])
    throw new NoteFault('The note is signed, but it is not a checkpoint of this log.');
  return { origin, size: Number(size), root: Buffer.from(root, 'base64') };
}
