/** The client commands as commander knows them: names, options and help. Each command's code is loaded when it is called, so that help is fast. */
import { type Command, CommanderError } from 'commander';
import { exit, exitMeanings } from './exit-codes.ts';
import { wordsOf } from './fault.ts';
import { Interrupted, say, type Terminal } from './terminal.ts';

type Action = (terminal: Terminal) => Promise<number>;
/** Runs a client command and remembers its exit code. */
export type Runner = (action: Action) => Promise<void>;

const outputOption = ['-o, --output <format>', 'table, json or yaml', 'table'] as const;

/** Adds every command that talks to a server, and the verifier, to `program`. */
export function addClientCommands(program: Command, run: Runner): void {
  // So that psql and exec can hand on what follows the entitlement, options too.
  program.enablePositionalOptions();
  program.commandsGroup('Login:');
  addLogin(program, run);
  program.commandsGroup('Your access:');
  addAsking(program, run);
  addUsing(program, run);
  program.commandsGroup("Others' access:");
  addDeciding(program, run);
  program.commandsGroup('The audit log:');
  addAudit(program, run);
  addQuarantine(program, run);
}

function addLogin(program: Command, run: Runner): void {
  program
    .command('login')
    .description('log this terminal in, by browser or by code')
    .option('--server <url>', 'the server; the last one, or HALLIGAN_SERVER, unless said')
    .option('--device', 'by a code that is typed in at any browser: for SSH')
    .option('--no-browser', 'print the address instead of opening a browser')
    .option('--max-age <duration>', 'prove who you are again if that was longer ago: 5m')
    .option('--acr <class>', 'with this class of proof, such as a second factor, as your identity provider names it')
    .action((options) => run(async (terminal) => (await import('./verbs/login.ts')).login(terminal, options)));
  program
    .command('logout')
    .description('end this login')
    .option('--everywhere', 'end all your logins: every browser and terminal')
    .action((options) => run(async (terminal) => (await import('./verbs/login.ts')).logout(terminal, options)));
  program
    .command('whoami')
    .description('who you are to the server, and until when')
    .option(...outputOption)
    .action((options) => run(async (terminal) => (await import('./verbs/login.ts')).whoami(terminal, options)));
}

function addAsking(program: Command, run: Runner): void {
  program
    .command('entitlements')
    .description('what there is to ask for, and who approves it')
    .option(...outputOption)
    .action((options) => run(async (terminal) => (await import('./verbs/status.ts')).entitlements(terminal, options)));
  program
    .command('request <entitlement...>')
    .description('ask for access and wait for the decision; prints the id of the grant')
    .option('--for <duration>', 'for how long: 45m, 1h30m')
    .option('--reason <text>', 'why; kept for ever')
    .option('--incident <ref>', 'the ticket that it belongs to')
    .option('--start-at <time>', 'open it later: 2026-01-31T03:00:00Z')
    .option('--break-glass', 'open it at once, without approval: louder, shorter, reviewed afterwards')
    .option('--no-wait', 'ask, print the id of the request and leave with 8')
    .option('--timeout <duration>', 'wait this long at most, then leave with 3')
    .option('--idempotency-key <key>', 'asking again with the same key gives the same request')
    .action((names, options) => run(async (terminal) => (await import('./verbs/request.ts')).request(terminal, names, options)));
  program
    .command('status [id]')
    .description('what is open and what waits; with an id, its whole story')
    .option('--system', 'how Halligan itself does, for auditors and admins: due, overdue, retried; lags; which processes are alive')
    .option(...outputOption)
    .action((id, options) => run(async (terminal) => (await import('./verbs/status.ts')).status(terminal, id, options)));
  program
    .command('withdraw <request>')
    .description('take your pending request back')
    .action((id) => run(async (terminal) => (await import('./verbs/request.ts')).withdraw(terminal, id)));
}

