/** Where Halligan starts: `halligan <command>`. It reads the command line, loads what that command needs, and nothing more. */
import { Command } from 'commander';

const program = new Command('halligan');
program
  .command('serve')
  .option('--config <file>')
  .action(async (options: { config?: string }) => (await import('./serve.ts')).serveCommand({ ...options, web: true, worker: true }));
await program.parseAsync();
