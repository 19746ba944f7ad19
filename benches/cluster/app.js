// The app of the benchmark: a plain server, the same on all sides. It counts what it answers, and
// one of the workers can be made slow.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const folder = process.env.BENCH_FOLDER;
let answered = 0;
let told = -1;
setInterval(() => {
  if (answered === told) return;
  told = answered;
  fs.writeFileSync(path.join(folder, `count-${process.pid}`), String(answered));
}, 100).unref();

// Whoever makes the file is the slow one.
let slowMs = Number(process.env.BENCH_SLOW_MS || 0);
if (slowMs > 0) {
  try {
    fs.closeSync(fs.openSync(path.join(folder, 'slow'), 'wx'));
  } catch {
    slowMs = 0;
  }
}

http.createServer((req, res) => {
  answered += 1;
  if (slowMs > 0) {
    const end = performance.now() + slowMs;
    while (performance.now() < end);
  }
  res.setHeader('x-pid', process.pid);
  res.end('hello\n');
}).listen(Number(process.env.PORT), process.env.HOST);
