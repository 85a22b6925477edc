/** `halligan creds`, `psql`, `exec`: claims a login and hands it to what needs it, never to the screen, to argv or to a log. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { link, open, rename, rm, stat } from 'node:fs/promises';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { type Client, connect } from '../client.ts';
import { type CredentialFormat, childEnvironment, credentialFormatOf, credentialProcessLine, render } from '../credentials.ts';
import { execCredential, kubeconfigFor } from '../exec-credential.ts';
import { exit } from '../exit-codes.ts';
import { CliFault, usage } from '../fault.ts';
import { activeGrant, closedFault, looksLikeId } from '../resolve.ts';
import { putRaw, say, type Terminal } from '../terminal.ts';
import { line, shellWord } from '../text.ts';
import type { WireClaim, WireGrant } from '../wire.ts';
import { about, clock, secondsUntil } from '../words.ts';

const claimDeadlineMs = 15_000;

/** Kinds of target where a claim of what is claimed already gives one more credential of the same login; elsewhere it replaces the login. */
const givesAnother: readonly string[] = ['aws-sts', 'kubernetes-rbac'];

/** Claims a login for an entitlement's name or a grant's id. */
async function claim(terminal: Terminal, client: Client, given: string, wanted?: string): Promise<{ claim: WireClaim; grant: WireGrant }> {
  const grant = await activeGrant(client, given);
  const entitlement = looksLikeId('gnt', given) ? onlyOne(grant, wanted) : given;
  if (grant.state !== 'active') throw closedFault(grant, entitlement);
  const earlier = grant.leases.find((lease) => lease.entitlement === entitlement && lease.state === 'live' && !givesAnother.includes(lease.kind));
  if (earlier)
    say(terminal, `This replaces the login claimed at ${clock(earlier.createdAt, new Date(grant.readAt))} UTC; what is still open with that one is cut.`);
  const made = await client.post<WireClaim>(`/grants/${grant.id}/leases`, { entitlement }, { deadlineMs: claimDeadlineMs });
  return { claim: made, grant };
}

function onlyOne(grant: WireGrant, wanted: string | undefined): string {
  if (wanted !== undefined) return wanted;
  const [first] = grant.entitlements;
  if (grant.entitlements.length === 1 && first !== undefined) return first;
  throw usage(`This grant holds ${grant.entitlements.map(line).join(', ')}: name one of them.`, `halligan … ${shellWord(first ?? '')}`);
}

const sayLogin = (terminal: Terminal, { claim: made, grant }: { claim: WireClaim; grant: WireGrant }): void => {
  const now = new Date(grant.readAt);
  say(
    terminal,
    `login ${line(made.handle)} in ${line(made.connection['database'] ?? made.target)}, until ${clock(made.expiresAt, now)} UTC (${about(secondsUntil(made.expiresAt, now))} left)`,
  );
};

export interface CredsOptions {
  readonly output: string;
  readonly out?: string;
  readonly reveal?: boolean;
  readonly force?: boolean;
  readonly entitlement?: string;
}

/** Everything that can be refused is refused before the claim, so that no login is made for nothing. */
export async function creds(terminal: Terminal, given: string, options: CredsOptions): Promise<number> {
  const format = credentialFormatOf(options.output);
  if (options.out === undefined && terminal.stdout.isTTY && !options.reveal) {
    throw usage(`Refusing to print a password on a terminal. Use  halligan psql ${shellWord(given)},  -o pgpass --out FILE,  or --reveal.`);
  }
  const client = await connect(terminal);
  if (options.out === undefined) {
    const made = await claim(terminal, client, given, options.entitlement);
    sayLogin(terminal, made);
    putRaw(terminal, render(made.claim, format));
    return exit.ok;
  }
  return credsToFile(terminal, client, given, { ...options, out: options.out }, format);
}

async function credsToFile(
  terminal: Terminal,
  client: Client,
  given: string,
  options: CredsOptions & { out: string },
  format: CredentialFormat,
): Promise<number> {
  const { out } = options;
  if (!options.force && (await stat(out).catch(() => undefined)))
    throw usage(`${out} exists already, and is left as it is.`, 'Name another file, or add --force.');
  const draft = join(dirname(out), `.halligan-${randomBytes(6).toString('hex')}`);
  const file = await open(draft, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
    throw new CliFault(`${out} cannot be written (${error.code}).`, { next: 'Name a file in a folder of yours.' });
  });
  try {
    const made = await claim(terminal, client, given, options.entitlement);
    await file.writeFile(render(made.claim, format));
    await file.sync();
    if (options.force) await rename(draft, out);
    else await link(draft, out);
    sayLogin(terminal, made);
    say(
      terminal,
      `Written to ${out}, for you only.${format === 'pgpass' ? ` next: PGPASSFILE=${shellWord(out)} psql -h ${shellWord(made.claim.connection['host'] ?? '')} …` : ''}`,
    );
  } finally {
    await file.close();
    await rm(draft, { force: true });
  }
  return exit.ok;
}

/**
 * Prints what an AWS SDK reads from a `credential_process`, or the lines for `~/.aws/config` that make it do so. Each call
 * claims: the first makes the lease, every further one gives new keys of the same lease, and those given before go on.
 */
