/** One signed GET to S3, by hand (AWS Signature Version 4, "Authenticating Requests: Using the Authorization Header"), so that the probe shares no code with the provider. */
import { createHash, createHmac } from 'node:crypto';

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();

export interface Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** The status and body of the call to `url`, which must have no query. */
export async function signedCall(url: string, keys: Keys, method: 'GET' | 'PUT' = 'GET', body = ''): Promise<{ status: number; text: string }> {
  const { host, pathname } = new URL(url);
  const now = new Date().toISOString().replaceAll(/[-:]|\.\d{3}/g, '');
  const scope = `${now.slice(0, 8)}/us-east-1/s3/aws4_request`;
  const headers: Record<string, string> = {
    host,
    'x-amz-content-sha256': sha256(body),
    'x-amz-date': now,
    ...(keys.sessionToken === undefined ? {} : { 'x-amz-security-token': keys.sessionToken }),
  };
  const names = Object.keys(headers).sort();
  const canonical = [method, pathname, '', ...names.map((name) => `${name}:${headers[name]}`), '', names.join(';'), sha256(body)].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', now, scope, sha256(canonical)].join('\n');
  const key = ['us-east-1', 's3', 'aws4_request'].reduce<string | Buffer>(
    (made, part) => hmac(made, part),
    hmac(`AWS4${keys.secretAccessKey}`, now.slice(0, 8)),
  );
  const authorization = `AWS4-HMAC-SHA256 Credential=${keys.accessKeyId}/${scope}, SignedHeaders=${names.join(';')}, Signature=${hmac(key, toSign).toString('hex')}`;
  const { host: _, ...sent } = headers;
  const answer = await fetch(url, { method, headers: { ...sent, authorization }, ...(method === 'PUT' ? { body } : {}), signal: AbortSignal.timeout(5_000) });
  return { status: answer.status, text: await answer.text() };
}
