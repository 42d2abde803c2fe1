// Calls an MCP tool and pays for it: the official MCP SDK's client, and the official x402 client core, which reads the
// offer and makes the payment. There is no published npm package that joins the two (the x402 repository's own one is
// not on the registry), so that much is here: the offer is a tool result's structuredContent, or its text; the payment
// goes into `_meta["x402/payment"]` of the same call; the receipt is `_meta["x402/payment-response"]`.
//
// argv[2] is the server's URL (Streamable HTTP); environment: PRIVATE_KEY, optional TOOL (default add), ARGUMENTS (JSON,
// default {"a":2,"b":3}), READ (a resource's URI) or PROMPT (a name) instead of a tool call, both without payment. One
// JSON line `{"result","receipt","paid","tools","requests"}`, or `{"error","requests"}` and exit code 1.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { x402Client } from '@x402/core/client';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { report, settings } from './client.mjs';

const { url, account } = settings();

function offerOf(result) {
  if (!result.isError) return undefined;
  const offers = (value) => value !== null && typeof value === 'object' && Array.isArray(value.accepts);
  if (offers(result.structuredContent)) return result.structuredContent;
  for (const { text } of result.content ?? []) {
    try {
      const value = JSON.parse(text);
      if (offers(value)) return value;
    } catch {
      // An ordinary error's text.
    }
  }
  return undefined;
}

async function call(client) {
  const params = { name: process.env.TOOL ?? 'add', arguments: JSON.parse(process.env.ARGUMENTS ?? '{"a":2,"b":3}') };
  let result = await client.callTool(params);
  const offer = offerOf(result);
  if (offer !== undefined) {
    const payer = new x402Client().register('eip155:*', new ExactEvmScheme(account));
    const payment = await payer.createPaymentPayload(offer);
    result = await client.callTool({ ...params, _meta: { 'x402/payment': payment } });
  }
  return { result, receipt: result._meta?.['x402/payment-response'] ?? null, paid: offer !== undefined };
}

await report(async (count) => {
  const client = new Client({ name: 'payer', version: '1.0.0' });
  const counted = (...args) => {
    count();
    return fetch(...args);
  };
  const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: counted });
  await client.connect(transport);
  try {
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    if (process.env.READ) return { result: await client.readResource({ uri: process.env.READ }), tools };
    if (process.env.PROMPT) {
      const prompt = { name: process.env.PROMPT, arguments: { name: 'Ada' } };
      return { result: await client.getPrompt(prompt), tools };
    }
    return { ...(await call(client)), tools };
  } finally {
    await client.close();
  }
});
