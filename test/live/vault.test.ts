/** The provider contract against a real OpenBao with a real PostgreSQL behind it, with the least rights that are printed and no more. */
import { describeProviderContract } from '../support/provider-contract.ts';
import { grant, missingGrant, open, vaultFixture } from './vault-fixture.ts';

describeProviderContract('vault-database, OpenBao with PostgreSQL, by workload identity', async () => {
  const fixture = await vaultFixture();
  return {
    connect: () => fixture.connect(),
    grant,
    missingGrant,
    async login(issued) {
      const client = await open(issued);
      return {
        works: () =>
          client.query('SELECT count(*) FROM orders').then(
            () => true,
            () => false,
          ),
        close: () => client.end().catch(() => undefined),
      };
    },
    isRefusal: (error) => (error as { code?: string }).code === '28P01',
    namesChange: true,
    close: () => fixture.close(),
  };
});
