// Pays with the first generation's official client, x402-fetch, which speaks version 1 only. Interface: client.mjs.
//
// Spend limit: the package refuses more than 0.10 dollars; MAX_AMOUNT (atomic units, default 1000000) replaces that.

import { wrapFetchWithPayment, createSigner } from 'x402-fetch';
import { receiptOf, report, settings } from './client.mjs';

const { url, account, ...request } = settings();
await report(async (count) => {
  const key = process.env.PRIVATE_KEY;
  const signer = await createSigner(process.env.NETWORK_V1 ?? 'base-sepolia', key.startsWith('0x') ? key : `0x${key}`);
  const counted = (...args) => {
    count();
    return fetch(...args);
  };
  const most = BigInt(process.env.MAX_AMOUNT ?? '1000000');
  const response = await wrapFetchWithPayment(counted, signer, most)(url, request);
  const receipt = receiptOf((name) => response.headers.get(name));
  return { status: response.status, body: await response.text(), receipt, headers: Object.fromEntries(response.headers) };
});
