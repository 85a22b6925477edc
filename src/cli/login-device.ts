/** Login by code, for a terminal without a browser beside it (the shape of RFC 8628). */
import { type LoginNeed, Refusal } from '../domain/errors.ts';
import { clientOf } from './calls.ts';
import { exit } from './exit-codes.ts';
import { CliFault, Unreachable } from './fault.ts';
import { needParameters } from './login-need.ts';
import { pause, say, type Terminal } from './terminal.ts';
import type { WireLogin } from './wire.ts';

interface DeviceCode {
  readonly device_code: string;
  readonly user_code: string;
  readonly verification_uri: string;
  readonly verification_uri_complete: string;
  readonly interval: number;
  readonly expires_in: number;
}

/** Shows the code and polls until it is confirmed. Rejects with exit code 4 when it is refused or runs out, with `Interrupted` on Ctrl-C. */
export async function loginByDevice(terminal: Terminal, server: string, label: string, need: LoginNeed = {}): Promise<WireLogin> {
  const client = clientOf(server, undefined, terminal.interrupted);
  const code = await client.post<DeviceCode>('/device/start', { label, ...needParameters(need) });
  say(terminal, `Open ${code.verification_uri} in any browser and type in this code:\n\n    ${code.user_code}\n`);
  say(terminal, `It is good for ${Math.round(code.expires_in / 60)} minutes. Only confirm a code that you see in your own terminal.`);
  const until = performance.now() + code.expires_in * 1_000;
  let intervalMs = Math.max(1, code.interval) * 1_000;
  while (performance.now() < until) {
    await pause(terminal, intervalMs);
    try {
      return await client.post<WireLogin>('/device/token', { device_code: code.device_code });
    } catch (error) {
      if (error instanceof Refusal && error.code === 'login_pending') continue;
      // RFC 8628 §3.5: slow_down adds five seconds, and a connection that times out is asked less often too.
      if ((error instanceof Refusal && ['login_slow_down', 'rate_limited'].includes(error.code)) || error instanceof Unreachable) {
        intervalMs += error instanceof Unreachable ? 1_000 : 5_000;
        if (error instanceof Unreachable) say(terminal, `${error.message} Trying again in ${intervalMs / 1_000} s.`);
        continue;
      }
      throw error;
    }
  }
  throw new CliFault('The code ran out before somebody confirmed it.', { exitCode: exit.notLoggedIn, next: 'halligan login --device' });
}
