/** `halligan demo`: starts a whole Halligan, tells the story of the main job, then keeps the console up until Ctrl-C. */
import { join } from 'node:path';
import { exitCodeOf, onStopSignal } from '../stop-signal.ts';
import { type House, startHouse } from './house.ts';
import { findBao, howToGetBao } from './openbao.ts';
import { tellStory } from './story.ts';
import { type Step, stepNames } from './story-parts.ts';

export interface DemoOptions {
  /** Exit after the story: 0 only if every step held. */
  readonly once: boolean;
  /** One JSON object per step on stdout, nothing else there. */
  readonly json: boolean;
  /** With a double of Slack: the approval is given there. */
  readonly slack?: boolean;
  readonly dataDirectory?: string | undefined;
}

/** Runs the demo; resolves with the exit code. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const began = performance.now();
  const say = (line: string): void => void (options.json ? process.stderr : process.stdout).write(`${line}\n`);
  const stopping = untilSignal();
  let house: House | undefined;
  try {
    say('Halligan opens the production door for one named person, for a stated time, with a witness, and closes it again.\n');
    const bao = await findBao();
    house = await startHouse({
      dataDirectory: options.dataDirectory ?? join('.halligan', 'demo'),
      log: (line) => say(`  ${line}`),
      bao,
      ...(options.slack ? { slack: true } : {}),
    });
    if (!bao) say(`  no round through Vault: there is no OpenBao here (${howToGetBao})`);
    say('');
    const story = tellStory(house, Math.round(performance.now() - began), (step) => show(step, options, say)).then(
      () => 0,
      () => 1,
    );
    const code = await Promise.race([story, stopping.then(() => 130)]);
    if (code === 130) return 130;
    if (code === 0) measured(say);
    if (options.once || code !== 0) return code;
    farewell(house, say);
    await stopping;
    say('\nStopping everything that was started…');
    return 0;
  } catch (error) {
    say(`\n✗ The demo could not start: ${(error as Error).message}`);
    return 1;
  } finally {
    await house?.stop();
    if (!options.once && house) {
      const elsewhere = house.postgres.dataDirectory.startsWith(house.dataDirectory) ? '' : ` and ${house.postgres.dataDirectory}`;
      say(`Stopped. Its data is in ${house.dataDirectory}${elsewhere}; delete that to start afresh.`);
    }
  }
}

const figures: [string, number][] = [];

function show(step: Step, options: DemoOptions, say: (line: string) => void): void {
  for (const [name, ms] of Object.entries(step.measured ?? {}))
    figures.push([`${name}${step.step === 'break-glass' || step.step === 'vault' ? ` (${step.step})` : ''}`, ms]);
  if (options.json)
    process.stdout.write(
      `${JSON.stringify({ step: step.step, ok: step.ok, ms: step.ms, says: step.says, ...(step.measured ? { measured: step.measured } : {}) })}\n`,
    );
  else {
    const widest = Math.max(...stepNames.map((name) => name.length));
    say(`${step.ok ? '✓' : '✗'} ${step.step.padEnd(widest)}  ${step.says}`);
  }
}

function measured(say: (line: string) => void): void {
  say('\nMeasured in this run:');
  const widest = Math.max(...figures.map(([name]) => name.length));
  for (const [name, ms] of figures) say(`  ${name.padEnd(widest)}  ${ms} ms`);
}

function farewell(house: House, say: (line: string) => void): void {
  say(`
The console is at ${house.url}
Log in as oncall, lead, security, auditor or admin; the development identity provider asks for no password.
${house.slack ? `The double of Slack is at ${house.slack.url}: be oncall or lead there, type /halligan, press what stands there.\n` : ''}
Three commands to try, in another terminal in this folder:
  npm run -s halligan -- login --server ${house.url}
  npm run -s halligan -- request orders-readonly --for 10m --reason "trying it out"
  npm run -s halligan -- audit verify ${join(house.dataDirectory, 'audit.jsonl')} --checkpoints ${join(house.dataDirectory, 'checkpoints.jsonl')} --key ${join(house.dataDirectory, 'halligan.pub')}

Ctrl-C stops everything that was started here.`);
}

/** Resolves at the first signal; a second one leaves at once. */
const untilSignal = (): Promise<void> =>
  new Promise((resolve) =>
    onStopSignal(
      () => resolve(),
      (signal) => process.exit(exitCodeOf(signal)),
    ),
  );
