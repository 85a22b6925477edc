/**
 * Stands in for `vitest` where the suite uses what the other tests are built of: those ask it for the run's PostgreSQL, by
 * `inject`. The suite is a program of its own, because one case takes up to minutes and several run at once.
 */
import { registerHooks } from 'node:module';
import type { TestServer } from '../support/global-setup.ts';

let server: TestServer | undefined;

/** From now on `import 'vitest'` is this module. To be called before anything that imports it is loaded. */
export function standInForVitest(): void {
  registerHooks({
    resolve: (specifier, context, next) => (specifier === 'vitest' ? { url: import.meta.url, shortCircuit: true } : next(specifier, context)),
  });
}

export function provide(_key: 'server', given: TestServer): void {
  server = given;
}

export function inject(_key: 'server'): TestServer {
  if (!server) throw new Error('the PostgreSQL of the run is not up yet');
  return server;
}

const never = (): never => {
  throw new Error('the fault suite has no tests of that kind');
};
export const [describe, test, expect, beforeAll, afterAll, beforeEach, afterEach] = [never, never, never, never, never, never, never];
