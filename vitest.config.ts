/** How the tests run: `main` needs nothing but this checkout; `e2e` drives a browser, `live` starts the real targets, `versions` runs the version before beside this one: they are asked for by name. */
import { defineConfig } from 'vitest/config';

const globalSetup = ['test/support/global-setup.ts'];

export default defineConfig({
  test: {
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'main',
          include: ['test/**/*.test.ts'],
          exclude: ['test/e2e/**', 'test/faults/**', 'test/live/**', 'test/bench/**', 'test/versions/**'],
          globalSetup,
        },
      },
      // The first start of a server may build it from source, which takes minutes.
      { extends: true, test: { name: 'live', include: ['test/live/**/*.test.ts'], testTimeout: 120_000, hookTimeout: 1_800_000, globalSetup } },
      // It reads the version before from git.
      { extends: true, test: { name: 'versions', include: ['test/versions/**/*.test.ts'], globalSetup } },
      { extends: true, test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], testTimeout: 120_000, globalSetup } },
    ],
  },
});
