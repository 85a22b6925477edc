/** The verifier's second thread: reads the log, hashes each line and puts the hashes into shared rows, telling how many there are in each. */
import { parentPort, workerData } from 'node:worker_threads';
import { hashLines, type Losses, type Ring, rowLength, rowOf, waitForRoom } from './verify-entries.ts';
import { openLines } from './verify-lines.ts';

const ring = workerData as Ring;
// A log with lost entries is read again in one thread, which can say which they are.
const losses: Losses = {
  lost: () => {
    throw new Error('An entry is lost.');
  },
};
const lines = await openLines(ring.path);
for (let number = 0, count = -1; count !== 0; number += 1) {
  waitForRoom(ring, number);
  const row = rowOf(ring, number);
  count = 0;
  while (count < rowLength && (await lines.fill())) count = hashLines(lines, row, count, rowLength, losses);
  parentPort?.postMessage(count);
}
await lines.close();
