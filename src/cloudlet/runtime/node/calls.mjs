// Calls: who runs, who waits, who is refused, and how each one is answered (contract, section 3).

import { isUtf8 } from 'node:buffer';

import { monotonicMs } from './activity.mjs';
import { callerOf, Variables } from './identity.mjs';
import { describeError, exitReply, failureReply, invalidReply, resultReply, timeoutReply, timeoutText } from './replies.mjs';

const EVENT_BYTES_MAX = 6 * 1024 * 1024;
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

/** One request, from its head to its reply. */
class Call {
  constructor(request, response) {
    this.response = response;
    this.rawHeaders = request.rawHeaders;
    this.headAtMs = monotonicMs();
    this.size = 0;
    /** @type {Buffer[]} */
    this.chunks = [];
  }

  /** What is over the limit is read and thrown away, so that the connection stays usable. */
  take(chunk) {
    this.size += chunk.length;
    if (this.size <= EVENT_BYTES_MAX) this.chunks.push(chunk);
    else this.chunks = [];
  }

  /** @returns {unknown} the event; throws when the body is not JSON */
  event() {
    if (this.size === 0) return {};
    const bytes = this.chunks.length === 1 ? this.chunks[0] : Buffer.concat(this.chunks);
    this.chunks = [];
    if (!isUtf8(bytes)) throw new SyntaxError('not UTF-8');
    return JSON.parse(bytes.utf8Slice(0, bytes.length));
  }
}

/** One running handler. */
export class Invocation {
  constructor(caller, response, startedMs, deadlineMs, variables) {
    this.caller = caller;
    this.response = response;
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
   * @param {{started: number, publish(deadlineMs: number): void}} activity
   * @param {import('./output.mjs').Output} output
   */
  constructor(loaded, scope, activity, output) {
    this.loaded = loaded;
    this.scope = scope;
    this.activity = activity;
    this.output = output;
    /** @type {Invocation[]} */
    this.running = [];
    /** @type {{call: Call, caller: import('./identity.mjs').Caller}[]} */
    this.waiting = [];
    this.waitTimer = undefined;
    this.watchTimer = undefined;
    this.watchAtMs = Infinity;
    this.accepting = true;
    /** When a retired process will be gone; 0 = it is not retired. */
    this.retiredUntilMs = 0;
    this.advancing = false;
    /** Replies that the kernel has not taken yet. */
    this.unflushed = new Set();
    /** @type {(() => void) | undefined} */
    this.onEmpty = undefined;
  }

  /** Listener for the server's requests. */
  accept(request, response) {
    response.sendDate = false;
    const call = new Call(request, response);
    request.on('data', (chunk) => call.take(chunk));
    request.on('end', () => this.#arrived(call));
  }

  quiesce() {
    this.accepting = false;
    this.#refuseWaiting(Infinity);
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

  /** @param {Call} call */
  #arrived(call) {
    const caller = callerOf(call.rawHeaders);
    if (!this.accepting) return this.#refuse(call);
    const problem = this.#problemOf(call, caller);
    if (problem !== undefined) return this.#write(call.response, problem);
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
    if (call.size > EVENT_BYTES_MAX) {
      const text = `the event is ${call.size} bytes, the limit is ${EVENT_BYTES_MAX}`;
      return invalidReply(413, 'body_too_large', text, requestId);
    }
    return undefined;
  }

  #start(call, caller) {
    let event;
    try {
      event = call.event();
    } catch (error) {
      const text = `the event is not valid JSON: ${error.message}`;
      return this.#write(call.response, invalidReply(400, 'malformed_body', text, caller.requestId));
    }
    const startedMs = monotonicMs();
    const timeoutMs = caller.timeoutMs === '' ? this.loaded.timeoutMs : Number(caller.timeoutMs);
    const variables = new Variables(caller, this.loaded.namespace);
    const invocation = new Invocation(caller, call.response, startedMs, startedMs + timeoutMs, variables);
    if (caller.openid !== '' && typeof event === 'object' && event !== null && !Array.isArray(event)) {
      event.userInfo = { appId: caller.appid, openId: caller.openid };
    }
    this.running.push(invocation);
    this.activity.started += 1;
    this.activity.publish(this.#earliestDeadline());
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
    this.activity.publish(this.#earliestDeadline());
    this.#write(invocation.response, reply, this.#timing(invocation));
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
        if (next !== undefined && !next.call.response.destroyed) this.#start(next.call, next.caller);
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
   * @param {import('node:http').ServerResponse} response
   * @param {import('./replies.mjs').Reply} reply
   * @param {string} [timing]
   */
  #write(response, reply, timing) {
    const head = ['content-type', 'application/json', 'content-length', String(reply.size)];
    if (timing !== undefined) head.push('server-timing', timing);
    if (reply.error !== undefined) head.push('x-cloudlet-error', reply.error);
    if (this.retiredUntilMs !== 0) head.push('x-cloudlet-final', '1');
    response.writeHead(reply.status, head);
    response.end(reply.body);
    if (!response.writableFinished && !response.destroyed) this.#awaitFlush(response);
  }

  /** Not started: the edge may give the call to another instance. No body, or the edge would close the connection. */
  #refuse(call) {
    const head = ['x-cloudlet-busy', '1', 'content-length', '0'];
    if (this.retiredUntilMs !== 0) head.push('connection', 'close');
    call.response.writeHead(503, head);
    call.response.end();
  }

  #awaitFlush(response) {
    this.unflushed.add(response);
    response.once('close', () => {
      this.unflushed.delete(response);
      this.#checkEmpty();
    });
  }
}
