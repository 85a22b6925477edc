/** A small config that is right, and a way to read changed copies of it. */
import { type Config, ConfigError, type ConfigFault, parseConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';

export const sample = `server:
  url: https://halligan.example.com
database:
  url: postgres://halligan_app@db/halligan
  passwordFile: secrets/db
login:
  issuer: https://id.example.com
  clientId: halligan
  clientSecretEnv: HALLIGAN_TEST_CLIENT_SECRET
audit:
  signingKeyFile: audit.key
  checkpoints:
    directory: /var/lib/halligan/checkpoints
targets:
  orders-db:
    kind: postgres
    host: db.orders
    database: orders
    user: halligan
    passwordFile: secrets/orders
entitlements:
  orders-readonly:
    opens: read the orders database
    target: orders-db
    grant:
      role: orders_ro
    owner: the orders team
    eligible:
      groups: [oncall]
    approval:
      - of:
          groups: [leads]
        count: 2
    maxDuration: 4h
    breakGlass:
      eligible:
        groups: [oncall]
      maxDuration: 15m
`;

/** The sample with the first `from` replaced; fails when it is not there, so that a test cannot pass by changing nothing. */
export function changed(...changes: readonly [from: string, to: string][]): string {
  let text = sample;
  for (const [from, to] of changes) {
    if (!text.includes(from)) throw new Error(`the sample does not hold ${JSON.stringify(from)}`);
    text = text.replace(from, () => to);
  }
  return text;
}

export const read = (text: string, file = '/etc/halligan/halligan.yaml'): Promise<Config> => parseConfig(file, text, providerOf);

/** The faults found in `text`; empty when it is accepted. */
export async function faultsOf(text: string): Promise<readonly ConfigFault[]> {
  try {
    await read(text);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
}

/** The faults as `line path: message`. */
export const saidOf = async (text: string): Promise<string[]> => (await faultsOf(text)).map(({ line, path, message }) => `${line ?? '-'} ${path}: ${message}`);
