/** What was claimed, in the forms that programs read. Secrets pass through here and are kept nowhere. */
import { credentialProcess } from './credential-process.ts';
import { CliFault, usage } from './fault.ts';
import { line, shellWord } from './text.ts';
import type { WireClaim } from './wire.ts';

export type CredentialFormat = 'env' | 'json' | 'uri' | 'pgpass';
export const credentialFormats: readonly CredentialFormat[] = ['env', 'json', 'uri', 'pgpass'];

/** Reads `-o` of `creds`. Throws a usage fault for anything else. */
export function credentialFormatOf(given: string): CredentialFormat {
  const format = credentialFormats.find((one) => one === given);
  if (!format) throw usage(`-o takes ${credentialFormats.join(', ')} here, not ${JSON.stringify(given)}.`);
  return format;
}

interface PostgresLogin {
  readonly host: string;
  readonly port: string;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly sslmode: string | undefined;
}

function postgresLogin(claim: WireClaim): PostgresLogin {
  const { host, port, database, sslmode, user } = claim.connection;
  const { password } = claim.secret;
  if (!host || !port || !database || password === undefined) {
    throw new CliFault(`A login of the kind ${line(claim.kind)} has no such form in this version.`, { next: 'halligan creds … -o json' });
  }
  return { host, port, database, user: user ?? claim.handle, password, sslmode };
}

/** What libpq reads from the environment (PostgreSQL documentation, "Environment Variables"). */
export function libpqEnvironment(claim: WireClaim): Record<string, string> {
  const login = postgresLogin(claim);
  return {
    PGHOST: login.host,
    PGPORT: login.port,
    PGDATABASE: login.database,
    PGUSER: login.user,
    PGPASSWORD: login.password,
    ...(login.sslmode ? { PGSSLMODE: login.sslmode } : {}),
  };
}

/** The keys of an AWS session, where that is what was claimed. */
export function awsKeys(claim: WireClaim): { accessKeyId: string; secretAccessKey: string; sessionToken: string; region: string } | undefined {
  const { accessKeyId, region } = claim.connection;
  const { secretAccessKey, sessionToken } = claim.secret;
  return accessKeyId && secretAccessKey && sessionToken ? { accessKeyId, secretAccessKey, sessionToken, region: region ?? '' } : undefined;
}

/** What the clients of this kind of target read from the environment: libpq's names, or those of the AWS SDKs. */
export function clientEnvironment(claim: WireClaim): Record<string, string> {
  const keys = awsKeys(claim);
  if (!keys) return libpqEnvironment(claim);
  return {
    AWS_ACCESS_KEY_ID: keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
    AWS_SESSION_TOKEN: keys.sessionToken,
    ...(keys.region ? { AWS_REGION: keys.region } : {}),
    AWS_CREDENTIAL_EXPIRATION: claim.expiresAt,
  };
}

/** Says what the child process works under. Nothing secret. */
export const halliganEnvironment = (claim: WireClaim): Record<string, string> => ({
  HALLIGAN_GRANT: claim.grant,
  HALLIGAN_LEASE: claim.lease,
  HALLIGAN_ENTITLEMENT: claim.entitlement,
  HALLIGAN_TARGET: claim.target,
  HALLIGAN_UNTIL: claim.expiresAt,
});

/** libpq and the AWS SDKs would take these before ours, or hand our own login on: they never reach the child. */
const hidden = ['PGHOSTADDR', 'PGSERVICE', 'PGSERVICEFILE', 'PGPASSFILE', 'AWS_PROFILE', 'AWS_DEFAULT_PROFILE', 'AWS_SECURITY_TOKEN', 'HALLIGAN_TOKEN'];

/** The environment of a child that uses the login; the caller's own is left as it is. */
export function childEnvironment(env: NodeJS.ProcessEnv, claim: WireClaim, more: Record<string, string> = {}): NodeJS.ProcessEnv {
  const kept = Object.fromEntries(Object.entries(env).filter(([name]) => !hidden.includes(name)));
  return { ...kept, ...clientEnvironment(claim), ...halliganEnvironment(claim), ...more };
}

/** `postgresql://user:password@host:port/database?sslmode=…` (PostgreSQL documentation, "Connection URIs"; RFC 3986 §2.1). */
export function connectionUri(claim: WireClaim): string {
  const login = postgresLogin(claim);
  const host = login.host.includes(':') ? `[${login.host}]` : encode(login.host);
  return `postgresql://${encode(login.user)}:${encode(login.password)}@${host}:${login.port}/${encode(login.database)}${login.sslmode ? `?sslmode=${encode(login.sslmode)}` : ''}`;
}

/** `encodeURIComponent` leaves `!'()*` alone, which shells do not. */
const encode = (text: string): string => encodeURIComponent(text).replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);

/** `host:port:database:user:password` with `\` and `:` escaped (PostgreSQL documentation, "The Password File"). */
export function pgpassLine(claim: WireClaim): string {
  const login = postgresLogin(claim);
  return [login.host, login.port, login.database, login.user, login.password].map((field) => field.replace(/[\\:]/g, '\\$&')).join(':');
}

/** The credential as text that ends in a newline. */
export function render(claim: WireClaim, format: CredentialFormat): string {
  if (format === 'json') return `${JSON.stringify(claim, null, 2)}\n`;
  if (format === 'uri') return `${connectionUri(claim)}\n`;
  if (format === 'pgpass') return `${pgpassLine(claim)}\n`;
  return Object.entries(clientEnvironment(claim))
    .map(([name, value]) => `export ${name}=${shellWord(value)}\n`)
    .join('');
}

/** The one line that an AWS SDK reads from a `credential_process`. Throws in words when something else was claimed. */
export function credentialProcessLine(claim: WireClaim): string {
  const keys = awsKeys(claim);
  if (!keys)
    throw new CliFault(`${line(claim.entitlement)} opens ${line(claim.target)}, which is no AWS account.`, {
      next: 'halligan entitlements shows what each one opens.',
    });
  return `${credentialProcess({ ...keys, expiresAt: new Date(claim.expiresAt) })}\n`;
}
