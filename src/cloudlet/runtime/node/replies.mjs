// What is answered, and how failures are worded (contract, section 3). Nothing here decides when.

import { inspect } from 'node:util';

export const RESULT_BYTES_MAX = 1024 * 1024;
const ERROR_TEXT_CHARS_MAX = 16 * 1024;
const SHIM_DIRECTORY = new URL('.', import.meta.url).href;

const stringify = JSON.stringify;

/**
 * @typedef {object} Reply
 * @property {number} status
 * @property {string} body
 * @property {number} size bytes of `body`
 * @property {string} [error] code of the failure
 */

/**
 * The reply for a handler's result; a failure when it cannot be sent.
 * @param {unknown} result
 * @param {string} requestId
 * @returns {Reply}
 */
export function resultReply(result, requestId) {
  let body;
  try {
    body = stringify(result) ?? 'null';
  } catch (error) {
    return failureReply('function_failed', describeError(error, 'function result is not JSON: '), requestId);
  }
  const size = Buffer.byteLength(body);
  if (size <= RESULT_BYTES_MAX) return { status: 200, body, size };
  const text = `function result is ${size} bytes, the limit is ${RESULT_BYTES_MAX}`;
  return errorReply(400, 'result_too_large', 'FUNCTIONS_RESULT_TOO_LARGE', text, requestId);
}

/** The handler failed in a way that its author must see. */
export function failureReply(error, description, requestId) {
  return errorReply(400, error, 'FUNCTIONS_EXECUTE_FAIL', stringify(description), requestId);
}

export function exitReply(exitCode, requestId) {
  const errorMessage = `function exited with code ${exitCode} before it answered`;
  return failureReply('function_exited', { errorCode: 1, errorMessage, stackTrace: '' }, requestId);
}

export function timeoutReply(versionTimeoutMs, requestId) {
  return errorReply(504, 'function_timeout', 'FUNCTIONS_TIME_LIMIT_EXCEEDED', timeoutText(versionTimeoutMs), requestId);
}

export function timeoutText(versionTimeoutMs) {
  return `Invoking task timed out after ${versionTimeoutMs / 1000} seconds`;
}

/** The call itself is wrong. */
export function invalidReply(status, error, text, requestId) {
  return errorReply(status, error, 'INVALID_PARAM', text, requestId);
}

function errorReply(status, error, code, message, requestId) {
  const body = stringify({ code, message, requestId });
  return { status, error, body, size: Buffer.byteLength(body) };
}

/**
 * What a function threw, as the vendors' clouds describe it. Anything can be thrown, also objects that fight back.
 * @returns {{errorCode: number, errorMessage: string, stackTrace: string}}
 */
export function describeError(thrown, prefix = '') {
  try {
    const isError = thrown instanceof Error || typeof thrown?.stack === 'string';
    const message = isError ? String(thrown.message || thrown.name) : textOf(thrown);
    const stack = isError ? userStack(String(thrown.stack)) : '';
    return { errorCode: 1, errorMessage: cut(prefix + message), stackTrace: cut(stack) };
  } catch {
    return { errorCode: 1, errorMessage: `${prefix}the function threw a value that cannot be shown`, stackTrace: '' };
  }
}

function textOf(thrown) {
  return typeof thrown === 'string' ? thrown : inspect(thrown, { depth: 3 });
}

/** Frames of the shim say nothing to the function's author. */
function userStack(stack) {
  return stack
    .split('\n')
    .filter((line) => !line.includes(SHIM_DIRECTORY))
    .join('\n');
}

function cut(text) {
  return text.length <= ERROR_TEXT_CHARS_MAX ? text : `${text.slice(0, ERROR_TEXT_CHARS_MAX)}…`;
}
