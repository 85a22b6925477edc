/** One measured run in a process of its own: the verifier, or nothing but one SHA-256 for each line of the same file. */
import { hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { verifyExport } from '../../src/audit/verify.ts';

const [what, log = '', checkpoints = '', key = ''] = process.argv.slice(2);
const began = performance.now();
if (what === 'verify') {
  const result = await verifyExport({ log, checkpoints, key });
  if (!result.ok) throw new Error(result.message);
} else {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(log, { highWaterMark: 1 << 20 })) {
    const data: Buffer = rest.length > 0 ? Buffer.concat([rest, chunk as Buffer]) : (chunk as Buffer);
    let from = 0;
    for (let at = data.indexOf(10, from); at >= 0; at = data.indexOf(10, from)) {
      hash('sha256', data.subarray(from, at), 'buffer');
      from = at + 1;
    }
    rest = data.subarray(from);
  }
}
process.send?.({ ms: performance.now() - began, maxRssKb: process.resourceUsage().maxRSS });
process.disconnect();