function addUsing(program: Command, run: Runner): void {
  const entitlementOption = ['--entitlement <name>', 'which one, when a grant that is named by its id holds several'] as const;
  program
    .command('creds <entitlement>')
    .description('claim a login and write it where a program can read it')
    .option('-o, --output <format>', 'env, json, uri or pgpass', 'env')
    .option('--out <file>', 'into a new file that only you can read')
    .option('--force', 'replace the file')
    .option('--reveal', 'print it although this is a terminal')
    .option(...entitlementOption)
    .action((given, options) => run(async (terminal) => (await import('./verbs/use.ts')).creds(terminal, given, options)));
  program
    .command('aws <entitlement>')
    .description(
      'claim AWS keys and print them as a credential_process does; each further call gives new keys of the same login. --profile prints the lines for ~/.aws/config',
    )
    .option('--profile', 'print the profile that calls this command, and claim nothing')
    .option('--reveal', 'print the keys although this is a terminal')
    .option(...entitlementOption)
    .action((given, options) => run(async (terminal) => (await import('./verbs/use.ts')).aws(terminal, given, options)));
  program
    .command('kube <entitlement>')
    .description(
      'open a cluster and print a kubeconfig for it, which holds no secret; --exec is what kubectl calls, and gives one more token of the same login each time',
    )
    .option('--exec', 'print the ExecCredential that kubectl reads')
    .option('--user <name>', 'the user of your own kubeconfig that logs in there, where your own login is opened')
    .option(...entitlementOption)
    .action((given, options) => run(async (terminal) => (await import('./verbs/use.ts')).kube(terminal, given, options)));
  program
    .command('psql <entitlement> [args...]')
    .description('claim a login and start psql with it; what follows goes to psql')
    .passThroughOptions()
    .option(...entitlementOption)
    .action((given, args: string[], options) => run(async (terminal) => (await import('./verbs/use.ts')).psql(terminal, given, withoutDashes(args), options)));
  program
    .command('exec <entitlement> <command...>')
    .description('claim a login and run a command with it in the environment (PGHOST, PGPASSWORD, …)')
    .usage('[options] <entitlement> -- <command...>')
    .passThroughOptions()
    .option(...entitlementOption)
    .action((given, command: string[], options) =>
      run(async (terminal) => (await import('./verbs/use.ts')).exec(terminal, given, withoutDashes(command), options)),
    );
  program
    .command('return [grant]')
    .description('give access back before its time: an entitlement, a grant, or the only one that is open')
    .action((given) => run(async (terminal) => (await import('./verbs/end.ts')).giveBack(terminal, given)));
}

/** `--` between the entitlement and what is run says that options end; it is no argument. */
const withoutDashes = (args: readonly string[]): readonly string[] => (args[0] === '--' ? args.slice(1) : args);

function addDeciding(program: Command, run: Runner): void {
  const decide = async (terminal: Terminal, decision: 'approve' | 'deny', id: string, options: object) =>
    (await import('./verbs/decide.ts')).decide(terminal, decision, id, options);
  program
    .command('approve <request>')
    .description('see exactly what would be opened, and approve that')
    .option('--reason <text>', 'why; kept for ever')
    .option('-y, --yes', 'do not ask for confirmation')
    .action((id, options) => run((terminal) => decide(terminal, 'approve', id, options)));
  program
    .command('deny <request>')
    .description('deny a request; one deny is enough')
    .option('--reason <text>', 'why; kept for ever')
    .action((id, options) => run((terminal) => decide(terminal, 'deny', id, options)));
  program
    .command('revoke [grant]')
    .description("end somebody's grant, or everything of an incident")
    .option('--incident <ref>', 'end every open grant of this incident')
    .option('--reason <text>', 'why; kept for ever')
    .action((given, options) => run(async (terminal) => (await import('./verbs/end.ts')).revoke(terminal, given, options)));
  const reviews = program
    .command('reviews')
    .description('the reviews of break-glass uses that are due')
    .option(...outputOption)
    .option('--all', 'the closed ones too')
    .action((options) => run(async (terminal) => (await import('./verbs/reviews.ts')).reviews(terminal, options)));
  reviews
    .command('close <review>')
    .description("say what somebody else's use was")
    .requiredOption('--verdict <verdict>', 'justified, drill, follow-up or misuse')
    .option('--notes <text>', 'what was done, and whether it was right')
    .action((id, options) => run(async (terminal) => (await import('./verbs/reviews.ts')).closeReview(terminal, id, options)));
}

function addQuarantine(program: Command, run: Runner): void {
  const quarantine = program
    .command('quarantine')
    .description('after a restore from a backup: why nothing is opened, and where targets and rows differ; for auditors and admins')
    .option(...outputOption)
    .action((options) => run(async (terminal) => (await import('./verbs/quarantine.ts')).quarantine(terminal, options)));
  quarantine
    .command('lift')
    .description('say that Halligan goes on from here; for admins')
    .option('--reason <text>', 'why; kept for ever')
    .option('-y, --yes', 'do not ask for confirmation')
    .action((options) => run(async (terminal) => (await import('./verbs/quarantine.ts')).liftQuarantine(terminal, options)));
}

