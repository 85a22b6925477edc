/** Secrets by reference: a file, or a variable of the environment, read each time they are needed and kept nowhere. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';

export type SecretRef = { readonly file: string } | { readonly env: string };

/** The reference that `block` holds under `<name>File` or `<name>Env`; a file is resolved against `folder`. */
export function secretRef(block: object, name: string, folder: string): SecretRef | undefined {
  const { [`${name}File`]: file, [`${name}Env`]: env } = block as Record<string, string | undefined>;
  if (file !== undefined) return { file: resolve(folder, file) };
  return env === undefined ? undefined : { env };
}

/** The secret itself, without a final newline. Throws in words, never with the secret. */
export async function readSecret(ref: SecretRef): Promise<string> {
  if ('env' in ref) {
    const value = process.env[ref.env];
    if (!value) throw new Error(`the environment variable ${ref.env} is not set`);
    return value;
  }
  const text = await readFile(ref.file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`the secret file ${ref.file} cannot be read (${error.code})`);
  });
  const value = text.replace(/\r?\n$/, '');
  if (!value) throw new Error(`the secret file ${ref.file} is empty`);
  return value;
}
