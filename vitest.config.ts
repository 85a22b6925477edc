/** How the tests run: `main` needs nothing but this checkout; `e2e` drives a browser and `live` starts the real targets: both are asked for by name. */
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
          exclude: ['test/e2e/**', 'test/faults/**', 'test/live/**', 'test/bench/**'],
          globalSetup,
        },
      },
      // The first start of a server may build it from source, which takes minutes.
      { extends: true, test: { name: 'live', include: ['test/live/**/*.test.ts'], testTimeout: 120_000, hookTimeout: 1_800_000, globalSetup } },
      { extends: true, test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], testTimeout: 120_000, globalSetup } },
    ],
  },
});
