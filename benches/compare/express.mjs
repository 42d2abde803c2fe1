// A shop made with @x402/express: GET /paid/small for 0.01 USDC, answered from memory. Environment: PORT, FACILITATOR_URL,
// PAY_TO, and X402_DIR, where the packages are installed.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { resolve } = createRequire(`${process.env.X402_DIR}/package.json`);
const load = (name) => import(pathToFileURL(resolve(name)));
const { default: express } = await load('express');
const { HTTPFacilitatorClient } = await load('@x402/core/server');
const { ExactEvmScheme } = await load('@x402/evm/exact/server');
const { paymentMiddleware, x402ResourceServer } = await load('@x402/express');

const network = 'eip155:84532';
const accepts = { scheme: 'exact', price: '$0.01', network, payTo: process.env.PAY_TO, maxTimeoutSeconds: 300 };
const client = new HTTPFacilitatorClient({ url: process.env.FACILITATOR_URL });
const shop = new x402ResourceServer(client).register(network, new ExactEvmScheme());
const body = 'x'.repeat(1024);
const app = express();
app.disable('x-powered-by').disable('etag');
app.use(paymentMiddleware({ 'GET /paid/small': { accepts } }, shop));
app.get('/paid/small', (_, response) => response.type('text').send(body));
app.listen(Number(process.env.PORT), '127.0.0.1');