/** `main.ts` adds `audit keygen`, which runs beside the server. */
function addAudit(program: Command, run: Runner): void {
  const audit = program.command('audit').description('export, read and verify the log');
  audit
    .command('export')
    .description('the sealed log, byte for byte; for auditors')
    .option('--out <file>', 'into a file instead of stdout')
    .option('--checkpoints <file>', 'also fetch the signed checkpoints that belong to it')
    .option('--format <format>', 'jsonl (the log itself) or csv (for reading)', 'jsonl')
    .action((options) => run(async (terminal) => (await import('./verbs/audit.ts')).exportAudit(terminal, options)));
  audit
    .command('verify <file>')
    .description('prove that an export is what was sealed, or name the first entry that is not; needs no server')
    .requiredOption('--key <key>', 'the verifier key (name+hash+base64), or a file that holds it')
    .option('--checkpoints <path>', 'the file or folder of checkpoints; those beside the export unless said')
    .option('--allow-unsealed', 'count entries after the newest checkpoint instead of refusing them')
    .option(...outputOption)
    .action((file, options) => run(async (terminal) => (await import('./verbs/verify.ts')).verify(terminal, file, options)));
  audit
    .command('evidence <grant>')
    .description('everything witnessed about a grant, with proofs')
    .option('--out <file>', 'into a file instead of stdout')
    .action((id, options) => run(async (terminal) => (await import('./verbs/audit.ts')).evidence(terminal, id, options)));
  audit
    .command('verify-evidence <file>')
    .description('check the proofs of an evidence bundle; needs no server')
    .requiredOption('--key <key>', 'the verifier key (name+hash+base64), or a file that holds it')
    .option(...outputOption)
    .action((file, options) => run(async (terminal) => (await import('./verbs/verify.ts')).verifyBundle(terminal, file, options)));
  audit
    .command('tail')
    .description('the newest events that you may see')
    .option('-f, --follow', 'go on with those that come, until Ctrl-C')
    .option('-n, --number <count>', 'how many to begin with', '20')
    .option('-o, --output <format>', 'table, or json: one object a line', 'table')
    .option('--person <name>', 'of this person: an id or a part of the name')
    .option('--entitlement <name>', 'about this entitlement')
    .option('--incident <ref>', 'of this incident')
    .option('--grant <id>', 'about this grant')
    .option('--type <type>', 'of this type: request.approved')
    .action((options) => run(async (terminal) => (await import('./verbs/audit.ts')).tail(terminal, options)));
}

/** `halligan help`, `halligan help audit verify`, `halligan help exit-codes`. */
export function addHelp(program: Command): void {
  program.helpCommand(false);
  program
    .command('help [topic...]')
    .description('help on a command, or on exit-codes')
    .action((topics: string[]) => {
      if (topics.length === 1 && topics[0] === 'exit-codes') {
        process.stdout.write(exitMeanings.map(([code, meaning]) => `${String(code).padStart(3)}  ${meaning}\n`).join(''));
        return;
      }
      let command = program;
      for (const topic of topics) {
        const next = command.commands.find((one) => one.name() === topic);
        if (!next)
          throw new CommanderError(exit.usage, 'halligan.unknownTopic', `There is no command ${JSON.stringify(topics.join(' '))}. halligan help lists them.`);
        command = next;
      }
      command.outputHelp();
    });
}

/** Runs one client command: its own Ctrl-C, its words on stderr, its exit code. */
export async function runClient(action: Action): Promise<number> {
  const stop = new AbortController();
  const onInterrupt = (): void => {
    // A command with a child of its own (psql) listens as well, and then the signal is the child's.
    if (process.listenerCount('SIGINT') > 1) return;
    if (stop.signal.aborted) process.exit(exit.interrupted);
    stop.abort(new Interrupted());
  };
  process.on('SIGINT', onInterrupt);
  const terminal: Terminal = { env: process.env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr, interrupted: stop.signal };
  // `halligan … | head` ends early on purpose.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 141 : exit.error));
  try {
    return await action(terminal);
  } catch (error) {
    if (stop.signal.aborted || error instanceof Interrupted) return exit.interrupted;
    const { message, next, exitCode } = wordsOf(error);
    say(terminal, message);
    if (next) say(terminal, /^(halligan|chmod|rm|unset) /.test(next) ? `next: ${next}` : next);
    return exitCode;
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}
