/** Where Halligan starts: `halligan <command>`. It reads the command line, loads what that command needs, and nothing more. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { exit } from './cli/exit-codes.ts';
import { addClientCommands, addHelp, runClient } from './cli/program.ts';
import { parseDuration } from './domain/duration.ts';
import type { PruneCommandOptions } from './prune-command.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };

const program = new Command('halligan')
  .description('Break-glass and just-in-time access: short-lived, approved, revoked on time, proven gone, witnessed.')
  .version(version, '-V, --version', 'print the version')
  .showHelpAfterError('(halligan help lists the commands; add --help to one of them for its options)')
  .exitOverride();

const finish = (code: number): void => {
  process.exitCode = code;
};
addClientCommands(program, async (action) => finish(await runClient(action)));
program.commandsGroup('Running it:');
addServerCommands(program);
program.commandsGroup('More:');
addHelp(program);

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  if (error.code === 'halligan.unknownTopic') process.stderr.write(`${error.message}\n`);
  // Commander has said what is wrong; help and version that were asked for are no fault.
  finish(error.code === 'commander.help' || error.exitCode !== 0 ? exit.usage : exit.ok);
}

function secondsOf(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** What runs beside the database. These leave at once when they are done: nothing of theirs may keep the process. */
function addServerCommands(to: Command): void {
  const config = ['--config <file>', 'the config file; HALLIGAN_CONFIG, then config/halligan.yaml unless said'] as const;
  const metrics = ['--metrics <host:port>', 'where Prometheus scrapes this process, instead of metrics.listen in the config'] as const;
  const leave = async (code: Promise<number>): Promise<void> => process.exit(await code);
  const serve = () => import('./serve.ts');
  to.command('serve')
    .description('run the server: web, API and workers')
    .option(...config)
    .option('--no-worker', 'web and API only; something else runs halligan worker')
    .option(...metrics)
    .action(async (options: { config?: string; worker: boolean; metrics?: string }) => leave((await serve()).serveCommand({ ...options, web: true })));
  to.command('worker')
    .description('run the workers only: expire, revoke, reconcile, seal')
    .option(...config)
    .option(...metrics)
    .action(async (options: { config?: string; metrics?: string }) => leave((await serve()).serveCommand({ ...options, web: false, worker: true })));
  to.command('migrate')
    .description("bring Halligan's own database up to date")
    .option(...config)
    .option('--url <url>', "the owner's postgres:// address, instead of database.migration in the config")
    .action(async (options: { config?: string; url?: string }) => finish(await (await serve()).migrateCommand(options)));
  to.command('reap')
    .description('a second hand beside a target: ends what is over there, with no need of Halligan, its database or its queue')
    .requiredOption('--targets <file>', "a YAML file with a targets block, with the reaper's own accounts")
    .option('--once', 'one round, then leave: 0 only if it had no fault')
    .addOption(new Option('--every <duration>', 'from one round to the next').default(30, '30s').argParser(secondsOf))
    .action(async (options: { targets: string; once?: boolean; every: number }) =>
      leave((await import('./reap/reap.ts')).reapCommand({ targets: options.targets, once: options.once ?? false, everySeconds: options.every })),
    );
  to.command('doctor')
    .description(
      'ask every target, as Halligan itself: reachable, rights sufficient and not excessive, clocks, roles; and look at Redis and at the ways of telling people; 0 only when all is well',
    )
    .option(...config)
    .addOption(new Option('-o, --output <form>', 'the form of the answer').choices(['table', 'json', 'yaml']).default('table'))
    .action(async (options: { config?: string; output: 'table' | 'json' | 'yaml' }) => finish(await (await serve()).doctorCommand(options)));
  to.command('print')
    .description('print the least rights that the loaded config needs at its targets, ready to be applied')
    .argument('<what>', 'postgres-setup, and what the other kinds of target have')
    .option(...config)
    .action(async (what: string, options: { config?: string }) => finish(await (await serve()).printCommand({ ...options, what })));
  const configCommand = to.command('config').description('check the config, or describe its form');
  configCommand
    .command('check')
    .description('list every fault with its line, or say ok')
    .option(...config)
    .action(async (options: { config?: string }) => finish(await (await serve()).configCheckCommand(options)));
  configCommand
    .command('schema')
    .description('the JSON Schema of the config file, for editors')
    .action(async () => finish(await (await serve()).configSchemaCommand()));
  const audit = to.commands.find((one) => one.name() === 'audit');
  audit
    ?.command('prune')
    .description('delete the beginning of the log, once it is archived: verifies the export, and without --yes only says what would go')
    .requiredOption('--export <file>', 'an export of the whole log, which you keep')
    .requiredOption('--before <time>', 'only entries that are older: 2026-01-31, or 2026-01-31T12:00:00Z')
    .option('--checkpoints <path>', 'the published checkpoints, their file or folder; audit.checkpoints.directory unless said')
    .option('--key <key>', 'the verifier key (name+hash+base64), or a file that holds it; audit.signingKeyFile with .pub unless said')
    .option('-y, --yes', 'delete')
    .option(...config)
    .option('--url <url>', "the owner's postgres:// address, instead of database.migration in the config")
    .action(async (options: PruneCommandOptions & { config?: string; url?: string }) => finish(await (await serve()).pruneLogCommand(options)));
  audit
    ?.command('keygen')
    .description('make the key that signs the log: FILE (keep it secret) and FILE.pub (give it to auditors)')
    .requiredOption('--name <origin>', "the log's name: halligan.example.com/audit")
    .requiredOption('--out <file>', 'where the private key goes')
    .action(async (options: { name: string; out: string }) => finish(await (await serve()).keygenCommand(options)));
  to.command('demo')
    .description('run a whole Halligan here and watch the main job, on real parts')
    .option('--once', 'leave after the story; 0 only if every step held')
    .option('--json', 'one JSON object a step')
    .option('--slack', 'with a double of Slack on this machine, in which the request is approved')
    .option('--data-directory <folder>', 'where its data goes; .halligan/demo unless said')
    .action(async (options: { once?: boolean; json?: boolean; slack?: boolean; dataDirectory?: string }) =>
      leave(
        (await import('./demo/demo.ts')).runDemo({
          once: options.once ?? false,
          json: options.json ?? false,
          slack: options.slack ?? false,
          dataDirectory: options.dataDirectory,
        }),
      ),
    );
}
