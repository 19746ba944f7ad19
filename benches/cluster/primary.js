// The app under node:cluster; NODE_CLUSTER_SCHED_POLICY chooses the policy. SIGUSR2 replaces the
// workers one after the other, as its documentation has it: each is told to disconnect once its
// successor listens.
'use strict';
const cluster = require('node:cluster');

cluster.setupPrimary({ exec: `${__dirname}/app.js` });
for (let worker = 0; worker < Number(process.env.BENCH_WORKERS); worker += 1) cluster.fork();
cluster.on('exit', (worker) => {
  if (!worker.exitedAfterDisconnect) cluster.fork();
});

let isReloading = false;
process.on('SIGUSR2', () => {
  if (isReloading) return;
  isReloading = true;
  const old = Object.values(cluster.workers);
  const next = () => {
    const worker = old.shift();
    isReloading = worker !== undefined;
    if (isReloading) {
      cluster.fork().once('listening', () => {
        worker.disconnect();
        next();
      });
    }
  };
  next();
});
