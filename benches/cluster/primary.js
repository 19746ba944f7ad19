// The app under node:cluster; NODE_CLUSTER_SCHED_POLICY chooses the policy.
'use strict';
const cluster = require('node:cluster');

cluster.setupPrimary({ exec: `${__dirname}/app.js` });
for (let worker = 0; worker < Number(process.env.BENCH_WORKERS); worker += 1) cluster.fork();
cluster.on('exit', () => cluster.fork());
