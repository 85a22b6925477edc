/** What must hold of docker-compose.yml, beyond its form: for the file as it is written, and for what the Compose specification's own loader makes of it. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

export interface ComposeService {
  readonly image?: string;
  readonly build?: unknown;
  readonly command?: readonly string[] | null;
  readonly entrypoint?: readonly string[] | null;
  readonly environment?: Readonly<Record<string, string | null>>;
  readonly user?: string;
  readonly restart?: string;
  readonly read_only?: boolean;
  readonly privileged?: boolean;
  readonly network_mode?: string;
  readonly pid?: string;
  readonly cap_add?: readonly string[];
  readonly cap_drop?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly stop_grace_period?: string;
  readonly hostname?: string;
  readonly healthcheck?: { readonly test?: readonly string[]; readonly disable?: boolean };
  /** As written `127.0.0.1:8300:8080`, or as the loader says it. */
  readonly ports?: readonly (string | { readonly host_ip?: string; readonly published?: string })[];
  /** As written `./file:/place:ro`, or as the loader says it. */
  readonly volumes?: readonly (string | { readonly type: string; readonly source?: string; readonly target: string; readonly read_only?: boolean })[];
}

export interface ComposeProject {
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly volumes?: Readonly<Record<string, unknown>>;
}

export interface Mount {
  readonly bind: boolean;
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

/** The mounts of a service, in either way of saying them. Sources of binds are whole paths. */
export function mountsOf(service: ComposeService): Mount[] {
  return (service.volumes ?? []).map((volume) => {
    if (typeof volume !== 'string')
      return { bind: volume.type === 'bind', source: volume.source ?? '', target: volume.target, readOnly: volume.read_only === true };
    const [source = '', target = '', mode = ''] = volume.split(':');
    const bind = /^[./~]/.test(source);
    return { bind, source: bind ? resolve(source) : source, target, readOnly: mode.split(',').includes('ro') };
  });
}

/** Whether it comes to its own end. */
const endsByItself = (service: ComposeService): boolean => service.restart === 'no';

/** What one service has wrong, in words. */
function faultsOfService(name: string, service: ComposeService, version: string): string[] {
  const faults: string[] = [];
  const wants = (held: boolean | undefined, what: string): void => void (held || faults.push(`${name}: ${what}`));
  const ours = /^halligan:/.test(service.image ?? '');
  wants(
    ours ? service.image === `halligan:${version}` : /^[\w./-]+:v?\d+\.\d+[\w.-]*$/.test(service.image ?? ''),
    `the image ${service.image} is not pinned to a version`,
  );
  wants(endsByItself(service) || ((service.healthcheck?.test?.length ?? 0) > 1 && !service.healthcheck?.disable), 'runs for long and has no health check');
  wants(service.cap_drop?.includes('ALL') && !service.cap_add?.length && !service.privileged, 'has capabilities');
  wants(service.security_opt?.includes('no-new-privileges:true'), 'may get new privileges');
  wants(service.network_mode === undefined || service.network_mode === 'none', 'leaves the networks of the file');
  wants(service.pid === undefined, 'sees processes of others');
  for (const port of service.ports ?? [])
    wants(typeof port === 'string' ? /^127\.0\.0\.1:\d+:\d+$/.test(port) : port.host_ip === '127.0.0.1', `publishes ${JSON.stringify(port)} to others`);
  if (ours) {
    wants(service.read_only, 'can write to its own file system');
    // Root without a capability and without a network, for a moment: what it writes must not belong to who reads it.
    const asRoot = service.user === '0:0' && endsByItself(service) && service.network_mode === 'none';
    wants(/^[1-9]\d*:[1-9]\d*$/.test(service.user ?? '') || asRoot, 'runs as root');
    wants(endsByItself(service) || service.stop_grace_period === '30s', 'is killed before it had 25 s to stop');
  }
  faults.push(...mountsOf(service).flatMap((mount) => faultsOfMount(name, mount)));
  for (const [variable, value] of Object.entries(service.environment ?? {}))
    wants(!/PASS|SECRET|TOKEN|KEY|CREDENTIAL/i.test(variable) || /^\/run\/generated\//.test(value ?? ''), `${variable} holds a secret`);
  for (const word of [...(service.command ?? []), ...(service.entrypoint ?? []), ...(service.healthcheck?.test ?? [])])
    wants(!/(pass(word)?|secret|token)[=:]/i.test(word), `a secret stands on a command line: ${word.slice(0, 40)}`);
  return faults;
}

function faultsOfMount(name: string, { bind, source, target, readOnly }: Mount): string[] {
  if (bind) {
    if (!existsSync(source)) return [`${name}: ${source} is mounted and is not there`];
    return readOnly ? [] : [`${name}: may change ${source} of the host`];
  }
  if (name === 'setup' || !source.startsWith('generated-')) return [];
  if (source === 'generated-own') return [`${name}: sees every secret`];
  return readOnly && /^\/run\/generated(-owner)?$|\/data\/import$/.test(target) ? [] : [`${name}: may change the secrets of ${source}`];
}

/** Everything that is wrong, in words. `version`: that of package.json. */
export function faultsOf(project: ComposeProject, version: string): string[] {
  const faults = Object.entries(project.services).flatMap(([name, service]) => faultsOfService(name, service, version));
  const made = new Set(mountsOf(project.services['setup'] ?? {}).map(({ source }) => source));
  for (const volume of Object.keys(project.volumes ?? {}))
    if (volume.startsWith('generated-') && !made.has(volume)) faults.push(`setup: does not fill ${volume}`);
  for (const [volume, readers] of Map.groupBy(
    Object.entries(project.services).flatMap(([name, service]) => (name === 'setup' ? [] : mountsOf(service).map(({ source }) => ({ name, source })))),
    ({ source }) => source,
  )) {
    const images = new Set(readers.map(({ name }) => project.services[name]?.image));
    if (volume.startsWith('generated-') && images.size > 1) faults.push(`${volume}: is read by several kinds of service`);
  }
  return faults;
}

/** Lines of a mounted file in which a secret itself seems to stand, rather than where it is. */
export function secretsIn(text: string): string[] {
  const assigned = /(?:password|passwd|secret|token)(?:File)?['"]?\s*[:=](?!')\s*(['"]?[^\s,}]+)/i;
  const spoken = /\b(?:requirepass|masterauth|PASSWORD)\s+(?=['\w])(\S+)/;
  const elsewhere = /^['"]?(\/run\/generated|\{\{|\$\()/;
  return text.split('\n').filter((line) => {
    if (/^\s*(#|--|\/\/)/.test(line)) return false;
    const value = (assigned.exec(line) ?? spoken.exec(line))?.[1];
    return value !== undefined && !elsewhere.test(value);
  });
}
