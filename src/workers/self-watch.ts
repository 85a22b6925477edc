/**
 * What a process notices about itself and its neighbours, at each heartbeat: clocks that were set back, a config that was changed
 * under it or that others do not share, its own name on another process, a database that it cannot write to. Nothing is decided
 * by any of it. What changes is said in the log once; what lasts is shown by `/readyz` and `halligan status --system`.
 */
import { hash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Config } from '../config/load.ts';
import { canonicalJson, type Json } from '../domain/canonical.ts';
import type { Said } from './health.ts';

/** Steps that a time server makes in the ordinary run of things are smaller. */
const stepMs = 2_000;
/** A step is shown for so long. */
const shownMs = 600_000;
const offMs = 5_000;

/** One reading. Times in milliseconds. */
export interface Reading {
  /** This machine's steady and wall clock, and PostgreSQL's, at one moment. */
  readonly steady: number;
  readonly wall: number;
  readonly database: number;
  /** The other processes that are alive by their rows. */
  readonly others: readonly { readonly id: string; readonly host: string; readonly pid: number; readonly policy: string | null; readonly seenAt: number }[];
}

export interface SelfWatch {
  /** A hash over what decides: targets, entitlements, roles. */
  readonly policy: string;
  /** Takes a reading; gives what is new, for the log. */
  took(reading: Reading): Said[];
  /** Looks at the config file again. A file that cannot be read tells nothing. */
  readFile(): Promise<void>;
  /** What lasts. */
  warnings(): Said[];
}

type Watched = Pick<Config, 'file' | 'targets' | 'entitlements' | 'roles'>;

/** Begins to watch. `name` is what the process is called in its row; `own`: the config gives it, so it must be nobody else's on any machine. */
export async function selfWatch(config: Watched, name: { readonly host: string; readonly pid: number; readonly own: boolean }): Promise<SelfWatch> {
  const policy = policyHash(config);
  const fileAtStart = await hashOfFile(config.file);
  let fileChanged = false;
  let before: Reading | undefined;
  let last: Reading | undefined;
  const steps: { readonly at: number; readonly said: Said }[] = [];
  return {
    policy,
    took(reading) {
      const found = last ? stepsBetween(last, reading) : [];
      for (const said of found) steps.push({ at: reading.steady, said });
      [before, last] = [last, reading];
      return found;
    },
    async readFile() {
      const now = await hashOfFile(config.file);
      fileChanged = fileAtStart !== undefined && now !== undefined && now !== fileAtStart;
    },
    warnings() {
      if (!last) return [];
      const { steady } = last;
      return [
        ...steps.filter((step) => steady - step.at < shownMs).map((step) => step.said),
        ...clockOff(last),
        ...(fileChanged
          ? [
              {
                code: 'config_changed',
                message: `${config.file} was changed since this process started, which goes on with what it read then. To use it: halligan config check, then a restart.`,
              },
            ]
          : []),
        ...sameName(name, before, last),
        ...otherPolicy(policy, last),
      ];
    },
  };
}

/** Over what decides, and not over addresses and files, which may differ from machine to machine. */
function policyHash({ targets, entitlements, roles }: Watched): string {
  const kinds = [...targets.values()].map(({ name, provider }) => [name, provider.kind]);
  const all = { targets: kinds.sort(), entitlements: [...entitlements].sort(([one], [other]) => (one < other ? -1 : 1)), roles };
  return hash('sha256', canonicalJson(JSON.parse(JSON.stringify(all)) as Json)).slice(0, 16);
}

const hashOfFile = (file: string): Promise<string | undefined> =>
  readFile(file)
    .then((bytes) => hash('sha256', bytes))
    .catch(() => undefined);

const seconds = (ms: number): string => `${Math.round(ms / 1_000)} s`;

function stepsBetween(one: Reading, next: Reading): Said[] {
  const passed = next.steady - one.steady;
  const back = { machine: passed - (next.wall - one.wall), database: passed - (next.database - one.database) };
  return [
    ...(back.machine > stepMs
      ? [
          {
            code: 'clock_stepped_back',
            message: `This machine's clock was set back by ${seconds(back.machine)}. Nothing is decided by it; lines of the log from before look as if they came later.`,
          },
        ]
      : []),
    ...(back.database > stepMs
      ? [
          {
            code: 'database_clock_stepped_back',
            message: `PostgreSQL's clock was set back by ${seconds(back.database)}: what was open ends that much later. End what must not, with halligan revoke, and mend its time synchronisation.`,
          },
        ]
      : []),
  ];
}

const clockOff = ({ wall, database }: Reading): Said[] =>
  Math.abs(wall - database) > offMs
    ? [
        {
          code: 'clock_off',
          message: `This machine's clock and PostgreSQL's are ${seconds(Math.abs(wall - database))} apart. Nothing is decided by this one; mend it all the same.`,
        },
      ]
    : [];

/** Only who is seen to be alive from one reading to the next: the row of a process that was killed stays for a minute. */
function sameName(name: { host: string; pid: number; own: boolean }, before: Reading | undefined, { others }: Reading): Said[] {
  const twin = others.find(
    (one) => one.host === name.host && (name.own || one.pid === name.pid) && before?.others.some((was) => was.id === one.id && was.seenAt < one.seenAt),
  );
  return twin
    ? [
        {
          code: 'instance_name_taken',
          message: `Another process is alive under the name ${name.own ? name.host : `${name.host} (${name.pid})`}, so nobody can tell the two apart. Give each its own host name, or server.instance.`,
        },
      ]
    : [];
}

function otherPolicy(policy: string, { others }: Reading): Said[] {
  const differ = others.filter((one) => one.policy !== null && one.policy !== policy);
  const names = differ.slice(0, 5).map((one) => `${one.host} (${one.pid})`);
  return differ.length > 0
    ? [
        {
          code: 'config_differs',
          message: `${names.join(', ')}${differ.length > 5 ? ` and ${differ.length - 5} more` : ''} ${differ.length === 1 ? 'runs' : 'run'} with other targets, entitlements or roles than this process. Restart those that have the old config.`,
        },
      ]
    : [];
}

/** Why a row could not be written, where people must do something about it. */
export function writeFault(error: unknown): Said | undefined {
  const { code } = (error ?? {}) as { code?: string };
  if (code === '25006')
    return {
      code: 'database_read_only',
      message:
        'The database cannot be written to (a standby, or default_transaction_read_only): nothing is opened, and only the targets themselves end what is over.',
    };
  if (code === '53100')
    return {
      code: 'database_full',
      message: "The database's disk is full: nothing is opened, and only the targets themselves end what is over. Make room; Halligan goes on by itself.",
    };
  return undefined;
}
