/** Running one job under its deadline: the same for every adapter of the queue port. */
import type { Handler, Job } from './port.ts';

/** Runs the handler under its deadline, in milliseconds. One that does not end a second after its signal gives its place back all the same. */
export async function runOne(handler: Handler, job: Job, deadlineMs: number): Promise<void> {
  const controller = new AbortController();
  let abandon: NodeJS.Timeout | undefined;
  const abort = setTimeout(() => controller.abort(new Error(`no end within ${deadlineMs} ms`)), deadlineMs);
  const abandoned = new Promise<never>((_, reject) => {
    abandon = setTimeout(() => reject(new Error(`abandoned after ${deadlineMs + 1_000} ms`)), deadlineMs + 1_000);
  });
  try {
    await Promise.race([handler(job, controller.signal), abandoned]);
  } finally {
    clearTimeout(abort);
    clearTimeout(abandon);
  }
}
