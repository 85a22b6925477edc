/**
 * The only reader of the config file and of the environment. It validates everything at start and lists every fault
 * at once, each with its line and what would be right; a config with a fault is never half used.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import type { Json } from '../domain/canonical.ts';
import type { Entitlement } from '../domain/entitlement.ts';
import { impossibleRule } from '../domain/policy.ts';
import type { Provider } from '../domain/provider.ts';
import { configSchema, type RawConfig } from './schema.ts';
import { type SecretRef, secretRef } from './secrets.ts';

export interface ConfigFault {
  readonly path: string;
  /** 1-based; undefined when the whole file is meant. */
  readonly line: number | undefined;
  readonly message: string;
}

/** Every fault of a config file, in the order of its lines. */
export class ConfigError extends Error {
  readonly file: string;
  readonly faults: readonly ConfigFault[];
  constructor(file: string, faults: readonly ConfigFault[]) {
    super(faults.map((fault) => `${file}${fault.line ? `:${fault.line}` : ''}: ${fault.path ? `${fault.path}: ` : ''}${fault.message}`).join('\n'));
    this.name = 'ConfigError';
    this.file = file;
    this.faults = faults;
  }
}

export interface TargetConfig {
  readonly name: string;
  readonly provider: Provider;
  /** The block as the provider's schema parsed it. */
  readonly config: unknown;
}

export interface Config extends Omit<RawConfig, 'targets' | 'entitlements' | 'database' | 'login'> {
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
}

/** The config file's path: `--config`, then `HALLIGAN_CONFIG`, then `config/halligan.yaml`. */
export const configPath = (given: string | undefined, env: NodeJS.ProcessEnv = process.env): string =>
  resolve(given ?? env['HALLIGAN_CONFIG'] ?? 'config/halligan.yaml');

type ProviderLoader = (kind: string) => Promise<Provider | undefined>;

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
  const lineOf = (path: readonly PropertyKey[]): number | undefined => {
    for (let length = path.length; length > 0; length--) {
      const at = path.slice(0, length).map(String);
      const parent = at.length > 1 ? document.getIn(at.slice(0, -1), true) : document.contents;
      const items = (parent as { items?: { key?: { value?: unknown; range?: number[] }; range?: number[] }[] } | undefined)?.items;
      const item = items?.find((pair) => String(pair.key?.value) === at.at(-1)) ?? (/^\d+$/.test(at.at(-1) ?? '') ? items?.[Number(at.at(-1))] : undefined);
      const start = item?.key?.range?.[0] ?? item?.range?.[0];
      if (start !== undefined) return lines.linePos(start).line;
    }
    return undefined;
  };
  if (document.errors.length > 0) {
    throw new ConfigError(
      file,
      document.errors.map((error) => ({ path: '', line: error.linePos?.[0].line, message: `not valid YAML: ${error.message.split('\n')[0]}` })),
    );
  }
  const faults: ConfigFault[] = [];
  const fault = (path: readonly PropertyKey[], message: string) => void faults.push({ path: path.map(String).join('.'), line: lineOf(path), message });

  const parsed = configSchema.safeParse(document.toJS() ?? {});
  if (!parsed.success) for (const issue of parsed.error.issues) report(issue, [], configSchema, fault);
  const raw = parsed.data ?? ((document.toJS() ?? {}) as RawConfig);
  const targets = await checkTargets(raw, providerOf, fault);
  const entitlements = parsed.success ? checkEntitlements(parsed.data, targets, fault) : new Map<string, Entitlement>();
  if (parsed.success) checkServer(parsed.data, fault);
  if (faults.length > 0 || !parsed.success)
    throw new ConfigError(
      file,
      faults.sort((a, b) => (a.line ?? 0) - (b.line ?? 0)),
    );

  const folder = dirname(file);
  const { database, login, audit } = parsed.data;
  return {
    ...parsed.data,
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
  };
}

type Fault = (path: readonly PropertyKey[], message: string) => void;

async function checkTargets(raw: RawConfig, providerOf: ProviderLoader, fault: Fault): Promise<Map<string, TargetConfig>> {
  const targets = new Map<string, TargetConfig>();
  for (const [name, block] of Object.entries(raw.targets ?? {})) {
    if (typeof block?.kind !== 'string') continue;
    const provider = await providerOf(block.kind);
    if (!provider) {
      fault(['targets', name, 'kind'], `no provider is called ${JSON.stringify(block.kind)}`);
      continue;
    }
    const { kind: _, ...rest } = block;
    const parsed = provider.targetSchema.safeParse(rest);
    if (parsed.success) targets.set(name, { name, provider, config: parsed.data });
    else for (const issue of parsed.error.issues) report(issue, ['targets', name], provider.targetSchema, fault);
  }
  return targets;
}

