// HTTP/1.1 as the platform speaks it with an instance (contract, section 3): requests with a length or in chunks,
// one at a time on a connection that stays open.
//
// Node's own server builds two streams and some twenty objects for each request; for a function of a few microseconds
// that was half of all the work in this process. The peer is the edge or the activator, never a stranger.

export const BODY_BYTES_MAX = 6 * 1024 * 1024;
const HEAD_BYTES_MAX = 64 * 1024;
const CHUNK_LINE_BYTES_MAX = 1024;

const HEAD_END = Buffer.from('\r\n\r\n');
const LINE_END = '\r\n';
const NEWLINE = 0x0a;
const COLON = ':';
const LOWER_CASE = 0x20;
const LETTER_C = 0x63;
const LETTER_E = 0x65;
const LETTER_T = 0x74;
const LETTER_X = 0x78;
const HTTP_11 = /^\S+ \S+ HTTP\/1\.([01])$/;
const LENGTH = /^\d{1,15}$/;
const CHUNK_SIZE = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/;
const REASONS = { 200: 'OK', 400: 'Bad Request', 413: 'Payload Too Large', 503: 'Service Unavailable', 504: 'Gateway Timeout' };

const EMPTY = Buffer.alloc(0);

class Malformed extends Error {}

/** One request with the place for its reply. */
export class Exchange {
  /** @param {Connection} connection */
  constructor(connection, headAtMs) {
    this.connection = connection;
    this.headAtMs = headAtMs;
    /** Names in lower case and values in turn, of the headers that start with `x-`. */
    this.headers = [];
    this.size = 0;
    /** @type {Buffer[]} */
    this.chunks = [];
    this.close = false;
  }

  /** The body; may be taken once, and is empty when it was larger than BODY_BYTES_MAX (see `size`). */
  body() {
    const { chunks } = this;
    this.chunks = [];
    if (chunks.length === 1) return chunks[0];
    return chunks.length === 0 ? EMPTY : Buffer.concat(chunks);
  }

  /** Nobody is there any more to read the reply. */
  get destroyed() {
    return this.connection.socket.destroyed;
  }

  /**
   * Reply, once.
   * @param {number} status
   * @param {string} head lines of the head, each ending in CRLF, without the length
   * @param {string} body
   * @param {number} size bytes of `body`
   */
  reply(status, head, body, size) {
    this.connection.reply(this, `HTTP/1.1 ${status} ${REASONS[status]}\r\n${head}content-length: ${size}\r\n`, body);
  }

  /** What is over the limit is read and thrown away, so that the connection stays usable. */
  take(bytes) {
    this.size += bytes.length;
    if (this.size <= BODY_BYTES_MAX) this.chunks.push(bytes);
    else this.chunks = [];
  }
}

/** How the next bytes are to be read. */
const HEAD = 0;
const SIZED = 1;
const CHUNK_LINE = 2;
const CHUNK = 3;
const CHUNK_END = 4;
const TRAILERS = 5;

/** Reads the requests of one socket and writes the replies in the same order. */
export class Connection {
  /**
   * @param {import('node:stream').Duplex} socket
   * @param {(exchange: Exchange) => void} onRequest called for each whole request
   * @param {() => number} clockMs
   */
  constructor(socket, onRequest, clockMs) {
    this.socket = socket;
    this.onRequest = onRequest;
    this.clockMs = clockMs;
    this.rest = EMPTY;
    this.state = HEAD;
    this.left = 0;
    /** @type {Exchange | undefined} whose body is being read */
    this.reading = undefined;
    /** A request was handed out and is not answered yet; what comes behind it waits in `rest`. */
    this.busy = false;
    socket.on('data', (bytes) => this.#received(bytes));
    // Broken connections are not news: who waited for the reply is gone. `close` follows.
    socket.on('error', () => {});
  }

  /** Everything written is with the kernel. */
  get flushed() {
    return this.socket.writableLength === 0 || this.socket.destroyed;
  }

  reply(exchange, head, body) {
    const { socket } = this;
    if (socket.destroyed) return;
    const last = exchange.close;
    socket.write(last ? `${head}connection: close\r\n\r\n${body}` : `${head}\r\n${body}`);
    if (last) return void socket.end();
    this.busy = false;
    if (this.rest.length > 0) queueMicrotask(() => this.#received(EMPTY));
  }

  #received(bytes) {
    let data = this.rest.length === 0 ? bytes : Buffer.concat([this.rest, bytes]);
    this.rest = EMPTY;
    try {
      while (data.length > 0 && !this.busy && !this.socket.destroyed) {
        const used = this.#step(data);
        if (used === 0) break;
        data = used === data.length ? EMPTY : data.subarray(used);
      }
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      return this.#refuse(error.message);
    }
    if (data.length > 0) this.#keep(data);
  }

  /** A slice keeps the whole block it was read into; what is kept for later is copied. */
  #keep(data) {
    if (this.busy && data.length > HEAD_BYTES_MAX) return this.#refuse('requests may not be pipelined');
    this.rest = Buffer.from(data);
  }

