/** What an AWS SDK or the AWS CLI reads from a `credential_process` (AWS SDKs and Tools Reference Guide, "Process credential provider"). */

/** The keys of one session. `expiresAt` is the grant's end or the session's own, whichever is earlier: the SDK asks again before it. */
export interface SessionKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  readonly expiresAt: Date;
}

/** One line of JSON, version 1, with the member names and the ISO 8601 instant that the guide prescribes. */
export const credentialProcess = ({ accessKeyId, secretAccessKey, sessionToken, expiresAt }: SessionKeys): string =>
  JSON.stringify({
    Version: 1,
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    SessionToken: sessionToken,
    Expiration: `${expiresAt.toISOString().slice(0, 19)}Z`,
  });
