/** What docs/slack.md and the app's manifest say is what the code takes, asks for and listens to. */
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../src/config/load.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { neededScopes } from '../../src/slack/check.ts';

const base = `server: { url: 'https://halligan.example.com' }
database: { url: 'postgres://halligan_app@db/halligan', passwordFile: db }
login: { issuer: 'https://id.example.com', clientId: halligan, clientSecretFile: oidc }
audit: { signingKeyFile: audit.key, checkpoints: { directory: checkpoints } }
targets:
  orders-db: { kind: postgres, host: db, database: orders, user: halligan, passwordFile: orders }
`;
const entitlement = `entitlements:
  orders-readonly:
    { opens: read, target: orders-db, grant: { role: orders_ro }, owner: us, eligible: { groups: [a] }, approval: [ { of: { groups: [b] } } ], maxDuration: 1h }
`;

test('every example of docs/slack.md is loaded', async () => {
  const text = await readFile('docs/slack.md', 'utf8');
  const examples = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map((match) =>
    (match[1] ?? '').replaceAll(/^ {3}/gm, (indent, _at: number, whole: string) => (/^ {3}(slack|notify|entitlements):/m.test(whole) ? '' : indent)),
  );
  expect(examples).toHaveLength(3);
  for (const example of examples) {
    const config = await parseConfig('/etc/halligan/halligan.yaml', base + (example.includes('entitlements:') ? '' : entitlement) + example, providerOf);
    expect(config.tell.slack?.workspace ?? config.entitlements.get('orders-readonly')?.slackDecision).toMatch(/^(T0123ABCD|allow-with-step-up)$/);
  }
});

test('the manifest asks for the scopes that are needed and no other, and knows what the code listens to', async () => {
  interface Manifest {
    features: { slash_commands: { command: string; url: string }[]; shortcuts: { callback_id: string; type: string }[]; app_home: Record<string, boolean> };
    oauth_config: { scopes: { bot: string[]; user?: string[] } };
    settings: {
      event_subscriptions: { request_url: string; bot_events: string[] };
      interactivity: { is_enabled: boolean; request_url: string };
      org_deploy_enabled: boolean;
    };
  }
  const manifest = parse(await readFile('deploy/slack/manifest.yaml', 'utf8')) as Manifest;
  expect(manifest.oauth_config.scopes).toEqual({ bot: [...neededScopes] });
  const code = await readFile('src/slack/listeners.ts', 'utf8');
  for (const { command } of manifest.features.slash_commands) expect(code).toContain(`app.command('${command}'`);
  for (const shortcut of manifest.features.shortcuts) expect(code).toContain(`app.shortcut('${shortcut.callback_id}'`);
  expect(manifest.settings.event_subscriptions.bot_events).toEqual([...code.matchAll(/app\.event\('([^']+)'/g)].map((match) => match[1]));
  const urls = [manifest.features.slash_commands[0]?.url, manifest.settings.event_subscriptions.request_url, manifest.settings.interactivity.request_url];
  expect(new Set(urls)).toEqual(new Set(['https://halligan.example.com/slack/events']));
  expect(manifest.features.app_home).toMatchObject({ home_tab_enabled: true, messages_tab_enabled: true });
  expect(manifest.settings.org_deploy_enabled).toBe(false);
});
