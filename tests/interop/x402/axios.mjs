// Pays with the official @x402/axios. Interface and PAYMENT_VERSION: client.mjs.

import axios from 'axios';
import { wrapAxiosWithPayment, x402Client } from '@x402/axios';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { ExactEvmSchemeV1 } from '@x402/evm/exact/v1/client';
import { receiptOf, report, settings } from './client.mjs';

const { url, account, method, headers, body } = settings();
await report(async (count) => {
  const client = new x402Client();
  if (process.env.PAYMENT_VERSION !== '1') client.register('eip155:*', new ExactEvmScheme(account));
  else client.registerV1(process.env.NETWORK_V1 ?? 'base-sepolia', new ExactEvmSchemeV1(account));
  // `proxy: false`: nothing between us and the server. Offers are read from the body as parsed JSON, so only the text of
  // the final answer is kept as text.
  const instance = axios.create({ proxy: false });
  instance.interceptors.request.use((config) => {
    count();
    return config;
  });
  const response = await wrapAxiosWithPayment(instance, client).request({ url, method, headers, data: body });
  const text = typeof response.data === 'string' ? response.data : JSON.stringify(response.data);
  const receipt = receiptOf((name) => response.headers[name]);
  return { status: response.status, body: text, receipt, headers: { ...response.headers } };
});
