// A shop made with x402-express, the first generation's official server, which speaks version 1 only. Environment,
// output and lifetime as express.mjs; NETWORK is a name of version 1 (default base-sepolia). Sells GET /paid/page only.

import { createRequire } from 'node:module';
import { paymentMiddleware } from 'x402-express';
import { untilEnded } from './chain.mjs';

// The Express of that generation, which its middleware expects, is the package's own dependency.
const require = createRequire(createRequire(import.meta.url).resolve('x402-express'));
const express = require('express');

const url = process.env.FACILITATOR_URL;
if (!url) {
  console.error('v1-express.mjs: FACILITATOR_URL is not set');
  process.exit(2);
}
const network = process.env.NETWORK ?? 'base-sepolia';
const payTo = process.env.PAY_TO ?? '0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC';
const config = { description: 'A page', mimeType: 'text/plain', maxTimeoutSeconds: 60 };
const routes = { 'GET /paid/page': { price: process.env.PRICE ?? '$0.01', network, config } };

let served = 0;
const app = express();
app.use(paymentMiddleware(payTo, routes, { url }));
app.get('/paid/page', (_, response) => response.set('X-Served', `${(served += 1)}`).type('text').send('the page\n'));
app.get('/free', (_, response) => response.type('text').send('free\n'));
const server = app.listen(0, '127.0.0.1', () => {
  const at = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({ url: at, paid: `${at}/paid/page`, free: `${at}/free` }));
});
untilEnded(() => {
  server.close();
  server.closeAllConnections();
});
