// What the function prints, framed line by line (contract, section 6).
//
// Every line is written at once: a function that then hangs or is killed has lost nothing. Writing goes straight to
// the descriptor, which is a blocking pipe that the node always empties; that costs less than a stream would.

import { writeSync } from 'node:fs';
import { Console } from 'node:console';
import { StringDecoder } from 'node:string_decoder';
import { Writable } from 'node:stream';
import { format } from 'node:util';

const STDOUT = 1;
const STDERR = 2;
const LINE_CHARS_MAX = 32 * 1024;
const RETRIES_MAX = 100;
const INDENT = '  ';

/** @typedef {'debug' | 'info' | 'warn' | 'error'} Level */

/** Frames and writes lines; `requestId()` tells on whose behalf something is printed ('' = nobody's). */
export class Output {
  /** @param {() => string} requestId */
  constructor(requestId) {
    this.requestId = requestId;
    this.dropped = 0;
    /** @type {FramedStream[]} */
    this.streams = [];
  }

  /**
   * Print `text`, which may have several lines.
   * @param {Level} level
   * @param {string} text
   * @param {string} [requestId]
   */
  emit(level, text, requestId = this.requestId()) {
    const head = `\x1e${requestId}\x1f${level}\x1f`;
    const fd = level === 'error' || level === 'warn' ? STDERR : STDOUT;
    if (text.length <= LINE_CHARS_MAX && !text.includes('\n')) this.#write(fd, `${head}${text}\n`);
    else this.#write(fd, text.split('\n').map((line) => head + cut(line) + '\n').join(''));
  }

  /** Replace `process.stdout`, `process.stderr` and the methods of the global console. */
  install() {
    const stdout = new FramedStream(this, 'info', STDOUT);
    const stderr = new FramedStream(this, 'error', STDERR);
    this.streams.push(stdout, stderr);
    for (const [name, stream] of Object.entries({ stdout, stderr })) {
      Object.defineProperty(process, name, { configurable: true, enumerable: true, writable: true, value: stream });
    }
    installConsole(this, stdout, stderr);
  }

  /** Print lines that were begun and not ended; called when an invocation ends. */
  flush() {
    for (const stream of this.streams) if (stream.partial !== '') stream.flushPartial();
  }

  /**
   * @param {number} fd
   * @param {string} text
   */
  #write(fd, text) {
    if (this.dropped > 0) {
      // The last write may have got half a line out: end it.
      text = `\n\x1e\x1fwarn\x1f${this.dropped} writes of this instance were lost\n${text}`;
    }
    if (writeFully(fd, text)) this.dropped = 0;
    else this.dropped += 1;
  }
}

/** A stand-in for `process.stdout`: takes text and bytes in any pieces and gives whole lines to the output. */
class FramedStream extends Writable {
  /**
   * @param {Output} output
   * @param {Level} level
   * @param {number} fd
   */
  constructor(output, level, fd) {
    super({ decodeStrings: false });
    this.output = output;
    this.level = level;
    this.fd = fd;
    this.partial = '';
    this.decoder = new StringDecoder('utf8');
  }

  /** Never ended: the real ones cannot be closed either. */
  end() {
    return this;
  }

  destroy() {
    return this;
  }

  _write(chunk, encoding, done) {
    const text = typeof chunk === 'string' && isText(encoding) ? chunk : this.decoder.write(toBuffer(chunk, encoding));
    const lineEnd = text.lastIndexOf('\n');
    if (lineEnd < 0) {
      this.partial = (this.partial + text).slice(0, LINE_CHARS_MAX + 1); // The end of a line that is cut anyway.
    } else {
      const lines = this.partial + text.slice(0, lineEnd);
      this.partial = text.slice(lineEnd + 1);
      this.output.emit(this.level, lines);
    }
    done();
  }

  flushPartial() {
    const text = this.partial;
    this.partial = '';
    this.output.emit(this.level, text);
  }
}

function isText(encoding) {
  return encoding === 'utf8' || encoding === 'utf-8' || encoding === undefined || encoding === 'buffer';
}

function toBuffer(chunk, encoding) {
  if (typeof chunk === 'string') return Buffer.from(chunk, encoding);
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

/**
 * The frequent methods are written out; the rare ones (table, dir, time, assert …) come from Node's own Console over
 * the framed streams. The object itself stays, because code may have kept a reference to it.
 * @param {Output} output
 * @param {Writable} stdout
 * @param {Writable} stderr
 */
function installConsole(output, stdout, stderr) {
  const rare = new Console({ stdout, stderr });
  for (const name of Object.keys(rare)) {
    if (typeof rare[name] === 'function') console[name] = rare[name].bind(rare);
  }
  let indent = '';
  /** @param {Level} level */
  const printer = (level) => (...args) => {
    let text = args.length === 1 && typeof args[0] === 'string' ? args[0] : format(...args);
    if (indent !== '') text = indent + text.replaceAll('\n', `\n${indent}`);
    output.emit(level, text);
  };
  console.log = console.info = printer('info');
  console.debug = printer('debug');
  console.warn = printer('warn');
  console.error = printer('error');
  console.group = console.groupCollapsed = (...label) => {
    if (label.length > 0) console.log(...label);
    rare.group();
    indent += INDENT;
  };
  console.groupEnd = () => {
    rare.groupEnd();
    indent = indent.slice(INDENT.length);
  };
}

function cut(line) {
  return line.length <= LINE_CHARS_MAX ? line : `${line.slice(0, LINE_CHARS_MAX)}…`;
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/**
 * Write all of `text`. A child process may have made the shared pipe non-blocking; then a full pipe is waited for,
 * for a bounded time.
 * @returns {boolean} whether everything was written
 */
function writeFully(fd, text) {
  let bytes;
  let offset = 0;
  for (let retries = 0; retries < RETRIES_MAX; ) {
    try {
      if (bytes === undefined) bytes = Buffer.from(text, 'utf8');
      offset += writeSync(fd, bytes, offset);
      if (offset >= bytes.length) return true;
    } catch (error) {
      if (error.code !== 'EAGAIN') return false; // The reader is gone: so is the node, and this process soon.
      retries += 1;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
  return false;
}
