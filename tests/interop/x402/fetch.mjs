// Pays with the official @x402/fetch. Interface: client.mjs. PAYMENT_VERSION=1 registers the scheme for version 1 only,
// which is how this package pays a server of version 1; else exact and upto of version 2.
//
// Spend controls: left at the package's defaults (1 dollar a payment in a known dollar token), which the prices of these
// tests stay below.
//
// PAYMENT_ID names the payment, where the server offers that.

import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { ExactEvmSchemeV1 } from '@x402/evm/exact/v1/client';
import { UptoEvmScheme } from '@x402/evm/upto/client';
import { appendPaymentIdentifierToExtensions } from '@x402/extensions/payment-identifier';
import { receiptOf, report, settings } from './client.mjs';

const { url, account, ...request } = settings();
await report(async (count) => {
  const client = new x402Client();
  if (process.env.PAYMENT_VERSION !== '1') {
    client.register('eip155:*', new ExactEvmScheme(account)).register('eip155:*', new UptoEvmScheme(account));
  }
  if (process.env.PAYMENT_VERSION === '1') client.registerV1(process.env.NETWORK_V1 ?? 'base-sepolia', new ExactEvmSchemeV1(account));
  const id = process.env.PAYMENT_ID;
  if (id !== undefined) {
    client.onBeforePaymentCreation(async ({ paymentRequired }) => {
      appendPaymentIdentifierToExtensions(paymentRequired.extensions ?? {}, id);
    });
  }
  const counted = (...args) => {
    count();
    return fetch(...args);
  };
  const response = await wrapFetchWithPayment(counted, client)(url, request);
  const receipt = receiptOf((name) => response.headers.get(name));
  return { status: response.status, body: await response.text(), receipt, headers: Object.fromEntries(response.headers) };
});
