// Finding and evaluating a function's code (contract, sections 2 and 4).

import { existsSync, readFileSync, statSync } from 'node:fs';
import Module, { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';

const EXTENSIONS = ['.js', '.cjs', '.mjs'];
/** What `require` says about code that only `import` can load. */
const IMPORT_ONLY = new Set(['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE']);

/** The function cannot be loaded, for a reason its author can mend. */
export class LoadError extends Error {
  name = 'LoadError';
}

/**
 * Evaluate the module and return its handler.
 * @param {string} code directory of the function
 * @param {string} handler `file.export`, the file relative to `code` and without its extension
 * @returns {Promise<Function>}
 */
export async function loadHandler(code, handler) {
  const { file, exported } = parseHandler(handler);
  prepareModulePaths(code);
  const path = findModule(code, file);
  const module = await evaluate(path);
  const main = module?.[exported] ?? module?.default?.[exported];
  if (typeof main === 'function') return main;
  const problem = main === undefined ? 'does not export' : 'does not export a function as';
  throw new LoadError(`handler '${handler}': ${path.slice(code.length + 1)} ${problem} '${exported}'`);
}

/** @param {string} handler */
export function parseHandler(handler) {
  const dot = handler.lastIndexOf('.');
  const file = handler.slice(0, dot);
  const exported = handler.slice(dot + 1);
  if (dot <= 0 || exported === '' || exported.includes('/') || file.split('/').includes('..') || file.startsWith('/')) {
    throw new LoadError(`handler '${handler}' is not allowed: use FILE.EXPORT such as index.main`);
  }
  return { file, exported };
}

/** Bare names resolve in the function's root too: projects do `require('key.json')`. */
function prepareModulePaths(code) {
  process.env.NODE_PATH = code;
  process.chdir(code);
  Module._initPaths();
}

function findModule(code, file) {
  const base = join(code, file);
  const starts = [base, join(base, 'index')];
  const candidates = starts.flatMap((start) => EXTENSIONS.map((extension) => start + extension));
  const found = candidates.find((path) => existsSync(path) && statSync(path).isFile());
  if (found !== undefined) return found;
  const looked = candidates.map((path) => path.slice(code.length + 1)).join(', ');
  throw new LoadError(`handler file '${file}' was not found: looked for ${looked}`);
}

/**
 * Load the module of one file, whatever its kind.
 * @param {string} path
 */
export async function evaluate(path) {
  if (isEsModule(path)) return import(pathToFileURL(path).href);
  try {
    return createRequire(path)(path);
  } catch (error) {
    if (!IMPORT_ONLY.has(error?.code)) throw error;
    return import(pathToFileURL(path).href);
  }
}

function isEsModule(path) {
  if (path.endsWith('.mjs')) return true;
  if (path.endsWith('.cjs')) return false;
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    const manifest = join(directory, 'package.json');
    if (existsSync(manifest)) return readJson(manifest)?.type === 'module';
    if (directory === sep || directory.endsWith(`${sep}node_modules`)) return false;
  }
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new LoadError(`${path} cannot be read: ${error.message}`);
  }
}
