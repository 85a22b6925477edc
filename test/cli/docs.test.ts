/** docs/cli.md names every command and every exit code there is, and none that is not. */
import { readFile } from 'node:fs/promises';
import { Command } from 'commander';
import { expect, test } from 'vitest';
import { exitMeanings } from '../../src/cli/exit-codes.ts';
import { addClientCommands, addHelp } from '../../src/cli/program.ts';

const namesOf = (command: Command, before = ''): string[] =>
  command.commands.flatMap((one) => {
    const name = `${before} ${one.name()}`;
    return [...(one.commands.length === 0 || ['reviews', 'quarantine'].includes(one.name()) ? [name.trim()] : []), ...namesOf(one, name)];
  });

test('docs/cli.md names every command and no other', async () => {
  const text = await readFile('docs/cli.md', 'utf8');
  const program = new Command('halligan');
  addClientCommands(program, async () => undefined);
  addHelp(program);
  const server = ['serve', 'worker', 'migrate', 'config check', 'config schema', 'reap', 'doctor', 'print', 'audit keygen', 'audit prune', 'demo'];
  const documented = [...text.matchAll(/^\| `halligan ([a-z -]+)` \|/gm)].map(([, name]) => name);
  expect(documented.toSorted()).toEqual([...namesOf(program), ...server].toSorted());
});

test('docs/cli.md has the exit codes as the program says them', async () => {
  const text = await readFile('docs/cli.md', 'utf8');
  const documented = [...text.matchAll(/^\| (\d+) \| (.+) \|$/gm)].map(([, code, meaning]) => [Number(code), meaning]);
  expect(documented).toEqual(exitMeanings);
});
