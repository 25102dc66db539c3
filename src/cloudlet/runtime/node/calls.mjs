// Calls: who runs, who waits, who is refused, and how each one is answered (contract, section 3).

import { isUtf8 } from 'node:buffer';

import { monotonicMs } from './activity.mjs';
import { callerOf, Variables } from './identity.mjs';
import { describeError, exitReply, failureReply, invalidReply, resultReply, timeoutReply, timeoutText } from './replies.mjs';
import { BODY_BYTES_MAX, Connection } from './wire.mjs';

const WAITING_MAX = 64;
const WAIT_MS_MAX = 20;
/** For so long after its last reply the process refuses calls that are on their way already. */
export const LINGER_MS = 300;

/**
 * @typedef {object} LoadedFunction
 * @property {Function} main
 * @property {string} name
 * @property {string} namespace the environment it belongs to
 * @property {number} concurrency
 * @property {number} timeoutMs
 * @property {number} loadMs
 * @property {(invocation: Invocation) => object} context
 */

/** One running handler. */
export class Invocation {
  constructor(caller, exchange, startedMs, deadlineMs, variables) {
    this.caller = caller;
    this.exchange = exchange;
    this.startedMs = startedMs;
    this.deadlineMs = deadlineMs;
    this.variables = variables;
    this.settled = false;
  }
}

/**
 * Runs a loaded function's invocations.
 *
 * It is open, quiesced (refuses everything new), or retired (refuses everything new for good, and says so in each
 * reply). `leave` tells when all that ran is answered and the answers are with the kernel.
 */
export class Calls {
  /**
   * @param {LoadedFunction} loaded
   * @param {import('./environment.mjs').ExclusiveScope | import('./environment.mjs').SharedScope} scope
   * @param {{started: number, changed(earliest: () => number): void, publish(deadlineMs: number): void}} activity
   * @param {import('./output.mjs').Output} output
   */
  constructor(loaded, scope, activity, output) {
    this.loaded = loaded;
    this.scope = scope;
    this.activity = activity;
    this.output = output;
    /** @type {Invocation[]} */
    this.running = [];
    /** @type {{call: import('./wire.mjs').Exchange, caller: import('./identity.mjs').Caller}[]} */
    this.waiting = [];
    this.earliest = () => this.#earliestDeadline();
    this.waitTimer = undefined;
    this.watchTimer = undefined;
    this.watchAtMs = Infinity;
    this.accepting = true;
    /** When a retired process will be gone; 0 = it is not retired. */
    this.retiredUntilMs = 0;
    this.advancing = false;
    /** Sockets with replies that the kernel has not taken yet. */
    this.unflushed = new Set();
    /** @type {(() => void) | undefined} */
    this.onEmpty = undefined;
  }

