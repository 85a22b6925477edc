/** Keycloak beside the test: an OpenID Connect provider that we did not write, with a realm of the test's own, on a free port of loopback. */
import { randomBytes } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { awaitReady, type Child, freePort, installed, runTool, startChild } from './install.ts';

const version = '26.4.0';

export interface KeycloakUser {
  readonly name: string;
  readonly password: string;
  readonly groups: readonly string[];
}

export interface Keycloak {
  readonly issuer: string;
  readonly child: Child;
  /** One call of the admin API below the realm. Gives the parsed answer, or null. Throws with the status. */
  admin(method: string, path: string, body?: unknown): Promise<unknown>;
  /** Puts this person into exactly these groups. */
  setGroups(user: string, groups: readonly string[]): Promise<void>;
  setEnabled(user: string, enabled: boolean): Promise<void>;
  /** Ends every session of this person at Keycloak. */
  logOut(user: string): Promise<void>;
  /** New signing keys; the old ones are taken away. */
  rotateKeys(): Promise<void>;
  stop(): Promise<void>;
}

/** Fetches the distribution once, by Maven, which checks it against the repository's checksum. */
export async function install(): Promise<string> {
  const folder = await installed(`keycloak-${version}`, async (making) => {
    await runTool('mvn', ['-q', 'dependency:get', `-Dartifact=org.keycloak:keycloak-quarkus-dist:${version}:zip`, '-Dtransitive=false']);
    const zip = join(homedir(), '.m2', 'repository', 'org', 'keycloak', 'keycloak-quarkus-dist', version, `keycloak-quarkus-dist-${version}.zip`);
    await runTool('python3', ['-m', 'zipfile', '-e', zip, making]);
  });
  return join(folder, `keycloak-${version}`);
}

const realm = 'halligan';

/** The realm as a file. `acr` of the second level is given after the password was typed again: Keycloak calls it by its own name. */
const realmOf = (options: { clientSecret: string; redirectUri: string; users: readonly KeycloakUser[] }) => ({
  realm,
  enabled: true,
  sslRequired: 'none',
  ssoSessionIdleTimeout: 1_800,
  ssoSessionMaxLifespan: 36_000,
  groups: [...new Set(options.users.flatMap((user) => user.groups))].map((name) => ({ name })),
  clients: [
    {
      clientId: 'halligan',
      secret: options.clientSecret,
      redirectUris: [options.redirectUri],
      standardFlowEnabled: true,
      directAccessGrantsEnabled: false,
      attributes: { 'pkce.code.challenge.method': 'S256' },
      protocolMappers: [
        {
          name: 'groups',
          protocol: 'openid-connect',
          protocolMapper: 'oidc-group-membership-mapper',
          config: { 'claim.name': 'groups', 'full.path': 'false', 'id.token.claim': 'true', 'access.token.claim': 'false', 'userinfo.token.claim': 'false' },
        },
      ],
    },
  ],
  users: options.users.map((user) => ({
    username: user.name,
    firstName: user.name,
    lastName: 'Person',
    email: `${user.name}@example.com`,
    emailVerified: true,
    enabled: true,
    groups: user.groups.map((group) => `/${group}`),
    credentials: [{ type: 'password', value: user.password, temporary: false }],
  })),
});

/** Starts a Keycloak of our own: only it knows the administrator's password, which is random. */
export async function startKeycloak(options: { clientSecret: string; redirectUri: string; users: readonly KeycloakUser[] }): Promise<Keycloak> {
  const dist = await install();
  const home = await mkdtemp(join(tmpdir(), 'halligan-keycloak-'));
  // The program itself is shared; what it writes (its optimised start, its database) is this server's alone.
  for (const entry of await readdir(dist)) {
    if (entry === 'lib' || entry === 'bin' || entry === 'conf') await cp(join(dist, entry), join(home, entry), { recursive: true });
    else await symlink(join(dist, entry), join(home, entry));
  }
  await mkdir(join(home, 'data', 'import'), { recursive: true });
  await writeFile(join(home, 'data', 'import', 'halligan.json'), JSON.stringify(realmOf(options)));
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  const password = randomBytes(12).toString('hex');
  const env = {
    PATH: process.env['PATH'],
    HOME: home,
    JAVA_HOME: process.env['JAVA_HOME'],
    JAVA_OPTS_APPEND: '-Xmx700m',
    KC_BOOTSTRAP_ADMIN_USERNAME: 'admin',
    KC_BOOTSTRAP_ADMIN_PASSWORD: password,
  };
  const args = [join(home, 'bin', 'kc.sh'), 'start-dev', '--http-host', '127.0.0.1', '--http-port', String(port), '--import-realm', '--cache', 'local'];
  // kc.sh must become the server itself, so that ending the child ends it.
  const child = startChild('bash', args, env);
  const token = async (): Promise<string> => {
    const answer = await fetch(`${base}/realms/master/protocol/openid-connect/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'password', client_id: 'admin-cli', username: 'admin', password }),
      signal: AbortSignal.timeout(20_000),
    });
    if (!answer.ok) throw new Error(`the administrator could not log in: ${answer.status}`);
    return ((await answer.json()) as { access_token: string }).access_token;
  };
  const admin = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const answer = await fetch(`${base}/admin/realms/${realm}${path}`, {
      method,
      headers: { authorization: `Bearer ${await token()}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(20_000),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === '' ? null : JSON.parse(text);
  };
  await awaitReady(child, 'Keycloak', 240, async () => (await admin('GET', '')) !== null);
  return {
    issuer: `${base}/realms/${realm}`,
    child,
    ...verbs(admin),
    async stop() {
      await child.stop();
      await rm(home, { recursive: true, force: true });
    },
  };
}

function verbs(admin: Keycloak['admin']): Pick<Keycloak, 'admin' | 'setGroups' | 'setEnabled' | 'logOut' | 'rotateKeys'> {
  const idOf = async (user: string): Promise<string> => {
    const [found] = (await admin('GET', `/users?exact=true&username=${encodeURIComponent(user)}`)) as { id: string }[];
    if (!found) throw new Error(`Keycloak has no user ${user}`);
    return found.id;
  };
  return {
    admin,
    async setGroups(user, groups) {
      const id = await idOf(user);
      const all = (await admin('GET', '/groups')) as { id: string; name: string }[];
      for (const group of all) await admin(groups.includes(group.name) ? 'PUT' : 'DELETE', `/users/${id}/groups/${group.id}`);
    },
    async setEnabled(user, enabled) {
      const id = await idOf(user);
      await admin('PUT', `/users/${id}`, { ...((await admin('GET', `/users/${id}`)) as object), enabled });
    },
    async logOut(user) {
      await admin('POST', `/users/${await idOf(user)}/logout`);
    },
    async rotateKeys() {
      const type = 'org.keycloak.keys.KeyProvider';
      const before = (await admin('GET', `/components?type=${type}`)) as { id: string; providerId: string }[];
      await admin('POST', '/components', {
        name: `rsa-${randomBytes(4).toString('hex')}`,
        providerId: 'rsa-generated',
        providerType: type,
        config: { priority: ['200'], enabled: ['true'], active: ['true'], algorithm: ['RS256'] },
      });
      for (const { id, providerId } of before) if (providerId === 'rsa-generated') await admin('DELETE', `/components/${id}`);
    },
  };
}