function checkEntitlements(raw: RawConfig, targets: Map<string, TargetConfig>, fault: Fault): Map<string, Entitlement> {
  const entitlements = new Map<string, Entitlement>();
  for (const [name, block] of Object.entries(raw.entitlements)) {
    const at = ['entitlements', name];
    const target = targets.get(block.target);
    if (!target) {
      if (!raw.targets[block.target])
        fault([...at, 'target'], `there is no target ${JSON.stringify(block.target)}${nearest(block.target, Object.keys(raw.targets))}`);
      continue;
    }
    const grant = target.provider.grantSchema.safeParse(block.grant);
    if (!grant.success) {
      for (const issue of grant.error.issues) report(issue, [...at, 'grant'], target.provider.grantSchema, fault);
      continue;
    }
    const { maxDuration, decideWithin, breakGlass, review, ...rest } = block;
    const everyApprover = {
      groups: [...new Set(rest.approval.flatMap((rule) => rule.of.groups))],
      subjects: [...new Set(rest.approval.flatMap((rule) => rule.of.subjects))],
    };
    const entitlement: Entitlement = {
      ...rest,
      name,
      kind: target.provider.kind,
      grant: grant.data as Json,
      grantInWords: target.provider.grantInWords(grant.data),
      maxDurationSeconds: maxDuration,
      decideWithinSeconds: decideWithin,
      breakGlass: breakGlass ? { eligible: breakGlass.eligible, maxDurationSeconds: breakGlass.maxDuration } : null,
      review: { of: review.of ?? everyApprover, withinSeconds: review.within },
    };
    const impossible = impossibleRule(entitlement);
    if (impossible) fault([...at, 'approval'], impossible);
    if (breakGlass && breakGlass.maxDuration > maxDuration) fault([...at, 'breakGlass', 'maxDuration'], 'break-glass must not last longer than maxDuration');
    if (breakGlass && review.of && review.of.groups.length + review.of.subjects.length === 0)
      fault([...at, 'review', 'of'], 'nobody could review a break-glass');
    entitlements.set(name, entitlement);
  }
  return entitlements;
}

function checkServer(raw: RawConfig, fault: Fault): void {
  const loopback = (text: string) => ['127.0.0.1', 'localhost', '[::1]'].includes(new URL(text).hostname);
  if (raw.server.url.startsWith('http:') && !loopback(raw.server.url)) fault(['server', 'url'], 'must be https, except on loopback');
  if (new URL(raw.server.url).pathname !== '/') fault(['server', 'url'], 'must not have a path');
  if (raw.login.issuer.startsWith('http:') && !loopback(raw.login.issuer)) fault(['login', 'issuer'], 'must be https, except on loopback');
  if (new URL(raw.database.url).password) fault(['database', 'url'], 'must not hold the password: put it into passwordFile or passwordEnv');
}

/** One zod issue in words: an unknown key with the nearest right name, everything else as zod says it. */
function report(issue: z.core.$ZodIssue, base: readonly string[], schema: z.ZodType, fault: Fault): void {
  const path = [...base, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, issue.path);
    for (const key of issue.keys) fault([...path, key], `is not a setting${nearest(key, known)}`);
  } else if (issue.code === 'invalid_type' && issue.input === undefined && issue.message.includes('undefined')) {
    fault(path, `is missing: ${issue.expected === 'record' ? 'a block of names' : `a ${issue.expected}`} belongs here`);
  } else fault(path, issue.message);
}

function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let json = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Record<string, unknown> | undefined;
  for (const key of path) {
    const next =
      (json?.['properties'] as Record<string, unknown> | undefined)?.[String(key)] ??
      (typeof key === 'number' ? json?.['items'] : json?.['additionalProperties']);
    json = next as Record<string, unknown> | undefined;
  }
  return Object.keys((json?.['properties'] as object | undefined) ?? {});
}

/** `; did you mean "…"?` when a known name is close, otherwise what is known. */
export function nearest(given: string, known: readonly string[]): string {
  const best = known.map((name) => ({ name, far: distance(given.toLowerCase(), name.toLowerCase()) })).sort((a, b) => a.far - b.far)[0];
  if (best && best.far <= Math.max(2, Math.floor(given.length / 3))) return `; did you mean ${JSON.stringify(best.name)}?`;
  return known.length > 0 ? `; known here: ${known.slice(0, 20).join(', ')}` : '';
}

/** Levenshtein's distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The JSON Schema of the config file, for editors. Target and grant blocks are those of the given providers. */
export function configJsonSchema(providers: readonly Provider[]): object {
  const schema = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as { properties: Record<string, { additionalProperties?: unknown }> };
  const targets = providers.map((provider) => {
    const target = z.toJSONSchema(provider.targetSchema, { io: 'input', unrepresentable: 'any' }) as { properties?: object; required?: string[] };
    return {
      ...target,
      $schema: undefined,
      properties: { kind: { const: provider.kind }, ...target.properties },
      required: ['kind', ...(target.required ?? [])],
    };
  });
  if (schema.properties['targets']) schema.properties['targets'].additionalProperties = { anyOf: targets };
  return { title: 'Halligan configuration', ...schema };
}
