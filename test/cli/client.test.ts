/** The client against servers that misbehave as real ones do. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { clientOf } from '../../src/cli/client.ts';
import { Unreachable } from '../../src/cli/fault.ts';
import { Refusal } from '../../src/domain/errors.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function serverDouble(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const json =
  (body: unknown, status = 200): RequestListener =>
  (_request, response) => {
    response.writeHead(status, { 'content-type': status < 400 ? 'application/json' : 'application/problem+json' }).end(JSON.stringify(body));
  };

test('a problem becomes a refusal with its code and next step', async () => {
  const url = await serverDouble(json({ code: 'self_decision', detail: 'No.', next: 'Ask lead.' }, 403));
  const error = await clientOf(url, 'hgt_x')
    .get('/me')
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(Refusal);
  expect(error).toMatchObject({ code: 'self_decision', message: 'No.', next: 'Ask lead.' });
});

test('a redirect is not followed, so the token stays where it belongs', async () => {
  let stolen = false;
  const other = await serverDouble((request, response) => {
    stolen ||= request.headers.authorization !== undefined;
    response.end();
  });
  const url = await serverDouble((_request, response) => void response.writeHead(302, { location: other }).end());
  await expect(clientOf(url, 'hgt_x').get('/me')).rejects.toThrow('not as Halligan does');
  expect(stolen).toBe(false);
});

test('a GET is sent again after a reset, three times at most; a POST is not, unless it may be', async () => {
  let calls = 0;
  const url = await serverDouble((request, response) => {
    calls += 1;
    if (calls < 3) request.socket.resetAndDestroy();
    else json({ ok: true })(request, response);
  });
  expect(await clientOf(url).get('/me')).toEqual({ ok: true });
  expect(calls).toBe(3);
  calls = 0;
  await expect(clientOf(url).post('/requests', {})).rejects.toBeInstanceOf(Unreachable);
  expect(calls).toBe(1);
  calls = 1;
  expect(await clientOf(url).post('/requests', {}, { repeatable: true })).toEqual({ ok: true });
});

test('silence has a deadline, and nothing there is said in words', async () => {
  const url = await serverDouble(() => undefined);
  await expect(clientOf(url).get('/me', undefined, { deadlineMs: 100 })).rejects.toThrow('did not answer within 0.1 s');
  await expect(clientOf('http://127.0.0.1:9').get('/me')).rejects.toThrow('http://127.0.0.1:9 cannot be reached');
});

test('an answer that breaks off never passes for the whole', async () => {
  const url = await serverDouble((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/jsonl' });
    response.write('one\n');
    setTimeout(() => response.destroy(), 50);
  });
  const read = async (): Promise<string> => {
    let text = '';
    for await (const piece of await clientOf(url).stream('/audit/export')) text += Buffer.from(piece).toString();
    return text;
  };
  await expect(read()).rejects.toThrow('broke off');
});

test('a page of something else is said to be that', async () => {
  const url = await serverDouble((_request, response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'));
  await expect(clientOf(url).get('/me')).rejects.toThrow('something else is at that address');
});
