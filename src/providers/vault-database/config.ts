/** What a config says of a Vault or OpenBao target, and the names that follow from it. Names become parts of paths, so none may leave its place. */
import { isIP } from 'node:net';
import { z } from 'zod';

const isLoopback = (host: string): boolean => host === 'localhost' || host === '[::1]' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

/** One step of a path: no slash, no dots in a row, nothing that a URL or a glob of a policy would read as more than a name. */
const segment = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.|$))*$/;
const nameOf = (what: string) => z.string().max(100).regex(segment, `${what} has letters, digits, "_", "-" and single dots only`);
const mountOf = (what: string) =>
  z
    .string()
    .max(200)
    .refine((text) => text.split('/').every((part) => segment.test(part)), `${what} is a path such as database or team/database, without a slash at its ends`);

const login = {
  mount: mountOf('mount').optional().describe('where the auth method is mounted; its own name unless set'),
  role: nameOf('role').describe('the role of that auth method that is ours'),
};
const projected = '/var/run/secrets/kubernetes.io/serviceaccount/token';
const auth = z
  .discriminatedUnion('method', [
    z.strictObject({ method: z.literal('kubernetes'), ...login, jwtFile: z.string().min(1).default(projected).describe("our service account's token") }),
    z.strictObject({
      method: z.literal('jwt'),
      ...login,
      jwtFile: z.string().min(1).describe('a file with a JWT that proves who we are; read again at each login'),
    }),
    z.strictObject({
      method: z.literal('approle'),
      mount: login.mount,
      roleId: z.string().min(1),
      secretIdFile: z.string().min(1).optional(),
      secretIdEnv: z.string().min(1).optional(),
    }),
    z.strictObject({ method: z.literal('token'), tokenFile: z.string().min(1).optional(), tokenEnv: z.string().min(1).optional() }),
  ])
  .superRefine((block, ctx) => {
    if (block.method === 'approle' && (block.secretIdFile === undefined) === (block.secretIdEnv === undefined))
      ctx.addIssue({ code: 'custom', path: ['secretIdFile'], message: 'say secretIdFile or secretIdEnv, one of the two' });
    if (block.method === 'token' && (block.tokenFile === undefined) === (block.tokenEnv === undefined))
      ctx.addIssue({ code: 'custom', path: ['tokenFile'], message: 'say tokenFile or tokenEnv, one of the two' });
  });

const tls = z.enum(['verify-full', 'require', 'disable']);
const probe = z
  .strictObject({
    host: z.string().min(1).max(253).optional().describe("the target's host unless set"),
    port: z.int().min(1).max(65_535).optional(),
    database: z.string().min(1).max(63).optional(),
    user: z.string().min(1).max(63).describe('a login that may see and end sessions, and nothing else'),
    passwordFile: z.string().min(1).optional(),
    passwordEnv: z.string().min(1).optional(),
    tls: tls.optional(),
    tlsCaFile: z.string().min(1).optional(),
  })
  .superRefine((block, ctx) => {
    if ((block.passwordFile === undefined) === (block.passwordEnv === undefined))
      ctx.addIssue({ code: 'custom', path: ['passwordFile'], message: 'say passwordFile or passwordEnv, one of the two' });
  });

export const targetSchema = z
  .strictObject({
    address: z
      .string()
      .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), 'must be a URL that starts with https://')
      .refine((text) => !URL.canParse(text) || isBare(new URL(text)), 'must be an address only: no user, path or query')
      .describe('where Vault or OpenBao is'),
    tlsCaFile: z.string().min(1).optional().describe("the certificate authority to trust (PEM), instead of the system's"),
    namespace: mountOf('namespace').optional(),
    auth: auth.describe("Halligan's own login there"),
    mount: mountOf('mount').default('database').describe('where the database secrets engine is'),
    tokenRole: nameOf('tokenRole')
      .default('halligan-lease')
      .describe('the token role through which the token of a lease is made; the policies of leases begin with its name'),
    indexMount: mountOf('indexMount').default('halligan').describe('a KV version 1 engine that only Halligan uses: it lists the open leases'),
    plugin: z.enum(['postgresql', 'other']).default('postgresql').describe('what stands behind the secrets engine; of others less can be checked'),
    host: z.string().min(1).max(253).describe('where holders find the database'),
    port: z.int().min(1).max(65_535).default(5432),
    database: z.string().min(1).max(63),
    tls: tls.default('verify-full').describe('what holders are told to demand of the database'),
    allowPlaintext: z.boolean().default(false).describe('lets http: and tls: disable be used for another machine'),
    sessionsEndWithUser: z.boolean().default(false).describe("the roles' revocation statements end open sessions, so Vault does it when Halligan is dead"),
    reaper: z
      .union([z.boolean(), z.int().min(1).max(3_600)])
      .default(false)
      .describe('halligan reap runs beside the database, from the beginning of one round to that of the next at most so many seconds; true: 60'),
    probe: probe.optional().describe('a login at the database itself, to read back there that a user is gone and to end what is still open'),
  })
  .superRefine((block, ctx) => {
    const url = URL.canParse(block.address) ? new URL(block.address) : undefined;
    const far = url && !isLoopback(url.hostname);
    if (far && url.protocol === 'http:' && !block.allowPlaintext)
      ctx.addIssue({ code: 'custom', path: ['address'], message: 'must be https, except on loopback' });
    if (far && block.auth.method === 'token')
      ctx.addIssue({ code: 'custom', path: ['auth', 'method'], message: 'token is for development, on loopback only: use kubernetes or jwt' });
    if (block.tls === 'disable' && !block.allowPlaintext && !isLoopback(block.host))
      ctx.addIssue({ code: 'custom', path: ['tls'], message: 'disable is for a server on this machine; for another one say allowPlaintext: true as well' });
    if (!block.probe && !block.sessionsEndWithUser)
      ctx.addIssue({
        code: 'custom',
        path: ['probe'],
        message: 'nothing would end open sessions: give a probe, or say sessionsEndWithUser: true once the revocation statements of the roles do',
      });
    if (block.reaper !== false && block.plugin !== 'postgresql')
      ctx.addIssue({ code: 'custom', path: ['reaper'], message: 'the reaper knows PostgreSQL only' });
    if (block.probe && block.plugin !== 'postgresql') ctx.addIssue({ code: 'custom', path: ['probe'], message: 'a probe speaks PostgreSQL only' });
  });
export type VaultConfig = z.infer<typeof targetSchema>;

export const grantSchema = z.strictObject({ role: nameOf('role').describe('a role of the database secrets engine, whose user the holder gets') });
export type VaultGrant = z.infer<typeof grantSchema>;

const isBare = (url: URL): boolean => url.pathname === '/' && !url.search && !url.hash && !url.username && !url.password;

/** The ACL policy that the token of a lease carries for this role: it may read one path. */
export const leasePolicy = (config: VaultConfig, role: string): string => `${config.tokenRole}-${role}`;

/** The folder of the index that holds this target's open leases. */
export const indexPath = (config: VaultConfig, target: string): string => `${config.indexMount}/leases/${target}`;
