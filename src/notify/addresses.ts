/** Which addresses a webhook may lead to: those of the public internet, unless the config says otherwise. */
import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import type { WebhookConfig } from '../config/tell.ts';
import { DeliveryFault } from './channel.ts';

/** Where a name leads. */
export interface Address {
  readonly address: string;
  readonly family: number;
}

// One list for each family: an IPv4 address is also held against the IPv6 nets of a common one, where ::ffff:0:0/96 is all of them.
const [closed4, closed6] = [new BlockList(), new BlockList()];
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const)
  closed4.addSubnet(net, bits, 'ipv4');
for (const [net, bits] of [
  ['::', 96],
  ['::ffff:0:0', 96],
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
  ['5f00::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const)
  closed6.addSubnet(net, bits, 'ipv6');

/** Whether an address is of the public internet: not of this host, of private networks, nor set aside otherwise (IANA's special-purpose registries). */
export const isPublic = (address: string): boolean => {
  const family = isIP(address);
  return family === 4 ? !closed4.check(address, 'ipv4') : family === 6 && !closed6.check(address, 'ipv6');
};

/**
 * The addresses to connect to, looked up once: what was checked is what is called. Throws `DeliveryFault` when one of the name's
 * addresses may not be called, and at the end of the signal, because a lookup has no deadline of its own.
 */
export async function allowedAddresses({ url, allowPrivate }: Pick<WebhookConfig, 'url' | 'allowPrivate'>, signal: AbortSignal): Promise<Address[]> {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  const late = Promise.withResolvers<never>();
  const onAbort = (): void => late.reject(new DeliveryFault('its name was not looked up in time'));
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  const looked: Promise<Address[]> = lookup(host, { all: true }).catch(() => {
    throw new DeliveryFault('its name cannot be looked up');
  });
  const found = await Promise.race([looked, late.promise]).finally(() => signal.removeEventListener('abort', onAbort));
  if (found.length === 0) throw new DeliveryFault('its name has no address');
  if (!allowPrivate && found.some(({ address }) => !isPublic(address)))
    throw new DeliveryFault('its name leads to an address of this network, which is not called (allowPrivate)');
  return found;
}
