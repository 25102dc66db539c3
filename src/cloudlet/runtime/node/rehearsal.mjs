// A waiting cell plays a few calls to itself, so that the first real one finds the code paths loaded and compiled.
// It happens in memory: no socket, no descriptor of the contract and no environment variable is touched.

import { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';

import { NoActivity } from './activity.mjs';
import { Calls } from './calls.mjs';
import { contextFactory } from './context.mjs';
import { ExclusiveScope } from './environment.mjs';
import { evaluate } from './load.mjs';

const CALLS = 3;
const EXAMPLE = fileURLToPath(new URL('example.cjs', import.meta.url));
const BODY = '{"rehearsal":[1,"two",null]}';
const REQUEST =
  `POST / HTTP/1.1\r\nhost: cell\r\nx-request-id: rehearsal\r\nx-cloudlet-openid: o\r\n` +
  `x-cloudlet-source: wx_client\r\ncontent-type: application/json\r\ncontent-length: ${BODY.length}\r\n\r\n${BODY}`;

/** @param {import('./output.mjs').Output} output */
export async function rehearse(output) {
  await import('node:cluster'); // What `listen` looks at first; it takes longer to load than a function does.
  await evaluate(EXAMPLE);
  const loaded = {
    main: async (event) => event,
    name: 'rehearsal',
    namespace: 'rehearsal',
    concurrency: 1,
    timeoutMs: 1000,
    loadMs: 0,
    context: contextFactory({}, {}, 1000),
  };
  const calls = new Calls(loaded, new ExclusiveScope(), new NoActivity(), output);
  const client = new MemorySocket();
  const served = new MemorySocket(client);
  calls.accept(served);
  for (let count = 0; count < CALLS; count += 1) {
    const answered = new Promise((resolve) => client.once('data', resolve));
    client.write(REQUEST);
    await answered;
  }
  client.destroy();
  served.destroy();
  calls.dispose();
}

/** One end of a connection within this process. */
class MemorySocket extends Duplex {
  /** @param {MemorySocket} [peer] */
  constructor(peer) {
    super();
    this.peer = peer;
    if (peer !== undefined) peer.peer = this;
  }

  _read() {}

  _write(chunk, _encoding, done) {
    this.peer?.push(chunk);
    done();
  }
}
