/** The server's side of Socket Mode, for the double: the WebSocket protocol (RFC 6455) as far as text frames need it, and envelopes with their acknowledgements. */
import { createHash, randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

export interface SocketSide {
  /** Takes over a connection that asked to become a WebSocket. */
  accept(request: IncomingMessage, socket: Duplex): void;
  connected(): boolean;
  /** Sends one envelope, as often as asked with the same id, and gives what the app acknowledged with; undefined when nothing came within 3 s. */
  envelope(type: 'interactive' | 'slash_commands' | 'events_api', payload: object, id?: string): Promise<{ payload?: unknown } | undefined>;
  close(): void;
}

/** One app's sockets. */
export function socketSide(): SocketSide {
  const sockets = new Set<Duplex>();
  const waiting = new Map<string, (answer: { payload?: unknown }) => void>();
  const hear = (text: string): void => {
    const { envelope_id: id, payload } = JSON.parse(text) as { envelope_id?: string; payload?: unknown };
    if (id !== undefined) waiting.get(id)?.({ payload });
  };
  return {
    accept(request, socket) {
      const key = request.headers['sec-websocket-key'] ?? '';
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      readFrames(socket, hear);
      socket.write(frame(1, JSON.stringify({ type: 'hello', num_connections: 1, connection_info: { app_id: 'A0DOUBLE' } })));
    },
    connected: () => sockets.size > 0,
    async envelope(type, payload, id = randomUUID()) {
      const [socket] = sockets;
      if (!socket) return undefined;
      const answered = new Promise<{ payload?: unknown }>((resolve) => waiting.set(id, resolve));
      socket.write(frame(1, JSON.stringify({ envelope_id: id, type, accepts_response_payload: type !== 'events_api', payload })));
      const answer = await Promise.race([answered, new Promise<undefined>((resolve) => setTimeout(resolve, 3_000, undefined).unref())]);
      waiting.delete(id);
      return answer;
    },
    close() {
      for (const socket of sockets) socket.destroy();
    },
  };
}

function frame(opcode: number, text: string): Buffer {
  const body = Buffer.from(text);
  const head = Buffer.alloc(body.length < 126 ? 2 : body.length < 65_536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  if (head.length === 2) head[1] = body.length;
  else if (head.length === 4) {
    head[1] = 126;
    head.writeUInt16BE(body.length, 2);
  } else {
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(body.length), 2);
  }
  return Buffer.concat([head, body]);
}

/** Reads a client's masked frames: text is handed on, a ping is answered, a close closes. */
function readFrames(socket: Duplex, hear: (text: string) => void): void {
  let rest = Buffer.alloc(0);
  let message = '';
  socket.on('data', (data: Buffer) => {
    rest = Buffer.concat([rest, data]);
    for (;;) {
      if (rest.length < 2) return;
      const small = (rest[1] ?? 0) & 0x7f;
      const wide = small === 126 ? 2 : small === 127 ? 8 : 0;
      if (rest.length < 6 + wide) return;
      const length = wide === 0 ? small : wide === 2 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2));
      const end = 6 + wide + length;
      if (rest.length < end) return;
      const mask = rest.subarray(2 + wide, 6 + wide);
      const body = Buffer.from(rest.subarray(6 + wide, end).map((byte, index) => byte ^ (mask[index % 4] ?? 0)));
      const [first = 0] = rest;
      rest = rest.subarray(end);
      const opcode = first & 0x0f;
      if (opcode === 8) return void socket.end(frame(8, ''));
      if (opcode === 9) socket.write(frame(10, body.toString()));
      if (opcode > 1) continue;
      message += body.toString();
      if ((first & 0x80) === 0) continue;
      hear(message);
      message = '';
    }
  });
}
