/**
 * SCRAM-SHA-256 verifiers, computed on our side: PostgreSQL stores what is given here as it is, so a password never
 * travels to the server, its logs or its statistics. Anyone may read a verifier without being able to log in by it.
 */
import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';

const derive = promisify(pbkdf2);
const hmac = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();

/** PostgreSQL's own default (`scram_iterations`). RFC 7677 §4 asks for at least 4096; our passwords carry 192 random bits, so more would only cost time. */
const iterations = 4096;

/**
 * The text that PostgreSQL keeps in `pg_authid.rolpassword`: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`
 * (RFC 5802 §3, RFC 7677). `password` must be printable ASCII, for which SASLprep (RFC 4013) changes nothing.
 */
export async function scramVerifier(password: string, salt: Buffer = randomBytes(16)): Promise<string> {
  if (!/^[\x20-\x7e]+$/.test(password)) throw new TypeError('a password for SCRAM must be printable ASCII');
  const salted = await derive(password, salt, iterations, 32, 'sha256');
  const storedKey = createHash('sha256').update(hmac(salted, 'Client Key')).digest('base64');
  const serverKey = hmac(salted, 'Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}

/** A password with 192 random bits, safe in a URL, a shell and a `.pgpass` without quoting. */
export const newPassword = (): string => randomBytes(24).toString('base64url');
