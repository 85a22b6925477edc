/** The demo with an OpenBao: its round through Vault holds, and nothing of it stays. */
import { spawn } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { install } from './servers/openbao.ts';

test('npm run demo tells a round through Vault', { timeout: 150_000 }, async () => {
  const bao = join(await install(), 'bao');
  const folder = await mkdtemp(join(tmpdir(), 'halligan-demo-'));
  await chmod(folder, 0o755); // for the database server's own user
  try {
    const demo = spawn(process.execPath, ['bin/halligan.js', 'demo', '--once', '--json', '--data-directory', folder], {
      env: { ...process.env, HALLIGAN_DEMO_BAO: bao },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [said, aside] = ['', ''];
    demo.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
    });
    demo.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      aside += chunk;
    });
    const code = await new Promise((resolve) => demo.once('close', resolve));
    expect(code, `${said}\n${aside}`).toBe(0);
    const steps = said
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { step: string; ok: boolean; says: string });
    expect(steps.map((step) => step.step)).toContain('vault');
    expect(steps.filter((step) => !step.ok)).toEqual([]);
    expect(steps.find((step) => step.step === 'vault')?.says).toMatch(/a user that Vault made \(v-.*hg-lse-.*session cut, login refused, user and token gone/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
