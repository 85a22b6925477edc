/**
 * The only reader of the config file and of the environment. It validates everything at start and lists every fault
 * at once, each with its line and what would be right; a config with a fault is never half used.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type Document, LineCounter, parseDocument, type YAMLParseError } from 'yaml';
import { z } from 'zod';
import type { Entitlement } from '../domain/entitlement.ts';
import type { Provider } from '../domain/provider.ts';
import { checkEntitlements, checkServer, checkTargets, type ProviderLoader, type TargetConfig } from './check.ts';
import { ConfigError, type ConfigFault, report } from './faults.ts';
import { laneSchema } from './lane.ts';
import { type RedisConfig, readRedis } from './redis.ts';
import { configSchema, type RawConfig } from './schema.ts';
import { type SecretRef, secretRef } from './secrets.ts';
import { readTell, type TellConfig, type tellSchema } from './tell.ts';

export type { TargetConfig } from './check.ts';
export { ConfigError, type ConfigFault } from './faults.ts';

export interface Config extends Omit<RawConfig, 'targets' | 'entitlements' | 'database' | 'login' | 'redis' | keyof typeof tellSchema> {
  readonly file: string;
  readonly database: {
    url: string;
    password: SecretRef | undefined;
    maxConnections: number;
    migration: { url: string; password: SecretRef | undefined } | undefined;
  };
  readonly login: Omit<RawConfig['login'], 'clientSecretFile' | 'clientSecretEnv'> & { clientSecret: SecretRef | undefined };
  readonly targets: ReadonlyMap<string, TargetConfig>;
  readonly entitlements: ReadonlyMap<string, Entitlement>;
  /** The queue that several processes share; undefined: the one in this process. */
  readonly redis: RedisConfig | undefined;
  /** How people are told. */
  readonly tell: TellConfig;
}

/** The config file's path: `--config`, then `HALLIGAN_CONFIG`, then `config/halligan.yaml`. */
export const configPath = (given: string | undefined, env: NodeJS.ProcessEnv = process.env): string =>
  resolve(given ?? env['HALLIGAN_CONFIG'] ?? 'config/halligan.yaml');

/** Reads and validates `file`. Throws `ConfigError` with every fault found. `providerOf` brings the provider of a kind; only kinds in use are loaded. */
export async function loadConfig(file: string, providerOf: ProviderLoader): Promise<Config> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const why =
      (error as NodeJS.ErrnoException).code === 'ENOENT'
        ? 'there is no such file; config/halligan.example.yaml is one to start from'
        : `cannot be read: ${(error as Error).message}`;
    throw new ConfigError(file, [{ path: '', line: undefined, message: why }]);
  }
  return parseConfig(file, text, providerOf);
}

/** `loadConfig` for text that is already read; relative paths in it are resolved against the file's folder. */
export async function parseConfig(file: string, text: string, providerOf: ProviderLoader): Promise<Config> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const lineOf = (path: readonly PropertyKey[]) => lineAt(document, lines, path);
  if (document.errors.length > 0) {
    throw new ConfigError(
      file,
      document.errors.map((error) => ({ path: '', line: error.linePos?.[0].line, message: `not valid YAML: ${yamlWords(error)}` })),
    );
  }
  const faults: ConfigFault[] = [];
  const fault = (path: readonly PropertyKey[], message: string) => void faults.push({ path: path.map(String).join('.'), line: lineOf(path), message });

  const value = readValue(file, document);
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) for (const issue of parsed.error.issues) report(issue, [], configSchema, fault);
  const raw = (value !== null && typeof value === 'object' ? value : {}) as Record<string, unknown>;
  const { targets, providers } = await checkTargets(raw, providerOf, fault);
  const entitlements = checkEntitlements(raw, providers, fault);
  checkServer(raw, fault);
  const folder = dirname(file);
  const ladders = new Map(Object.entries(parsed.data?.entitlements ?? {}).map(([name, block]) => [name, block.notify]));
  const tell = parsed.success ? readTell(parsed.data, ladders, folder, fault) : undefined;
  const redis = parsed.data?.redis && readRedis(parsed.data.redis, folder, fault);
  if (faults.length > 0 || !parsed.success || !tell)
    throw new ConfigError(
      file,
      faults.sort((a, b) => (a.line ?? 0) - (b.line ?? 0)),
    );

  const { database, login, audit, slack: _, email: __, webhooks: ___, notify: ____, ...rest } = parsed.data;
  return {
    ...rest,
    file,
    audit: { signingKeyFile: resolve(folder, audit.signingKeyFile), checkpoints: { directory: resolve(folder, audit.checkpoints.directory) } },
    database: {
      url: database.url,
      password: secretRef(database, 'password', folder),
      maxConnections: database.maxConnections,
      migration: database.migration && { url: database.migration.url, password: secretRef(database.migration, 'password', folder) },
    },
    login: { ...login, clientSecret: secretRef(login, 'clientSecret', folder) },
    targets,
    entitlements,
    redis,
    tell,
  };
}

/** What the parser says, without the position, which is told beside it. */
const yamlWords = (error: YAMLParseError): string =>
  error.code === 'MULTIPLE_DOCS' ? 'it holds more than one document' : (error.message.split('\n')[0] ?? '').replace(/ at line \d+, column \d+:?$/, '');

/** What the text says. A file of aliases that would grow without bound is a fault. */
function readValue(file: string, document: Document): unknown {
  try {
    return document.toJS() ?? {};
  } catch (error) {
    throw new ConfigError(file, [{ path: '', line: undefined, message: `not usable YAML: ${(error as Error).message}` }]);
  }
}

/** The line of the setting at `path`, or of the nearest block around it; undefined when not even that is there. */
function lineAt(document: Document, lines: LineCounter, path: readonly PropertyKey[]): number | undefined {
  for (let length = path.length; length > 0; length--) {
    const at = path.slice(0, length).map(String);
    const parent = at.length > 1 ? document.getIn(at.slice(0, -1), true) : document.contents;
    const items = (parent as { items?: { key?: { value?: unknown; range?: number[] }; range?: number[] }[] } | undefined)?.items;
    const item = items?.find((pair) => String(pair.key?.value) === at.at(-1)) ?? (/^\d+$/.test(at.at(-1) ?? '') ? items?.[Number(at.at(-1))] : undefined);
    const start = item?.key?.range?.[0] ?? item?.range?.[0];
    if (start !== undefined) return lines.linePos(start).line;
  }
  return undefined;
}

/** The JSON Schema of the config file, for editors. Target and grant blocks are those of the given providers. */
export function configJsonSchema(providers: readonly Provider[]): object {
  const jsonOf = (of: z.ZodType): JsonSchema => ({ ...(z.toJSONSchema(of, { io: 'input', unrepresentable: 'any' }) as JsonSchema), $schema: undefined });
  const schema = jsonOf(configSchema);
  const targets = providers.map((provider) => {
    const target = jsonOf(provider.targetSchema);
    return {
      ...target,
      properties: { kind: { const: provider.kind }, ...target.properties, lane: jsonOf(laneSchema) },
      required: ['kind', ...(target.required ?? [])],
    };
  });
  if (schema.properties?.['targets']) schema.properties['targets'].additionalProperties = { anyOf: targets };
  const grant = schema.properties?.['entitlements']?.additionalProperties?.properties?.['grant'];
  if (grant) grant.anyOf = providers.map((provider) => jsonOf(provider.grantSchema));
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'Halligan configuration', ...schema };
}

interface JsonSchema {
  $schema?: string | undefined;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  additionalProperties?: JsonSchema;
  anyOf?: object[];
}
