/** What the form of the config file alone cannot say: names that must exist elsewhere in it, rules that can never be met, addresses that would leak. */
import type { Json } from '../domain/canonical.ts';
import type { Entitlement } from '../domain/entitlement.ts';
import { impossibleRule } from '../domain/policy.ts';
import type { Provider } from '../domain/provider.ts';
import { type Fault, nearest, report } from './faults.ts';
import { type LaneConfig, laneSchema, usualLane } from './lane.ts';
import { configSchema, entitlementSchema } from './schema.ts';

export interface TargetConfig {
  readonly name: string;
  readonly provider: Provider;
  /** The block as the provider's schema parsed it. */
  readonly config: unknown;
  readonly lane: LaneConfig;
}

/** Brings the provider of a kind, or undefined when there is none. */
export type ProviderLoader = (kind: string) => Promise<Provider | undefined>;

/** A block of names as it stands in the file; empty when something else stands there. */
const blocksOf = (value: unknown): [string, unknown][] => (value !== null && typeof value === 'object' && !Array.isArray(value) ? Object.entries(value) : []);

/** The targets whose blocks are right, and the provider of each whose kind is known. Providers are loaded only for kinds in use. */
export async function checkTargets(
  raw: Record<string, unknown>,
  providerOf: ProviderLoader,
  fault: Fault,
): Promise<{ targets: Map<string, TargetConfig>; providers: Map<string, Provider> }> {
  const targets = new Map<string, TargetConfig>();
  const providers = new Map<string, Provider>();
  for (const [name, block] of blocksOf(raw['targets'])) {
    const { kind, lane: rawLane, ...rest } = Object.fromEntries(blocksOf(block));
    if (typeof kind !== 'string' || kind === '') continue;
    const provider = await providerOf(kind);
    if (!provider) {
      fault(['targets', name, 'kind'], `no provider is called ${JSON.stringify(kind)}`);
      continue;
    }
    providers.set(name, provider);
    const parsed = provider.targetSchema.safeParse(rest);
    const lane = laneSchema.safeParse(rawLane);
    if (!lane.success) for (const issue of lane.error.issues) report(issue, ['targets', name, 'lane'], laneSchema, fault);
    else if (parsed.success)
      targets.set(name, {
        name,
        provider,
        config: parsed.data,
        lane: { ...lane.data, concurrency: lane.data.concurrency ?? provider.endsAtOnce ?? usualLane.concurrency },
      });
    if (!parsed.success) for (const issue of parsed.error.issues) report(issue, ['targets', name], provider.targetSchema, fault);
  }
  return { targets, providers };
}

/** The entitlements whose blocks are right; `providers` is by the targets' names. Of a block with a fault of form, noted already, only target and grant are looked at. */
export function checkEntitlements(raw: Record<string, unknown>, providers: ReadonlyMap<string, Provider>, fault: Fault): Map<string, Entitlement> {
  const entitlements = new Map<string, Entitlement>();
  const targetNames = blocksOf(raw['targets']).map(([name]) => name);
  for (const [name, block] of blocksOf(raw['entitlements'])) {
    const at = ['entitlements', name];
    const { target: targetName, grant: rawGrant } = Object.fromEntries(blocksOf(block));
    if (typeof targetName === 'string' && !targetNames.includes(targetName))
      fault([...at, 'target'], `there is no target ${JSON.stringify(targetName)}${nearest(targetName, targetNames)}`);
    const provider = typeof targetName === 'string' ? providers.get(targetName) : undefined;
    const grant = rawGrant !== null && typeof rawGrant === 'object' ? provider?.grantSchema.safeParse(rawGrant) : undefined;
    if (provider && grant && !grant.success) for (const issue of grant.error.issues) report(issue, [...at, 'grant'], provider.grantSchema, fault);
    const parsed = entitlementSchema.safeParse(block);
    if (!parsed.success) continue;
    const { maxDuration, decideWithin, breakGlass, review, stepUp, slackDecision, notify: _, ...rest } = parsed.data;
    const everyApprover = {
      groups: [...new Set(rest.approval.flatMap((rule) => rule.of.groups))],
      subjects: [...new Set(rest.approval.flatMap((rule) => rule.of.subjects))],
    };
    const entitlement: Entitlement = {
      ...rest,
      name,
      kind: provider?.kind ?? '',
      grant: (grant?.data ?? null) as Json,
      grantInWords: provider && grant?.success ? provider.grantInWords(grant.data) : '',
      maxDurationSeconds: maxDuration,
      decideWithinSeconds: decideWithin,
      breakGlass: breakGlass ? { eligible: breakGlass.eligible, maxDurationSeconds: breakGlass.maxDuration } : null,
      review: { of: review.of ?? everyApprover, withinSeconds: review.within },
      ...(stepUp ? { stepUp: { maxAgeSeconds: stepUp.maxAge, ...(stepUp.acr === undefined ? {} : { acr: stepUp.acr }) } } : {}),
      ...(slackDecision ? { slackDecision } : {}),
    };
    checkPolicy(entitlement, at, fault);
    if (grant?.success) entitlements.set(name, entitlement);
  }
  return entitlements;
}

