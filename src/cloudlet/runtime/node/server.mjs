// How the HTTP server is set up: it serves the platform's own connections, which stay open for ever.

export const SERVER_OPTIONS = {
  keepAliveTimeout: 0,
  requestTimeout: 0,
  headersTimeout: 0,
  maxHeaderSize: 64 * 1024,
  noDelay: false, // These are unix sockets.
};

/** @param {import('node:http').Server} server */
export function setNoLimits(server) {
  server.timeout = 0;
  server.maxRequestsPerSocket = 0;
}