  /** Serve the requests of one connection. */
  accept(socket) {
    return new Connection(socket, (exchange) => this.#arrived(exchange), monotonicMs);
  }

  quiesce() {
    this.accepting = false;
    this.#refuseWaiting(Infinity);
    this.activity.publish(this.#earliestDeadline());
  }

  resume() {
    this.accepting = this.onEmpty === undefined && this.retiredUntilMs === 0;
  }

  /**
   * The process must not serve another caller: the state of the function's code is unknown. The replies from now on
   * are its last ones. The activity page shows when it will be gone, so that the node can see to it.
   */
  retire() {
    if (this.retiredUntilMs === 0) this.retiredUntilMs = monotonicMs() + LINGER_MS;
    this.quiesce();
    this.activity.publish(this.#earliestDeadline());
  }

  /** Refuse everything new, let finish what runs, then call `onEmpty` (the first one given counts). */
  leave(onEmpty) {
    this.onEmpty ??= onEmpty;
    this.quiesce();
    this.#checkEmpty();
  }

  /** Something was thrown that no caller could catch: it is every running invocation's failure. */
  failAll(thrown) {
    const description = describeError(thrown);
    for (const invocation of [...this.running]) {
      this.#settle(invocation, failureReply('function_failed', description, invocation.caller.requestId));
    }
  }

  /** The function ends its process: answer before it is gone. */
  exitAll(exitCode) {
    for (const invocation of [...this.running]) {
      this.#settle(invocation, exitReply(exitCode, invocation.caller.requestId));
    }
  }

  /** No timer of a rehearsal outlives it. */
  dispose() {
    clearTimeout(this.watchTimer);
    clearTimeout(this.waitTimer);
  }

  /** @param {import('./wire.mjs').Exchange} call */
  #arrived(call) {
    const caller = callerOf(call.headers);
    if (!this.accepting) return this.#refuse(call);
    const problem = this.#problemOf(call, caller);
    if (problem !== undefined) return this.#write(call, problem);
    if (this.running.length < this.loaded.concurrency && this.waiting.length === 0) return this.#start(call, caller);
    const ageMs = monotonicMs() - call.headAtMs;
    if (this.waiting.length >= WAITING_MAX || ageMs >= WAIT_MS_MAX) return this.#refuse(call);
    this.waiting.push({ call, caller });
    this.#armWaitTimer();
  }

  #problemOf(call, caller) {
    const { requestId } = caller;
    if (caller.problem !== '') return invalidReply(400, 'invalid_request', caller.problem, requestId);
    if (caller.functionName !== '' && caller.functionName !== this.loaded.name) {
      const text = `this instance serves ${this.loaded.name}, not ${caller.functionName}`;
      return invalidReply(400, 'invalid_request', text, requestId);
    }
    if (call.size > BODY_BYTES_MAX) {
      const text = `the event is ${call.size} bytes, the limit is ${BODY_BYTES_MAX}`;
      return invalidReply(413, 'body_too_large', text, requestId);
    }
    return undefined;
  }

  #start(call, caller) {
    let event;
    try {
      event = eventOf(call);
    } catch (error) {
      const text = `the event is not valid JSON: ${error.message}`;
      return this.#write(call, invalidReply(400, 'malformed_body', text, caller.requestId));
    }
    const startedMs = monotonicMs();
    const timeoutMs = caller.timeoutMs === '' ? this.loaded.timeoutMs : Number(caller.timeoutMs);
    const variables = new Variables(caller, this.loaded.namespace);
    const invocation = new Invocation(caller, call, startedMs, startedMs + timeoutMs, variables);
    if (caller.openid !== '' && typeof event === 'object' && event !== null && !Array.isArray(event)) {
      event.userInfo = { appId: caller.appid, openId: caller.openid };
    }
    this.running.push(invocation);
    this.activity.started += 1;
    this.activity.changed(this.earliest);
    this.#watch(invocation.deadlineMs);
    this.scope.enter(invocation, () => this.#run(invocation, event));
  }

  /** Call the handler; whichever comes first settles: its return, its promise, its callback, its error. */
  #run(invocation, event) {
    const { main, context } = this.loaded;
    const fail = (thrown) => this.#failed(invocation, thrown);
    const callback = (error, result) => {
      if (error === undefined || error === null) this.#returned(invocation, result);
      else fail(error);
    };
    let result;
    try {
      result = main(event, context(invocation), callback);
      if (typeof result?.then === 'function') {
        result.then((value) => this.#returned(invocation, value), fail);
        return;
      }
    } catch (thrown) {
      return fail(thrown);
    }
    if (result !== undefined || main.length < 3) this.#returned(invocation, result);
  }

  #returned(invocation, result) {
    if (invocation.settled) return;
    const reply = resultReply(result, invocation.caller.requestId);
    if (reply.error !== undefined) this.output.emit('error', reply.body, invocation.caller.requestId);
    this.#settle(invocation, reply);
  }