  #refuse(text) {
    const body = JSON.stringify({ code: 'INVALID_PARAM', message: `malformed HTTP: ${text}`, requestId: '' });
    this.busy = true;
    this.socket.end(
      `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-cloudlet-error: invalid_request\r\n` +
        `connection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  }

  /** @returns {number} how many bytes were used up; 0 = more are needed */
  #step(data) {
    switch (this.state) {
      case HEAD:
        return this.#head(data);
      case SIZED:
      case CHUNK:
        return this.#body(data);
      case CHUNK_LINE:
        return this.#chunkLine(data);
      case CHUNK_END:
        return this.#chunkEnd(data);
      default:
        return this.#trailers(data);
    }
  }

  #head(data) {
    const end = data.indexOf(HEAD_END);
    if (end < 0) {
      if (data.length > HEAD_BYTES_MAX) throw new Malformed('the head is too long');
      return 0;
    }
    if (end > HEAD_BYTES_MAX) throw new Malformed('the head is too long');
    const exchange = new Exchange(this, this.clockMs());
    const { length, chunked, waits } = readHead(data.latin1Slice(0, end), exchange);
    if (waits && (chunked || length > 0)) this.socket.write('HTTP/1.1 100 Continue\r\n\r\n');
    this.reading = exchange;
    if (chunked) this.state = CHUNK_LINE;
    else if (length > 0) this.#expect(SIZED, length);
    else this.#complete();
    return end + HEAD_END.length;
  }

  #expect(state, bytes) {
    this.state = state;
    this.left = bytes;
  }

  #body(data) {
    const used = Math.min(this.left, data.length);
    this.reading.take(used === data.length ? data : data.subarray(0, used));
    this.left -= used;
    if (this.left === 0) {
      if (this.state === SIZED) this.#complete();
      else this.state = CHUNK_END;
    }
    return used;
  }

  #chunkLine(data) {
    const line = lineOf(data);
    if (line === undefined) return 0;
    const size = CHUNK_SIZE.exec(line.text);
    if (size === null) throw new Malformed('a chunk has no size');
    const bytes = Number.parseInt(size[1], 16);
    if (bytes > 0) this.#expect(CHUNK, bytes);
    else this.state = TRAILERS;
    return line.used;
  }

  #chunkEnd(data) {
    if (data.length < LINE_END.length) return 0;
    if (data[0] !== 0x0d || data[1] !== NEWLINE) throw new Malformed('a chunk is longer than its size');
    this.state = CHUNK_LINE;
    return LINE_END.length;
  }

  /** Trailers are read and ignored. */
  #trailers(data) {
    const line = lineOf(data);
    if (line === undefined) return 0;
    if (line.text === '') this.#complete();
    return line.used;
  }

  #complete() {
    const exchange = this.reading;
    this.reading = undefined;
    this.state = HEAD;
    this.busy = true;
    this.onRequest(exchange);
  }
}

/** @returns {{text: string, used: number} | undefined} the next line; undefined = it is not whole yet */
function lineOf(data) {
  const end = data.indexOf(NEWLINE);
  if (end < 0 || end > CHUNK_LINE_BYTES_MAX) {
    if (data.length > CHUNK_LINE_BYTES_MAX) throw new Malformed('a line is too long');
    return undefined;
  }
  if (end === 0 || data[end - 1] !== 0x0d) throw new Malformed('a line does not end in CRLF');
  return { text: data.latin1Slice(0, end - 1), used: end + 1 };
}

/**
 * Read a head into `exchange`.
 * @returns {{length: number, chunked: boolean, waits: boolean}} how the body comes, and whether only when asked for
 */
function readHead(text, exchange) {
  let start = text.indexOf(LINE_END);
  if (start < 0) start = text.length;
  const version = HTTP_11.exec(text.slice(0, start));
  if (version === null) throw new Malformed('the request line');
  exchange.close = version[1] === '0';
  let length = -1;
  let chunked = false;
  let waits = false;
  while (start < text.length) {
    start += LINE_END.length;
    let end = text.indexOf(LINE_END, start);
    if (end < 0) end = text.length;
    const first = text.charCodeAt(start) | LOWER_CASE;
    if (first === LETTER_X || first === LETTER_C || first === LETTER_T || first === LETTER_E) {
      const colon = text.indexOf(COLON, start);
      if (colon < 0 || colon > end) throw new Malformed('a header has no colon');
      const name = text.slice(start, colon).toLowerCase();
      const value = text.slice(colon + 1, end).trim();
      if (first === LETTER_X) exchange.headers.push(name, value);
      else if (name === 'content-length') {
        if (!LENGTH.test(value) || (length >= 0 && length !== Number(value))) throw new Malformed('content-length');
        length = Number(value);
      } else if (name === 'transfer-encoding') {
        if (value.toLowerCase() !== 'chunked') throw new Malformed('transfer-encoding');
        chunked = true;
      } else if (name === 'connection') {
        if (/\bclose\b/i.test(value)) exchange.close = true;
      } else if (name === 'expect') {
        if (value.toLowerCase() !== '100-continue') throw new Malformed('expect');
        waits = true;
      }
    }
    start = end;
  }
  if (chunked && length >= 0) throw new Malformed('both a length and chunks');
  return { length, chunked, waits };
}
