// What the paying clients share: their settings, and the one line that they print.
//
// argv[2] is the URL; environment: PRIVATE_KEY (hex, with or without 0x), optional METHOD (default GET, POST with a
// BODY), BODY (sent as CONTENT_TYPE, default application/json), PAYMENT_VERSION (fetch.mjs and axios.mjs: 1 makes the
// client read the offer of version 1 only). Every client writes one line
//   {"status":200,"body":"…","receipt":{…}|null,"requests":2,"headers":{…}}
// where receipt is the decoded PAYMENT-RESPONSE or X-PAYMENT-RESPONSE, and exits 0 (also for a status such as 402 that
// the wrapper handed back after paying in vain); or `{"error":"…","requests":N}` and exits 1.

import { privateKeyToAccount } from 'viem/accounts';

export function settings() {
  const key = process.env.PRIVATE_KEY;
  const url = process.argv[2];
  if (!url || !key) {
    console.error('usage: PRIVATE_KEY=0x… node CLIENT.mjs URL');
    process.exit(2);
  }
  const body = process.env.BODY;
  const method = process.env.METHOD ?? (body === undefined ? 'GET' : 'POST');
  const headers = body === undefined ? {} : { 'content-type': process.env.CONTENT_TYPE ?? 'application/json' };
  return { url, account: privateKeyToAccount(key.startsWith('0x') ? key : `0x${key}`), method, headers, body };
}

// The receipt of either version: both are base64 of JSON. A field that is no such thing comes back as it is.
export function receiptOf(get) {
  const field = get('payment-response') ?? get('x-payment-response');
  if (field === null || field === undefined) return null;
  try {
    return JSON.parse(Buffer.from(field, 'base64').toString());
  } catch {
    return field;
  }
}

// Runs `pay(count)`, which calls `count` for every HTTP request that it makes.
export async function report(pay) {
  let requests = 0;
  try {
    const line = await pay(() => (requests += 1));
    console.log(JSON.stringify({ ...line, requests }));
  } catch (error) {
    const status = error.response?.status;
    console.log(JSON.stringify({ error: error.message ?? `${error}`, cause: error.cause?.message, status, requests }));
    process.exitCode = 1;
  }
}
