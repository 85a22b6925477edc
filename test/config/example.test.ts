/** The example, the schema for editors and the tables of docs/config.md say what the code reads, all of it and nothing else. */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { type Config, configJsonSchema, loadConfig, parseConfig } from '../../src/config/load.ts';
import { readSecret } from '../../src/config/secrets.ts';
import { providerOf, providers } from '../../src/providers/registry.ts';

interface Schema {
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
  anyOf?: Schema[];
  items?: Schema;
  default?: unknown;
}
/** With one kind of target, the one that the example and docs/config.md show whole; docs/providers.md has the settings of every kind. */
const schema = async (kind = 'postgres'): Promise<Schema> => {
  const provider = await providerOf(kind);
  return JSON.parse(JSON.stringify(configJsonSchema(provider ? [provider] : []))) as Schema;
};

/** Every setting by its path: `<name>` for a name one chooses, `[]` for an entry of a list; and whether it is a block. */
function settingsOf(of: Schema, path = ''): { path: string; schema: Schema; required: boolean; block: boolean }[] {
  return Object.entries(of.properties ?? {}).flatMap(([name, inner]) => {
    const at = path ? `${path}.${name}` : name;
    const variants = [inner, ...(inner.anyOf ?? [])];
    const below = variants.flatMap((one) => [
      ...settingsOf(one, at),
      ...(one.items ? settingsOf(one.items, `${at}[]`) : []),
      ...(typeof one.additionalProperties === 'object'
        ? [one.additionalProperties, ...(one.additionalProperties.anyOf ?? [])].flatMap((named) => settingsOf(named, `${at}.<name>`))
        : []),
    ]);
    return [{ path: at, schema: inner, required: of.required?.includes(name) ?? false, block: below.length > 0 }, ...below];
  });
}

const example = (): Promise<string> => readFile('config/halligan.example.yaml', 'utf8');