export async function aws(terminal: Terminal, given: string, options: { profile?: boolean; reveal?: boolean; entitlement?: string }): Promise<number> {
  if (options.profile) {
    putRaw(terminal, `[profile ${line(given)}]\ncredential_process = halligan aws ${shellWord(given)}\n`);
    return exit.ok;
  }
  if (terminal.stdout.isTTY && !options.reveal) {
    throw usage(
      `Refusing to print keys on a terminal. Use  halligan exec ${shellWord(given)} -- aws …,  or  halligan aws ${shellWord(given)} --profile  for ~/.aws/config.`,
    );
  }
  const made = await claim(terminal, await connect(terminal), given, options.entitlement);
  putRaw(terminal, credentialProcessLine(made.claim));
  return exit.ok;
}

/**
 * Opens a cluster: prints a kubeconfig of its own, which holds no secret, or with `exec` what kubectl reads from an exec
 * plugin. Each call claims: the first makes the lease, every further one gives one more token of the same lease, so that a
 * `kubectl logs -f` goes on beside another kubectl.
 */
export async function kube(terminal: Terminal, given: string, options: { exec?: boolean; user?: string; entitlement?: string }): Promise<number> {
  if (options.exec && terminal.stdout.isTTY)
    throw usage(`Refusing to print a token on a terminal: kubectl calls this. Use  halligan kube ${shellWord(given)} > FILE  and  kubectl --kubeconfig FILE …`);
  const made = await claim(terminal, await connect(terminal), given, options.entitlement);
  if (options.exec) putRaw(terminal, execCredential(made.claim));
  else if (made.claim.connection['mode'] === 'user' && options.user === undefined) throw openForOwnLogin(made);
  else {
    const command = ['halligan', 'kube', '--exec', made.claim.grant, '--entitlement', made.claim.entitlement];
    putRaw(terminal, kubeconfigFor(made.claim, { command, ...(options.user === undefined ? {} : { ownUser: options.user }) }));
    sayLogin(terminal, made);
  }
  return exit.ok;
}

/** It is open; only a kubeconfig cannot be written. No file is left empty behind an exit code that says all is well. */
function openForOwnLogin({ claim: made, grant }: { claim: WireClaim; grant: WireGrant }): CliFault {
  const now = new Date(grant.readAt);
  const until = `${clock(made.expiresAt, now)} UTC (${about(secondsUntil(made.expiresAt, now))} left)`;
  return new CliFault(
    `${line(made.entitlement)} is open for your own login there, ${line(made.connection['user'] ?? made.handle)}, until ${until}: kubectl works with it as it is. No kubeconfig was written, because it needs the name of your user.`,
    { next: `halligan kube ${shellWord(made.entitlement)} --user NAME` },
  );
}

/** Runs psql with the login in its environment. */
export async function psql(terminal: Terminal, given: string, args: readonly string[], options: { entitlement?: string }): Promise<number> {
  return run(terminal, given, 'psql', args, { ...options, more: { PGAPPNAME: 'halligan' } });
}

/** Runs any command with the login in its environment. */
export async function exec(terminal: Terminal, given: string, command: readonly string[], options: { entitlement?: string }): Promise<number> {
  const [program, ...args] = command;
  if (program === undefined) throw usage('Which command?', `halligan exec ${shellWord(given)} -- COMMAND …`);
  return run(terminal, given, program, args, options);
}

interface RunOptions {
  readonly entitlement?: string;
  readonly more?: Record<string, string>;
}

async function run(terminal: Terminal, given: string, program: string, args: readonly string[], options: RunOptions): Promise<number> {
  const client = await connect(terminal);
  if (!(await isRunnable(program, terminal.env))) throw missing(program, given);
  const made = await claim(terminal, client, given, options.entitlement);
  sayLogin(terminal, made);
  return followed(() => spawn(program, args, { stdio: 'inherit', env: childEnvironment(terminal.env, made.claim, options.more) }), program, given);
}

/** Looked up before the claim: a typing error must not cut the login that is in use. */
async function isRunnable(program: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  const { access, constants: mode } = await import('node:fs/promises');
  const places = program.includes('/') ? [program] : (env['PATH'] ?? '').split(':').map((folder) => join(folder || '.', program));
  for (const place of places) {
    const found = await stat(place).catch(() => undefined);
    if (
      found?.isFile() &&
      (await access(place, mode.X_OK).then(
        () => true,
        () => false,
      ))
    )
      return true;
  }
  return false;
}

function missing(program: string, given: string): CliFault {
  if (program !== 'psql') return new CliFault(`There is no command ${JSON.stringify(line(program))} on this machine.`, { exitCode: 127 });
  return new CliFault('psql is not on this machine, or not on PATH; no login was claimed.', {
    next: `Install it (Debian and Ubuntu: apt install postgresql-client; macOS: brew install libpq), or use another client: halligan exec ${shellWord(given)} -- COMMAND …`,
  });
}

/**
 * The child's exit code. Signals sent to us go on to it; a Ctrl-C of a terminal has reached it already. They are listened
 * for before it starts: one that came in between would end us and leave the child behind.
 */
async function followed(start: () => ChildProcess, program: string, given: string): Promise<number> {
  let child: ChildProcess | undefined;
  const forward = (signal: NodeJS.Signals): void => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child?.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
  for (const signal of signals) process.on(signal, forward);
  try {
    const started = start();
    child = started;
    return await new Promise<number>((resolve, reject) => {
      started.once('error', (error: NodeJS.ErrnoException) =>
        reject(error.code === 'ENOENT' ? missing(program, given) : new CliFault(`${program} could not be started (${error.code}).`, { exitCode: 126 })),
      );
      started.once('exit', (code, signal) => resolve(code ?? 128 + (signal ? (constants.signals[signal] ?? 0) : 0)));
    });
  } finally {
    for (const signal of signals) process.off(signal, forward);
  }
}
