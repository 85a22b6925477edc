import { expect, test } from 'vitest';
import { providerOf, providers } from '../../src/providers/registry.ts';

test('each kind is loaded under its own name', async () => {
  for (const kind of Object.keys(providers)) expect((await providerOf(kind))?.kind).toBe(kind);
});

test.each(['', 'mysql', 'constructor', '__proto__', 'toString'])('there is no provider of kind %j', async (kind) => {
  expect(await providerOf(kind)).toBeUndefined();
});