function checkPolicy(entitlement: Entitlement, at: readonly string[], fault: Fault): void {
  const impossible = impossibleRule(entitlement);
  if (impossible) fault([...at, 'approval'], impossible);
  const { breakGlass, review } = entitlement;
  if (!breakGlass) return;
  if (breakGlass.maxDurationSeconds > entitlement.maxDurationSeconds)
    fault([...at, 'breakGlass', 'maxDuration'], 'break-glass must not last longer than maxDuration');
  if (review.of.groups.length > 0 || impossible) return;
  const breakers = breakGlass.eligible.groups.length === 0 ? breakGlass.eligible.subjects : [];
  if (review.of.subjects.length === 0) fault([...at, 'review', 'of'], 'nobody could review a break-glass');
  else if (breakers.length > 0 && breakers.every((breaker) => review.of.subjects.every((subject) => subject === breaker)))
    fault([...at, 'review', 'of'], 'only the person who broke the glass could review it');
}

const loopback = (url: URL): boolean => ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname);
/** Names below localhost lead a browser to its own machine (RFC 6761 §6.3). */
const belowLocalhost = (url: URL): boolean => url.hostname.endsWith('.localhost');

/** Checks addresses and references to secrets, in each block whose form is right. */
export function checkServer(raw: Record<string, unknown>, fault: Fault): void {
  const { server, database, login } = configSchema.shape;
  const webAddress = (path: readonly string[], text: string, mayBePlain = loopback): void => {
    const url = new URL(text);
    if (url.protocol === 'http:' && !mayBePlain(url)) fault(path, 'must be https, except on loopback');
    if (url.username || url.password) fault(path, 'must not hold a user or a password');
  };
  const oneSecret = (path: readonly string[], block: object, name: string): void => {
    if (`${name}File` in block && `${name}Env` in block) fault([...path, `${name}Env`], `say ${name}File or ${name}Env, one of the two`);
  };
  const store = (path: readonly string[], block: { url: string }): void => {
    const url = new URL(block.url);
    if (url.password || url.searchParams.has('password')) fault([...path, 'url'], 'must not hold the password: put it into passwordFile or passwordEnv');
    oneSecret(path, block, 'password');
  };
  const web = server.safeParse(raw['server']);
  if (web.success) {
    webAddress(['server', 'url'], web.data.url);
    const { pathname, search, hash } = new URL(web.data.url);
    if (pathname !== '/' || search || hash) fault(['server', 'url'], 'must not have a path');
  }
  const db = database.safeParse(raw['database']);
  if (db.success) {
    store(['database'], db.data);
    if (db.data.migration) store(['database', 'migration'], db.data.migration);
  }
  const id = login.safeParse(raw['login']);
  if (id.success) {
    webAddress(['login', 'issuer'], id.data.issuer, (url) => loopback(url) || belowLocalhost(url));
    oneSecret(['login'], id.data, 'clientSecret');
  }
}
