/** Reading and refusing config files: every fault, with its line and what would be right. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nearest } from '../../src/config/faults.ts';
import { ConfigError, configPath, loadConfig, parseConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { changed, faultsOf, read, saidOf, sample } from './sample.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-config-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('a config that is right', () => {
  test('has its defaults, its durations in seconds and its paths resolved against its own folder', async () => {
    const config = await read(sample);
    expect(config).toMatchObject({
      file: '/etc/halligan/halligan.yaml',
      server: { listen: '127.0.0.1:8300', trustProxy: 0 },
      database: { password: { file: '/etc/halligan/secrets/db' }, maxConnections: 20, migration: undefined },
      login: { clientSecret: { env: 'HALLIGAN_TEST_CLIENT_SECRET' }, groupsClaim: 'groups', nameClaim: 'name', scopes: ['openid', 'profile'] },
      audit: { signingKeyFile: '/etc/halligan/audit.key', checkpoints: { directory: '/var/lib/halligan/checkpoints' } },
      roles: { auditors: { groups: [], subjects: [] }, admins: { groups: [], subjects: [] } },
      limits: { pendingPerPerson: 20 },
      log: { level: 'info' },
    });
    expect(config.entitlements.get('orders-readonly')).toEqual({
      name: 'orders-readonly',
      opens: 'read the orders database',
      target: 'orders-db',
      kind: 'postgres',
      grant: { role: 'orders_ro' },
      grantInWords: expect.stringContaining('orders_ro') as string,
      owner: 'the orders team',
      eligible: { groups: ['oncall'], subjects: [] },
      approval: [{ of: { groups: ['leads'], subjects: [] }, count: 2 }],
      maxDurationSeconds: 14_400,
      decideWithinSeconds: 1_800,
      breakGlass: { eligible: { groups: ['oncall'], subjects: [] }, maxDurationSeconds: 900 },
      review: { of: { groups: ['leads'], subjects: [] }, withinSeconds: 172_800 },
    });
    expect([...config.targets.keys()]).toEqual(['orders-db']);
  });

  test('a policy that names nobody means nobody', async () => {
    const config = await read(changed(['eligible:\n      groups: [oncall]', 'eligible: {}']));
    expect(config.entitlements.get('orders-readonly')?.eligible).toEqual({ groups: [], subjects: [] });
  });

  test('people are subjects, and reviewers are everyone that the rules name unless said', async () => {
    const config = await read(
      changed(['- of:\n          groups: [leads]\n        count: 2', '- { of: { people: [ann] } }\n      - { of: { groups: [leads, security] } }']),
    );
    expect(config.entitlements.get('orders-readonly')?.review.of).toEqual({ groups: ['leads', 'security'], subjects: ['ann'] });
  });

  test.each(['http://127.0.0.1:8300', 'http://localhost:8300', 'http://[::1]:8300', 'https://x.example/'])('%s is an address', async (url) => {
    expect(await faultsOf(changed(['https://halligan.example.com', url]))).toEqual([]);
  });

  test('only the providers in use are loaded', async () => {
    const asked: string[] = [];
    const { parseConfig } = await import('../../src/config/load.ts');
    await parseConfig('/x.yaml', sample, async (kind) => {
      asked.push(kind);
      return providerOf(kind);
    });
    expect(asked).toEqual(['postgres']);
  });
});

describe('a config with faults', () => {
  test('five places at once, of every sort, each with its line and what would be right', async () => {
    const text = changed(
      ['https://halligan.example.com', 'http://halligan.example.com'],
      ['clientId: halligan', 'clientID: halligan'],
      ['passwordFile: secrets/orders', 'passwordFile: secrets/orders\n    databse: x'],
      ['maxDuration: 4h', 'maxDuration: 240'],
      ['role: orders_ro', 'rolle: orders_ro'],
    );
    expect(await saidOf(text)).toEqual([
      '2 server.url: must be https, except on loopback',
      '6 login.clientId: is missing: a text belongs here',
      '8 login.clientID: is not a setting; did you mean "clientId"?',
      '21 targets.orders-db.databse: is not a setting; did you mean "database"?',
      '26 entitlements.orders-readonly.grant.role: is missing: a text belongs here',
      '27 entitlements.orders-readonly.grant.rolle: is not a setting; did you mean "role"?',
      '35 entitlements.orders-readonly.maxDuration: 240 is not a duration, because nobody can know its unit: say 240s, 240m or 1h30m',
    ]);
  });

  test('faults of meaning are told together with faults of form', async () => {
    // Story: a misspelt setting hid that a target did not exist and a rule could not be met; they came up one start later.
    const text = changed(
      ['clientId: halligan', 'clientId: halligan\n  colour: red'],
      ['target: orders-db', 'target: orders-bd'],
      ['groups: [leads]', 'people: [ann]'],
      ['maxDuration: 15m', 'maxDuration: 5h'],
      ['postgres://halligan_app@db', 'postgres://halligan_app:hunter2@db'],
    );
    const said = await saidOf(text);
    expect(said).toEqual([
      '4 database.url: must not hold the password: put it into passwordFile or passwordEnv',
      expect.stringMatching(/^9 login\.colour: is not a setting; known here: issuer, clientId/) as string,
      '25 entitlements.orders-readonly.target: there is no target "orders-bd"; did you mean "orders-db"?',
      '31 entitlements.orders-readonly.approval: a rule needs 2 people and names 1',
      '39 entitlements.orders-readonly.breakGlass.maxDuration: break-glass must not last longer than maxDuration',
    ]);
    expect(said.join()).not.toContain('hunter2');
  });

  test('the error names the file with each line', async () => {
    const error = await read(changed(['maxDuration: 4h', 'maxDuration: 0m']), '/etc/h.yaml').catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toBe('/etc/h.yaml:34: entitlements.orders-readonly.maxDuration: "0m" is no time at all: say 15m or 1h30m.');
  });
});

describe('an unknown key, at every level, is told with its line', () => {
  test.each<[string, string, string, number]>([
    ['servers', 'server:\n', 'servers: {}\nserver:\n', 1],
    ['server.port', 'url: https', 'port: 1\n  url: https', 2],
    ['database.password', 'passwordFile: secrets/db', 'passwordFile: secrets/db\n  password: x', 6],
    ['login.secret', 'clientId', 'secret: x\n  clientId', 8],
    ['audit.key', 'signingKeyFile', 'key: x\n  signingKeyFile', 11],
    ['audit.checkpoints.dir', 'directory', 'dir: x\n    directory', 13],
    ['targets.orders-db.db', 'host: db.orders', 'db: x\n    host: db.orders', 17],
    ['entitlements.orders-readonly.ttl', 'opens:', 'ttl: 1h\n    opens:', 23],
    ['entitlements.orders-readonly.grant.rolename', 'role: orders_ro', 'rolename: x\n      role: orders_ro', 26],
    ['entitlements.orders-readonly.eligible.users', 'groups: [oncall]', 'users: [ann]\n      groups: [oncall]', 29],
    ['entitlements.orders-readonly.approval.0.min', 'count: 2', 'min: 2', 33],
    ['entitlements.orders-readonly.approval.0.of.group', 'groups: [leads]', 'groups: [leads]\n          group: x', 33],
    ['entitlements.orders-readonly.breakGlass.duration', 'maxDuration: 15m', 'maxDuration: 15m\n      duration: 15m', 39],
    ['roles.auditor', 'targets:', 'roles: { auditor: {} }\ntargets:', 14],
    ['limits.pending', 'targets:', 'limits: { pending: 1 }\ntargets:', 14],
    ['log.format', 'targets:', 'log:\n  format: json\ntargets:', 15],
  ])('%s', async (path, from, to, line) => {
    const faults = await faultsOf(changed([from, to]));
    expect(faults.map((fault) => [fault.path, fault.line])).toEqual([[path, line]]);
    expect(faults[0]?.message).toMatch(/^is not a setting; (did you mean "|known here: )/);
  });
});

describe('refused, each in words', () => {
  test.each<[string, string, string, string]>([
    ['a path in the address', 'https://halligan.example.com', 'https://halligan.example.com/app', '2 server.url: must not have a path'],
    ['another scheme', 'https://halligan.example.com', 'ftp://h', '2 server.url: must be a URL that starts with https:// or http://'],
    ['a user in the address', 'https://halligan.example.com', 'https://a:b@h', '2 server.url: must not hold a user or a password'],
    ['an issuer over http', 'https://id.example.com', 'http://id.example.com', '7 login.issuer: must be https, except on loopback'],
    ['a name that only looks like loopback', 'https://id.example.com', 'http://127.0.0.1.example.com', '7 login.issuer: must be https, except on loopback'],
    ['a name that only looks like one below localhost', 'https://id.example.com', 'http://notlocalhost', '7 login.issuer: must be https, except on loopback'],
    [
      'people over http at a name below localhost',
      'https://halligan.example.com',
      'http://halligan.localhost',
      '2 server.url: must be https, except on loopback',
    ],
    [
      'a password in the query',
      '@db/halligan',
      '@db/halligan?password=x',
      '4 database.url: must not hold the password: put it into passwordFile or passwordEnv',
    ],
    [
      "the owner's password in its URL",
      '  passwordFile: secrets/db',
      '  migration: { url: "postgres://o:hunter2@db/h" }',
      '5 database.migration.url: must not hold the password: put it into passwordFile or passwordEnv',
    ],
    [
      'a secret from two places',
      'passwordFile: secrets/db',
      'passwordFile: secrets/db\n  passwordEnv: X',
      '6 database.passwordEnv: say passwordFile or passwordEnv, one of the two',
    ],
    [
      'a port too high',
      'url: https://halligan.example.com',
      'url: https://h.example\n  listen: 127.0.0.1:65536',
      '3 server.listen: say host:port, as in 127.0.0.1:8300',
    ],
    ['an unknown kind', 'kind: postgres', 'kind: postgress', '16 targets.orders-db.kind: no provider is called "postgress"'],
    ['a kind with an inherited name', 'kind: postgres', 'kind: constructor', '16 targets.orders-db.kind: no provider is called "constructor"'],
    // Story: `raw.targets["constructor"]` is a function of every object, so the entitlement vanished without a word.
    [
      'a target with an inherited name',
      'target: orders-db',
      'target: constructor',
      '24 entitlements.orders-readonly.target: there is no target "constructor"; known here: orders-db',
    ],
    ['a count of nobody', 'count: 2', 'count: 0', '33 entitlements.orders-readonly.approval.0.count: Too small: expected number to be >=1'],
    [
      'no rule',
      'approval:\n      - of:\n          groups: [leads]\n        count: 2',
      'approval: []',
      '30 entitlements.orders-readonly.approval: nobody can approve it: approval has no rule',
    ],
    [
      'a rule of nobody',
      'groups: [leads]\n',
      'groups: []\n',
      '30 entitlements.orders-readonly.approval: nobody can approve it: a rule names no group and no person',
    ],
    [
      'break-glass that nobody reviews',
      '    breakGlass:',
      '    review: { of: {} }\n    breakGlass:',
      '35 entitlements.orders-readonly.review.of: nobody could review a break-glass',
    ],
    [
      'a text where a block belongs',
      'eligible:\n      groups: [oncall]',
      'eligible: oncall',
      '28 entitlements.orders-readonly.eligible: a block belongs here, not string',
    ],
    ['a block where a text belongs', 'host: db.orders', 'host: { a: 1 }', '17 targets.orders-db.host: a text belongs here, not object'],
    [
      'a name with capitals',
      '  orders-db:\n    kind',
      '  Orders:\n    kind',
      '15 targets.Orders: is not a name here: a name has lower-case letters, digits and dashes, at most 63, and starts with a letter or digit',
    ],
  ])('%s', async (_, from, to, expected) => {
    expect(await saidOf(changed([from, to]))).toContain(expected);
  });

  test('only the person who broke the glass could review it', async () => {
    const text = changed([
      'breakGlass:\n      eligible:\n        groups: [oncall]',
      'review: { of: { people: [ann] } }\n    breakGlass:\n      eligible:\n        people: [ann]',
    ]);
    expect(await saidOf(text)).toEqual(['35 entitlements.orders-readonly.review.of: only the person who broke the glass could review it']);
  });

  test('the only person who may ask cannot be the only approver', async () => {
    const text = changed(['groups: [oncall]', 'people: [ann]'], ['groups: [leads]\n        count: 2', 'people: [ann]']);
    expect(await saidOf(text)).toEqual([expect.stringMatching(/^30 entitlements\.orders-readonly\.approval: only the requester themself/) as string]);
  });

  test('a fault in a target does not hide those of the entitlements on it, and is not told as a missing target', async () => {
    const text = changed(['user: halligan', 'usr: halligan'], ['count: 2', 'count: 2\n      - of: {}']);
    expect((await faultsOf(text)).map((fault) => fault.path)).toEqual([
      'targets.orders-db.user',
      'targets.orders-db.usr',
      'entitlements.orders-readonly.approval',
    ]);
  });
});

describe('files that are no config', () => {
  test('empty: every block that is missing is named', async () => {
    for (const text of ['', '# nothing\n', '---\n', 'null\n']) {
      expect(await saidOf(text)).toEqual([
        '- server: is missing: a block belongs here',
        '- database: is missing: a block belongs here',
        '- login: is missing: a block belongs here',
        '- audit: is missing: a block belongs here',
        '- targets: is missing: a block of names belongs here',
        '- entitlements: is missing: a block of names belongs here',
      ]);
    }
  });

  test.each([
    ['a list', '- a\n- b\n', '- : a block belongs here, not array'],
    ['a word', 'halligan\n', '- : a block belongs here, not string'],
    ['a key twice', changed(['  clientId: halligan', '  clientId: halligan\n  clientId: other']), '9 : not valid YAML: Map keys must be unique'],
    ['a block twice', `${sample}server: {}\n`, '39 : not valid YAML: Map keys must be unique'],
    ['not YAML', 'server: { url: "x\n', '2 : not valid YAML: '],
    ['a tab', 'server:\n\turl: x\n', '2 : not valid YAML: '],
    ['two documents', `${sample}---\n${sample}`, '39 : not valid YAML: it holds more than one document'],
    ['an unknown alias', 'server: *nothing\n', '- : not usable YAML: Unresolved alias'],
  ])('%s', async (_, text, expected) => {
    const said = await saidOf(text);
    expect(said.length).toBeGreaterThan(0);
    expect(said[0]).toContain(expected);
  });

  test('aliases that would grow without bound', async () => {
    const levels = Array.from(
      { length: 12 },
      (_, n) =>
        `l${n}: &l${n} [${
          n === 0
            ? 'x'
            : Array(12)
                .fill(`*l${n - 1}`)
                .join(', ')
        }]`,
    );
    expect(await saidOf(levels.join('\n'))).toEqual([expect.stringContaining('not usable YAML: Excessive alias count') as string]);
  });

  test('blocks of the wrong sort are told and break nothing', async () => {
    for (const wrong of ['[]', 'x', '1', 'null', '{ a: 1 }', '{ a: null }', '{ a: [1] }']) {
      const said = await saidOf(
        `server: ${wrong}\ndatabase: ${wrong}\nlogin: ${wrong}\naudit: ${wrong}\ntargets: ${wrong}\nentitlements: ${wrong}\nroles: ${wrong}\n`,
      );
      expect(said.length).toBeGreaterThanOrEqual(6);
    }
  });

  test('missing: where it was looked for, and where an example is', async () => {
    const file = join(folder, 'nowhere.yaml');
    await expect(loadConfig(file, providerOf)).rejects.toThrow(`${file}: there is no such file; config/halligan.example.yaml is one to start from`);
    await expect(loadConfig(folder, providerOf)).rejects.toThrow(/cannot be read: .*EISDIR/);
  });

  test('an issuer over http by a name below localhost, where browsers take it to their own machine', async () => {
    const config = await parseConfig('/etc/halligan.yaml', sample.replace('https://id.example.com', 'http://keycloak.localhost:8380/realms/r'), providerOf);
    expect(config.login.issuer).toBe('http://keycloak.localhost:8380/realms/r');
  });

  test('a file on disk is read', async () => {
    const file = join(folder, 'halligan.yaml');
    await writeFile(file, sample);
    const config = await loadConfig(file, providerOf);
    expect(config.audit.signingKeyFile).toBe(join(folder, 'audit.key'));
  });
});

test('which file: the option, then the environment, then config/halligan.yaml', () => {
  expect(configPath('a.yaml', { HALLIGAN_CONFIG: '/b.yaml' })).toBe(resolve('a.yaml'));
  expect(configPath(undefined, { HALLIGAN_CONFIG: '/b.yaml' })).toBe('/b.yaml');
  expect(configPath(undefined, {})).toBe(resolve('config/halligan.yaml'));
});

test('the nearest name is offered when it is near, what is known when it is not', () => {
  expect(nearest('grups', ['groups', 'people'])).toBe('; did you mean "groups"?');
  expect(nearest('CLIENTID', ['clientId'])).toBe('; did you mean "clientId"?');
  expect(nearest('zzzzzz', ['groups', 'people'])).toBe('; known here: groups, people');
  expect(nearest('x', [])).toBe('');
});
