import { expect, test, vi } from 'vitest';
import { embeddedQueue } from '../../src/queue/embedded.ts';
import { jobId } from '../../src/queue/port.ts';
import { queueConformance } from '../support/queue-conformance.ts';

queueConformance('the embedded queue', async ({ lanes, onFailure }) => ({
  queue: embeddedQueue({ lanes, onFailure, now: () => Date.now() }),
  close: async () => undefined,
}));

const due = (dueAt: Date) => ({ id: jobId('grant-due', 'gnt_1', 0), kind: 'grant-due' as const, lane: 'expiry', dueAt, subject: 'gnt_1', epoch: 0 });
const options = { lanes: () => ({ concurrency: 1, deadlineMs: 1_000 }), onFailure: () => undefined };

test("invariant 11: due is judged by the clock it is given, Postgres', not by this machine's", async () => {
  for (const [aheadMs, runs] of [
    [600_000, 1],
    [-600_000, 0],
  ] as const) {
    let ran = 0;
    const queue = embeddedQueue({ ...options, now: () => Date.now() + aheadMs });
    queue.start(async () => void ran++);
    await queue.add(due(new Date(Date.now() + (aheadMs > 0 ? 300_000 : 0))));
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(ran).toBe(runs);
    await queue.stop(0);
  }
});

test('a job further away than the longest timer runs on its day', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  try {
    let ranAt = 0;
    const queue = embeddedQueue({ ...options, now: () => Date.now() });
    queue.start(async () => {
      ranAt = Date.now();
    });
    const dueAt = new Date(Date.now() + 3 * 2 ** 31);
    await queue.add(due(dueAt));
    await vi.advanceTimersByTimeAsync(3 * 2 ** 31 - 1);
    expect(ranAt).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(ranAt).toBe(dueAt.getTime());
    await queue.stop(0);
  } finally {
    vi.useRealTimers();
  }
});