  #failed(invocation, thrown) {
    if (invocation.settled) return;
    const description = describeError(thrown);
    this.output.emit('error', description.stackTrace || description.errorMessage, invocation.caller.requestId);
    this.#settle(invocation, failureReply('function_failed', description, invocation.caller.requestId));
  }

  /** End an invocation: exactly one reply, then the slot is free. */
  #settle(invocation, reply) {
    if (invocation.settled) return;
    this.output.flush();
    invocation.settled = true;
    this.scope.leave(invocation);
    this.running.splice(this.running.indexOf(invocation), 1);
    this.activity.changed(this.earliest);
    this.#write(invocation.exchange, reply, this.#timing(invocation));
    this.#advance();
  }

  #timing(invocation) {
    const handler = `handler;dur=${(monotonicMs() - invocation.startedMs).toFixed(3)}`;
    const { loadMs } = this.loaded;
    if (loadMs === 0) return handler;
    this.loaded.loadMs = 0;
    return `load;dur=${loadMs.toFixed(3)}, ${handler}`;
  }

  #earliestDeadline() {
    if (this.running.length === 0) return this.retiredUntilMs;
    let earliest = Infinity;
    for (const { deadlineMs } of this.running) if (deadlineMs < earliest) earliest = deadlineMs;
    return earliest;
  }

  /** Give free slots to those who wait, in order. Not recursive, though a handler may end before it returns here. */
  #advance() {
    if (!this.advancing) {
      this.advancing = true;
      while (this.waiting.length > 0 && this.running.length < this.loaded.concurrency) {
        this.#refuseWaiting(monotonicMs());
        const next = this.waiting.shift();
        if (next !== undefined && !next.call.destroyed) this.#start(next.call, next.caller);
      }
      this.advancing = false;
    }
    this.#checkEmpty();
  }

  /** Refuse who has waited too long by `nowMs`. */
  #refuseWaiting(nowMs) {
    while (this.waiting.length > 0 && nowMs - this.waiting[0].call.headAtMs >= WAIT_MS_MAX) {
      this.#refuse(this.waiting.shift().call);
    }
  }

  #armWaitTimer() {
    if (this.waitTimer !== undefined) return;
    const restMs = this.waiting[0].call.headAtMs + WAIT_MS_MAX - monotonicMs();
    this.waitTimer = setTimeout(() => {
      this.waitTimer = undefined;
      this.#refuseWaiting(monotonicMs());
      if (this.waiting.length > 0) this.#armWaitTimer();
    }, Math.max(1, Math.ceil(restMs)));
  }

  /** One timer for all invocations: it is moved forward only when it fires, so that a short call costs nothing. */
  #watch(deadlineMs) {
    if (deadlineMs >= this.watchAtMs) return;
    clearTimeout(this.watchTimer);
    this.watchAtMs = deadlineMs;
    this.watchTimer = setTimeout(() => this.#watched(), Math.max(1, Math.ceil(deadlineMs - monotonicMs())));
  }

  #watched() {
    this.watchAtMs = Infinity;
    const nowMs = monotonicMs();
    for (const invocation of [...this.running]) if (invocation.deadlineMs <= nowMs) this.#timedOut(invocation);
    if (this.running.length > 0) this.#watch(this.#earliestDeadline());
  }

  /** Its code may go on for ever, so nobody may share the process with it: answer and retire. */
  #timedOut(invocation) {
    const reply = timeoutReply(this.loaded.timeoutMs, invocation.caller.requestId);
    this.output.emit('error', timeoutText(this.loaded.timeoutMs), invocation.caller.requestId);
    this.retire();
    this.#settle(invocation, reply);
    this.onTimeout();
  }

  /** Replaced by the owner: what to do after a timeout was answered. */
  onTimeout() {}

  #checkEmpty() {
    if (this.onEmpty !== undefined && this.running.length === 0 && this.unflushed.size === 0) this.onEmpty();
  }

  /**
   * @param {import('./wire.mjs').Exchange} exchange
   * @param {import('./replies.mjs').Reply} reply
   * @param {string} [timing]
   */
  #write(exchange, reply, timing) {
    let head = 'content-type: application/json\r\n';
    if (timing !== undefined) head += `server-timing: ${timing}\r\n`;
    if (reply.error !== undefined) head += `x-cloudlet-error: ${reply.error}\r\n`;
    if (this.retiredUntilMs !== 0) head += 'x-cloudlet-final: 1\r\n';
    exchange.reply(reply.status, head, reply.body, reply.size);
    if (!exchange.connection.flushed) this.#awaitFlush(exchange.connection.socket);
  }

  /** Not started: the edge may give the call to another instance. No body, or the edge would close the connection. */
  #refuse(call) {
    if (this.retiredUntilMs !== 0) call.close = true;
    call.reply(503, 'x-cloudlet-busy: 1\r\n', '', 0);
  }

  /** @param {import('node:stream').Duplex} socket */
  #awaitFlush(socket) {
    if (this.unflushed.has(socket)) return;
    this.unflushed.add(socket);
    const done = () => {
      this.unflushed.delete(socket);
      socket.off('drain', done);
      socket.off('close', done);
      this.#checkEmpty();
    };
    socket.on('drain', done);
    socket.on('close', done);
  }
}

/** @returns {unknown} the event; throws when the body is not JSON */
function eventOf(call) {
  if (call.size === 0) return {};
  const bytes = call.body();
  if (!isUtf8(bytes)) throw new SyntaxError('not UTF-8');
  return JSON.parse(bytes.utf8Slice(0, bytes.length));
}
