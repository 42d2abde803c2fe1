// A shop made with the official @x402/express, to compare a gateway's answers with.
//
// Environment: FACILITATOR_URL; optional NETWORK (default eip155:84532), PAY_TO (default the second development account
// of facilitator.mjs), PRICE (default "$0.01", 10000 atomic units of USDC).
//
// Listens on a free port of 127.0.0.1 and prints `{"url":"http://127.0.0.1:…","paid":"…/paid/page","free":"…/free"}`.
// GET /paid/page is sold for PRICE, POST /paid/echo too (answers with the body it got), GET /paid/permit2 by way of
// Permit2, GET /paid/upto for at most PRICE (it settles USED atomic units, default 4000); GET /paid/broken answers 500
// after the payment was verified, GET /free costs nothing. `X-Served: N` counts how often the page behind a payment ran.
// Ends when standard input closes or on SIGTERM.

import express from 'express';
import { HTTPFacilitatorClient } from '@x402/core/server';
import { ExactEvmScheme } from '@x402/evm/exact/server';
import { UptoEvmScheme } from '@x402/evm/upto/server';
import { paymentMiddleware, setSettlementOverrides, x402ResourceServer } from '@x402/express';
import { untilEnded } from './chain.mjs';

const url = process.env.FACILITATOR_URL;
if (!url) {
  console.error('express.mjs: FACILITATOR_URL is not set');
  process.exit(2);
}
const network = process.env.NETWORK ?? 'eip155:84532';
const payTo = process.env.PAY_TO ?? '0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC';
const price = process.env.PRICE ?? '$0.01';

const offer = { accepts: { scheme: 'exact', price, network, payTo, maxTimeoutSeconds: 60 }, mimeType: 'text/plain' };
const routes = {
  'GET /paid/page': { ...offer, description: 'A page' },
  'POST /paid/echo': { ...offer, description: 'An echo' },
  'GET /paid/permit2': { accepts: { ...offer.accepts, extra: { assetTransferMethod: 'permit2' } } },
  'GET /paid/upto': { accepts: { ...offer.accepts, scheme: 'upto' } },
  'GET /paid/broken': { ...offer, description: 'A failure' },
};
const shop = new x402ResourceServer(new HTTPFacilitatorClient({ url }))
  .register(network, new ExactEvmScheme())
  .register(network, new UptoEvmScheme());

let served = 0;
const app = express();
app.use(paymentMiddleware(routes, shop));
const count = (response) => response.set('X-Served', `${(served += 1)}`);
app.get('/paid/page', (_, response) => count(response).type('text').send('the page\n'));
app.post('/paid/echo', express.raw({ type: () => true }), (request, response) =>
  count(response).type('text').send(Buffer.isBuffer(request.body) ? request.body : ''),
);
app.get('/paid/broken', (_, response) => count(response).status(500).type('text').send('broken\n'));
app.get('/paid/permit2', (_, response) => count(response).type('text').send('the page\n'));
app.get('/paid/upto', (_, response) => {
  setSettlementOverrides(response, { amount: process.env.USED ?? '4000' });
  count(response).type('text').send('the page\n');
});
app.get('/free', (_, response) => response.type('text').send('free\n'));
const server = app.listen(0, '127.0.0.1', () => {
  const at = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({ url: at, paid: `${at}/paid/page`, free: `${at}/free` }));
});
untilEnded(() => {
  server.close();
  server.closeAllConnections();
});
