// The control channel: one JSON object a line, both directions, on descriptor 4 (contract, section 2).

import { Socket } from 'node:net';

const CONTROL = 4;
const LINE_CHARS_MAX = 4 * 1024 * 1024;

/**
 * Open the channel.
 * @param {(message: any) => void} onMessage
 * @param {() => void} onEnd called once when the node is gone, or speaks nonsense
 * @returns {(event: object, done?: () => void) => void} sends an event; `done` runs once it is with the kernel
 */
export function openControl(onMessage, onEnd) {
  const socket = new Socket({ fd: CONTROL, readable: true, writable: true });
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (text) => {
    const lines = (rest + text).split('\n');
    rest = /** @type {string} */ (lines.pop());
    if (rest.length > LINE_CHARS_MAX) return onEnd();
    for (const line of lines) {
      const message = parsed(line);
      if (message === undefined) return onEnd();
      onMessage(message);
    }
  });
  socket.on('error', onEnd);
  socket.on('close', onEnd);
  return (event, done) => void socket.write(`${JSON.stringify(event)}\n`, done);
}

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // The caller ends the process: only the node writes here, and it does not write this.
  }
}
