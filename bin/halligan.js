#!/usr/bin/env node
// Starts Halligan on a Node that can run it: the machine's own if it is new enough, otherwise the one that npm
// installed beside us. Plain JavaScript on purpose, so that an old Node can read it and say what is wrong.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const built = join(root, 'dist', 'main.js');
const entry = existsSync(built) ? built : join(root, 'src', 'main.ts');
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);

if (major > 22 || (major === 22 && minor >= 18)) {
  // From the second start on nothing is parsed again; where the folder cannot be written, that is all that is lost.
  module.enableCompileCache(join(root, 'node_modules', '.cache', 'halligan'));
  process.argv[1] = entry;
  await import(pathToFileURL(entry).href);
} else {
  const node = bundledNode();
  if (!node) {
    console.error(
      `halligan needs Node 22.18 or newer and runs on ${process.version}. Install a newer Node, or run npm install again so that it brings its own.`,
    );
    process.exit(1);
  }
  const child = spawn(node, [entry, ...process.argv.slice(2)], { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => (signal ? process.kill(process.pid, signal) : process.exit(code ?? 1)));
}

function bundledNode() {
  const require = createRequire(import.meta.url);
  try {
    return join(dirname(require.resolve(`node-${process.platform}-${process.arch}/package.json`)), 'bin', 'node');
  } catch {
    return undefined;
  }
}