test('config/halligan.example.yaml is loaded, and its secrets are found beside it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'halligan-example-'));
  try {
    const file = join(folder, 'halligan.yaml');
    await copyFile('config/halligan.example.yaml', file);
    for (const name of ['database', 'database-owner', 'oidc-client', 'orders-db']) {
      await mkdir(dirname(join(folder, 'secrets', name)), { recursive: true });
      await writeFile(join(folder, 'secrets', name), `secret of ${name}\n`);
    }
    const config: Config = await loadConfig(file, providerOf);
    expect(await readSecret(config.database.password!)).toBe('secret of database');
    expect(await readSecret(config.database.migration!.password!)).toBe('secret of database-owner');
    expect(await readSecret(config.login.clientSecret!)).toBe('secret of oidc-client');
    expect(config.audit).toEqual({ signingKeyFile: join(folder, 'secrets/audit.key'), checkpoints: { directory: join(folder, 'checkpoints') } });
    expect([...config.entitlements.keys()]).toEqual(['orders-readonly', 'orders-write']);
    expect(config.entitlements.get('orders-write')).toMatchObject({ approval: [{ count: 2 }, { count: 1 }], breakGlass: null, decideWithinSeconds: 1_800 });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

/** The blocks that stand behind a # without a space, as if somebody had taken it away. */
const withOptional = (text: string): string => text.replaceAll(/^#[a-z]+:\n(?:# {2}.*\n)*/gm, (block) => block.replaceAll(/^#/gm, ''));

test('what is optional in the example is loaded as well, once its # is taken away', async () => {
  const config = await parseConfig('/etc/halligan/halligan.yaml', withOptional(await example()), providerOf);
  expect(config.tell.slack?.workspace).toBe('T0123ABCD');
  expect(config.tell.email).toMatchObject({ host: 'smtp.example.com', user: 'halligan' });
  expect([...config.tell.webhooks.keys()]).toEqual(['pager']);
  expect(config.tell.routes.get('orders-readonly')).toMatchObject([
    { afterSeconds: 0, slack: ['C0123ABCD', 'approvers'], webhooks: ['pager'] },
    { afterSeconds: 300, email: ['approvers', 'oncall-leads@example.com'] },
  ]);
});

test('the example shows every setting, in use or in a comment', async () => {
  const text = await example();
  expect(text.split('\n')[0]).toBe('# yaml-language-server: $schema=halligan.schema.json');
  const missing = settingsOf(await schema())
    .map(({ path }) => path.split('.').at(-1) ?? '')
    .filter((name) => !new RegExp(`(^|[ {])(# )?${name}:`, 'm').test(text));
  expect(missing).toEqual([]);
});

test('a default that the example names is the default', async () => {
  const text = withOptional(await example());
  const given = parse(text) as { server: { listen: string }; database: { maxConnections: number } };
  for (const { path, schema: of } of settingsOf(await schema())) {
    if (of.default === undefined || typeof of.default === 'object') continue;
    const name = path.split('.').at(-1) ?? '';
    // In its own block: other blocks have settings of the same name.
    const block = new RegExp(`^${path.split('.')[0]}:\\n(?:(?: .*|#.*|)\\n)*`, 'm').exec(text)?.[0].split('\n') ?? [];
    const at = block.findIndex((line) => new RegExp(`^ *(- )?${name}:`).test(line));
    if (at < 0) continue;
    const said = block.slice(Math.max(0, at - 6), at).join('\n');
    expect(said, `${path}: its comment names ${String(of.default)}`).toContain(String(of.default));
  }
  expect(given.server.listen).toBe('127.0.0.1:8300');
});

test('config/halligan.schema.json is what the code would print', async () => {
  const printed = `${JSON.stringify(configJsonSchema(await Promise.all(Object.values(providers).map((load) => load()))), null, 2)}\n`;
  expect(await readFile('config/halligan.schema.json', 'utf8'), 'write it anew: halligan config schema > config/halligan.schema.json').toBe(printed);
});

test('the tables of docs/config.md hold every setting with its default, and no other', async () => {
  const rows = [...(await readFile('docs/config.md', 'utf8')).matchAll(/^\| (`[a-z].*?) \| (.*?) \| (.+) \|$/gm)].flatMap(([, names = '', fallback = '']) =>
    [...names.matchAll(/`([^`]+)`/g)].map((name) => ({ path: name[1] ?? '', fallback })),
  );
  const settings = settingsOf(await schema());
  const documented = new Map(rows.map((row) => [row.path, row.fallback]));
  expect(rows.filter(({ path }) => !settings.some((setting) => setting.path === path)).map((row) => row.path)).toEqual([]);
  expect(settings.filter(({ path, block }) => !block && !documented.has(path)).map((setting) => setting.path)).toEqual([]);
  expect(documented.size).toBe(rows.length);
  for (const { path, schema: of, required } of settings) {
    const said = documented.get(path);
    if (said === undefined) continue;
    if (required) expect(said, path).toContain('required');
    else if (of.default !== undefined && !path.match(/\.(groups|people)$/))
      expect(said, path).toBe(`\`${Array.isArray(of.default) ? `[${of.default.join(', ')}]` : String(of.default)}\``);
  }
});

test.each(Object.keys(providers))('docs/providers.md names every setting of %s in its section', async (kind) => {
  const text = await readFile('docs/providers.md', 'utf8');
  const section = text.split(/^## /m).find((part) => part.startsWith(`${kind}\n`)) ?? '';
  const own = settingsOf(await schema(kind))
    .filter(
      // The members of an IAM statement are AWS' own.
      ({ path }) => !path.includes('.policy.'),
    )
    .filter(({ path }) =>
      /^(targets|entitlements)\.<name>\.(?!(kind|opens|target|grant|owner|eligible|approval|maxDuration|decideWithin|breakGlass|review)$)/.test(path),
    )
    .filter(
      // The same for every kind: docs/config.md has it.
      ({ path }) => !/^targets\.<name>\.lane\b/.test(path),
    );
  const names = own
    .map(({ path }) => path)
    .filter((path) => path.startsWith('targets.') || path.startsWith('entitlements.<name>.grant.'))
    .map((path) => path.split('.').at(-1)?.replace('[]', '') ?? '');
  expect(names.length).toBeGreaterThan(1);
  expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(section))).toEqual([]);
});
