// Ganger's preload for Node: ends kept connections politely when a worker is to go.
//
// Node alone goes on serving a busy kept connection until it idles, and the end of the process then
// cuts it. This file touches nothing until the supervisor asks for the drain, through the cluster's
// channel or, where Node runs beneath npm or a shell, by SIGURG. From then on each response says
// `Connection: close` (HTTP/2: GOAWAY), and connections end once they have been quiet for a while.
//
// GANGER_QUIET_MS            how long (1000)
// GANGER_WEBSOCKET_GRACE_MS  after so long websockets are closed with code 1012; not set: never
'use strict';

const TICK_MS = 25;

if (require('node:worker_threads').isMainThread) {
  if (process.env.GANGER_CHANNEL) {
    // Not for the processes this one starts.
    delete process.env.GANGER_CHANNEL;
    process.on('internalMessage', (message) => {
      if (message.cmd === 'NODE_GANGER' && message.act === 'drain') {
        drain(() => process.emit('internalMessage', { cmd: 'NODE_CLUSTER', act: 'disconnect' }));
      }
    });
    process.send({ cmd: 'NODE_GANGER', act: 'preloaded' });
  } else {
    process.on('SIGURG', () => drain(() => process.kill(process.pid, 'SIGTERM')));
  }
}

let isDraining = false;

function drain(done) {
  if (isDraining) return;
  isDraining = true;
  const start = Date.now();
  const quietMs = number(process.env.GANGER_QUIET_MS) ?? 1000;
  const graceMs = number(process.env.GANGER_WEBSOCKET_GRACE_MS);
  const servers = new Set();
  // What was last seen of each connection, and when it was new.
  const seen = new WeakMap();

  const isQuiet = (socket, isBusy) => {
    const bytes = socket.bytesRead + socket.bytesWritten;
    const last = seen.get(socket);
    if (!last || last.bytes !== bytes || isBusy) {
      seen.set(socket, { bytes, at: Date.now() });
      return false;
    }
    return Date.now() - last.at >= quietMs;
  };

  const tick = () => {
    const handles = process._getActiveHandles();
    for (const server of handles) {
      if (isHttp(server) && !servers.has(server)) {
        servers.add(server);
        prepare(server);
      }
    }
    let left = 0;
    const known = new Set();
    for (const server of servers) {
      const connections = listOf(server);
      const idle = new Set(connections?.idle().map((parser) => parser.socket));
      for (const { socket } of connections?.all() ?? []) {
        if (!socket || socket.destroyed) continue;
        left++;
        known.add(socket);
        const response = socket._httpMessage;
        if (response && !response.headersSent) response.shouldKeepAlive = false;
        if (isQuiet(socket, response || !idle.has(socket))) end(socket);
      }
    }
    for (const socket of socketsOf(handles, servers, graceMs !== undefined)) {
      if (known.has(socket) || socket.destroyed) continue;
      const session = ownValue(socket, (value) => /Http2Session$/.test(value.constructor?.name));
      if (session) {
        left++;
        // The streams that are open go on; the peer is told to open no more.
        if (!session.closed && isQuiet(socket, session.state?.outboundQueueSize)) session.close();
      } else if (!isSecureRaw(socket)) {
        left++;
        if (graceMs !== undefined && Date.now() - start >= graceMs) hangUp(socket);
      }
    }
    if (left === 0) {
      clearInterval(timer);
      done();
    }
  };
  const timer = setInterval(tick, TICK_MS);
  tick();
}

// Has every next response end its connection. Listeners stay open, for no new connections come by
// now; but a Unix socket is everybody's, so it must be closed here for others to get them.
function prepare(server) {
  if (isHttp2(server)) {
    server.prependListener('stream', (stream) => setImmediate(() => stream.session?.close()));
    server.prependListener('session', (session) => setImmediate(() => session.close()));
  }
  if (!isHttp2(server) || server.listenerCount('request') > 0) {
    const last = (request, response) => {
      if ('shouldKeepAlive' in response) response.shouldKeepAlive = false;
    };
    for (const event of ['request', 'checkContinue', 'checkExpectation']) {
      if (event === 'request' || server.listenerCount(event) > 0) server.prependListener(event, last);
    }
  }
  if (typeof server.address() === 'string') require('node:net').Server.prototype.close.call(server);
}

function end(socket) {
  if (socket.writableEnded) socket.destroy();
  else socket.end();
}

// Ends what was upgraded: a websocket of the `ws` package properly, another by the bare frame.
function hangUp(socket) {
  if (socket.writableEnded) return;
  const websocket = ownValue(socket, (value) => typeof value.close === 'function' && value.readyState);
  if (websocket) {
    websocket.close(1012, 'service restart');
  } else {
    socket.end(Buffer.from([0x88, 0x02, 1012 >> 8, 1012 & 0xff]));
  }
}

function isHttp(handle) {
  return isHttp2(handle) || listOf(handle) !== undefined;
}

function isHttp2(handle) {
  return typeof handle.updateSettings === 'function' && typeof handle.address === 'function';
}

// The connections of an HTTP/1 server, each by its parser.
function listOf(server) {
  const name = Object.getOwnPropertySymbols(server).find(
    (symbol) => symbol.description === 'http.server.connections');
  return name && server[name];
}

// The sockets of the servers, TLS included where it must be looked through for the ones without
// a parser. Node keeps no list of those, so the inspector is asked; that costs a garbage collection.
function socketsOf(handles, servers, wantsUpgraded) {
  const own = handles.filter((handle) => servers.has(handle.server));
  const isWanted = (server) => typeof server.setSecureContext === 'function' &&
    (isHttp2(server) || (wantsUpgraded && server.listenerCount('upgrade') > 0));
  if (own.length === 0 || ![...servers].some(isWanted)) return own;
  secure ??= secureSockets();
  return own.concat(secure.filter((socket) => servers.has(socket.server) && !socket.destroyed));
}

let secure;

function secureSockets() {
  try {
    const session = new (require('node:inspector').Session)();
    session.connect();
    const ask = (method, params) => {
      let answer;
      session.post(method, params, (error, result) => { answer = result; });
      return answer;
    };
    const place = '__ganger_' + process.pid;
    globalThis[place] = require('node:tls').TLSSocket.prototype;
    const prototype = ask('Runtime.evaluate', { expression: `globalThis.${place}` }).result.objectId;
    const found = ask('Runtime.queryObjects', { prototypeObjectId: prototype }).objects.objectId;
    ask('Runtime.callFunctionOn', {
      objectId: found,
      functionDeclaration: `function () { globalThis.${place} = this; }`,
    });
    const sockets = globalThis[place];
    delete globalThis[place];
    session.disconnect();
    return Array.isArray(sockets) ? sockets : [];
  } catch {
    return [];
  }
}

// Whether this is only the bytes beneath a TLS connection.
function isSecureRaw(socket) {
  return typeof socket.server?.setSecureContext === 'function' && !socket.encrypted;
}

function ownValue(object, isWanted) {
  for (const key of Reflect.ownKeys(object)) {
    const value = object[key];
    if (value !== null && typeof value === 'object' && isWanted(value)) return value;
  }
  return undefined;
}

function number(text) {
  const value = Number(text);
  return text && Number.isFinite(value) && value >= 0 ? value : undefined;
}
