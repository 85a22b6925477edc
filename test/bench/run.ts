/** `npm run bench`: every speed and memory claim as a ratio, measured side by side in one run. `--json` for machines, `--only claims|ending|log|verify|start|telling|providers|storm|emptied|workers|scale|growth` for one part; providers needs OpenBao; emptied, workers and scale need Redis. */

import { findBao, howToGetBao } from '../../src/demo/openbao.ts';
import { claims } from './claims.ts';
import { ending } from './ending.ts';
import { growth } from './growth.ts';
import { verifying, witness } from './log.ts';
import { providers } from './providers.ts';
import { emptied, workers } from './queue.ts';
import { scale } from './scale.ts';
import { starting } from './start.ts';
import { storm } from './storm.ts';
import { type Bench, type Figure, startBench } from './support.ts';
import { telling } from './telling.ts';

const json = process.argv.includes('--json');
const only = process.argv[process.argv.indexOf('--only') + 1];
/** `telling` starts a Halligan of its own, with Slack's double in the same process. */
const parts: Record<string, ((bench: Bench) => Promise<Figure[]>) | (() => Promise<Figure[]>)> = {
  start: starting,
  claims,
  ending,
  log: witness,
  verify: verifying,
  telling,
  providers,
  storm,
  emptied,
  workers,
  scale,
  growth,
};
const chosen = process.argv.includes('--only') ? Object.entries(parts).filter(([name]) => name === only) : Object.entries(parts);
if (chosen.length === 0) {
  console.error(`--only takes one of ${Object.keys(parts).join(', ')}`);
  process.exit(2);
}

const bao = chosen.some(([name]) => name === 'providers') ? await findBao() : undefined;
let missing = false;
const figures: Figure[] = [];
for (const [name, part] of chosen) {
  if (name === 'providers' && !bao) {
    console.error(`not measured: providers, what a claim costs beside a bare read from Vault: there is no OpenBao here (${howToGetBao})`);
    missing = only === name;
    if (!missing) continue;
  }
  console.error(`measuring: ${name} …`);
  const bench =
    part === telling ? undefined : await startBench({ bao: name === 'providers' ? bao : undefined, many: ['providers', 'storm', 'workers'].includes(name) });
  try {
    for (const figure of await part(bench as Bench)) {
      figures.push(figure);
      if (!json)
        console.log(
          `${figure.holds ? '✓' : '✗'} ${figure.ratio.toFixed(2).padStart(6)}  (${figure.bound})  ${figure.name}\n          ${figure.note}; rounds ${figure.rounds.map((round) => round.toFixed(2)).join(' ')}`,
        );
    }
  } finally {
    await bench?.stop();
  }
}
if (json) console.log(JSON.stringify(figures, null, 2));
process.exit(!missing && figures.every((figure) => figure.holds) ? 0 : 1);
