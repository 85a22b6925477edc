/** `halligan doctor` and `halligan print`: what every target, the queue and every way of telling people says to our own identity, and the least rights that a target needs. */
import { stringify } from 'yaml';
import { table } from './cli/table.ts';
import { connectTargets, openChannels } from './compose.ts';
import { type Config, configPath, loadConfig } from './config/load.ts';
import type { PrintTarget, TargetFault } from './domain/provider.ts';
import type { Channel } from './notify/channel.ts';
import { providerOf, providers } from './providers/registry.ts';
import { checkRedis } from './workers/open-queue.ts';

interface Finding {
  readonly target: string;
  readonly kind: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly faults: readonly TargetFault[];
}

const deadlineMs = 15_000;

const grantsOf = (config: Config, target: string) =>
  [...config.entitlements.values()]
    .filter((entitlement) => entitlement.target === target)
    .map(({ name, grant, maxDurationSeconds }) => ({ entitlement: name, grant: grant as unknown, maxDurationSeconds }));

/** Checks every target at once with Halligan's own identity. A table for people, JSON or YAML for machines; 0 only when all is well. */
export async function doctorCommand(options: { config?: string | undefined; output: 'table' | 'json' | 'yaml' }): Promise<number> {
  const config = await loadConfig(configPath(options.config), providerOf);
  const targets = connectTargets(config);
  const findings = await Promise.all(
    [...targets.values()].map(async (target): Promise<Finding> => {
      const began = performance.now();
      const faults = await target
        .check(
          grantsOf(config, target.name).map(({ grant }) => grant),
          AbortSignal.timeout(deadlineMs),
        )
        .catch((error: Error): TargetFault[] => [{ message: error.message, next: 'Mend that, then run halligan doctor again.' }]);
      return { target: target.name, kind: target.kind, ok: faults.every((fault) => fault.warning), ms: Math.round(performance.now() - began), faults };
    }),
  );
  await Promise.all([...targets.values()].map((target) => target.close()));
  if (config.redis) findings.push(await checkQueue(config.redis));
  findings.push(...(await Promise.all((await openChannels(config)).map(checkChannel))));
  const ok = findings.every((finding) => finding.ok);
  if (options.output === 'json') process.stdout.write(`${JSON.stringify({ ok, targets: findings }, null, 2)}\n`);
  else if (options.output === 'yaml') process.stdout.write(stringify({ ok, targets: findings }));
  else for (const text of asTable(findings)) process.stdout.write(`${text}\n`);
  return ok ? 0 : 1;
}

/** The queue that processes share, as one more line. */
async function checkQueue(redis: NonNullable<Config['redis']>): Promise<Finding> {
  const began = performance.now();
  const found = await checkRedis(redis).catch((error: Error) => [error.message]);
  const faults = found.map((message) => ({ message, next: 'Access ends on time without it; mend it, then run halligan doctor again.' }));
  return { target: 'redis', kind: 'queue', ok: faults.length === 0, ms: Math.round(performance.now() - began), faults };
}

/** A way of telling people, as one more line. */
async function checkChannel(channel: Channel): Promise<Finding> {
  const began = performance.now();
  const looked = channel.check?.(AbortSignal.timeout(deadlineMs)) ?? Promise.resolve([]);
  const troubles = await looked.catch((error: Error) => [{ place: channel.name, message: error.message, next: 'Mend that, then run halligan doctor again.' }]);
  await channel.close?.();
  const faults = troubles.map(({ place, message, next }) => ({ message: `${place}: ${message}`, next }));
  return { target: channel.name, kind: 'telling', ok: faults.length === 0, ms: Math.round(performance.now() - began), faults };
}

function asTable(findings: readonly Finding[]): string[] {
  const rows = findings.flatMap((finding) =>
    finding.faults.length === 0
      ? [{ ...finding, says: 'ok', next: '' }]
      : finding.faults.map((fault, index) => ({
          ...finding,
          target: index === 0 ? finding.target : '',
          kind: index === 0 ? finding.kind : '',
          says: `${fault.warning ? '◷' : '▲'} ${fault.message}`,
          next: fault.next,
        })),
  );
  return table(
    [
      { title: 'TARGET', of: (row) => row.target },
      { title: 'KIND', of: (row) => row.kind },
      { title: 'FINDING', of: (row) => row.says },
      { title: 'NEXT', of: (row) => row.next },
    ],
    rows,
  );
}

/** Prints the rights called `what` for the loaded config, on stdout. Throws in words when no loaded target has them. */
export async function printCommand(options: { config?: string | undefined; what: string }): Promise<number> {
  const config = await loadConfig(configPath(options.config), providerOf);
  const byKind = Map.groupBy([...config.targets.values()], (target) => target.provider.kind);
  for (const targets of byKind.values()) {
    const print = targets[0]?.provider.prints?.[options.what];
    if (!print) continue;
    const parts: PrintTarget[] = targets.map(({ name, config: block }) => ({ name, config: block, grants: grantsOf(config, name) }));
    process.stdout.write(`${print(parts).trimEnd()}\n`);
    return 0;
  }
  const known = (await Promise.all(Object.values(providers).map(async (load) => Object.keys((await load()).prints ?? {})))).flat();
  throw new Error(
    known.includes(options.what)
      ? `No target of the loaded config needs ${options.what}.`
      : `There is no ${options.what} to print. There is: ${known.join(', ')}.`,
  );
}
