/** Certificates for the live tests, made by openssl when they run: an authority, and what it signs, also what is over already or for another name. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runTool } from './servers/install.ts';

export interface Certificate {
  /** PEM. */
  readonly certFile: string;
  readonly keyFile: string;
}

const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** `days`: how long it is valid, from now; below zero it has expired. `by`: who signs it; itself unless set. */
async function certificate(folder: string, name: string, extensions: string, days: number, by?: Certificate): Promise<Certificate> {
  const file = (ending: string): string => join(folder, `${name}.${ending}`);
  await writeFile(file('ext'), extensions);
  await runTool('openssl', ['req', ...key, '-subj', `/CN=${name}`, '-keyout', file('key'), '-out', file('csr')]);
  const signer = by ? ['-CA', by.certFile, '-CAkey', by.keyFile, '-CAcreateserial'] : ['-signkey', file('key')];
  await runTool('openssl', ['x509', '-req', '-in', file('csr'), '-out', file('pem'), '-days', String(days), '-extfile', file('ext'), ...signer]);
  return { certFile: file('pem'), keyFile: file('key') };
}

export const authority = (folder: string, name: string, days = 2): Promise<Certificate> =>
  certificate(folder, name, 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n', days);

/** `names` as openssl writes them: `IP:127.0.0.1`. */
export const signed = (folder: string, name: string, by: Certificate, { names = 'IP:127.0.0.1', days = 2 } = {}): Promise<Certificate> =>
  certificate(folder, name, `subjectAltName=${names}\nextendedKeyUsage=serverAuth\n`, days, by);
