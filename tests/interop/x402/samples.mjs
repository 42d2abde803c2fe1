// Writes what official clients send and what official servers answer to samples/*.json, for parsers to be tested with.
// Run it only to renew them: `node samples.mjs [PYTHON]`, with PYTHON the interpreter of requirements.txt. The keys in
// them are the well-known development ones.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { x402Client, x402HTTPClient } from '@x402/core/client';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { privateKeyToAccount } from 'viem/accounts';
import { record } from './record.mjs';

const here = new URL('.', import.meta.url);
const python = process.argv[2];
const children = [];

function run(command, args, environment = {}) {
  const env = { ...process.env, ...environment };
  const child = spawn(command, args, { cwd: here, env, stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  return child;
}

async function line(child) {
  for await (const text of createInterface({ input: child.stdout })) return JSON.parse(text);
  throw new Error('ended without a line');
}

const server = (script, environment) => line(run(process.execPath, [script], environment));

async function save(name, value) {
  await writeFile(new URL(`samples/${name}.json`, here), `${JSON.stringify(value, null, 2)}\n`);
  const statuses = value.exchanges?.map((one) => one.response.status) ?? value.response?.status;
  console.log(`${name}: ${JSON.stringify(statuses)}`);
}

async function recorded(name, client, target, command, args, environment) {
  const proxy = await record(target);
  const child = run(command, [...args, proxy.url + new URL(target).pathname], { PRIVATE_KEY: key, ...environment });
  const outcome = await line(child);
  proxy.stop();
  await save(name, { client, exchanges: proxy.exchanges, outcome });
}

await mkdir(new URL('samples/', here), { recursive: true });
const chain = await server('facilitator.mjs');
const key = chain.payer.privateKey;
const FACILITATOR_URL = chain.facilitator;
const shop = await server('express.mjs', { FACILITATOR_URL });
const shopV1 = await server('v1-express.mjs', { FACILITATOR_URL });
const node = process.execPath;

await recorded('v2-fetch', '@x402/fetch 2.27.0', shop.paid, node, ['fetch.mjs']);
await recorded('v1-fetch', 'x402-fetch 1.2.0', shopV1.paid, node, ['v1-fetch.mjs']);
await recorded('v2-axios', '@x402/axios 2.11.0', shop.paid, node, ['axios.mjs']);
const old = { PAYMENT_VERSION: '1' };
await recorded('v1-by-v2-fetch', '@x402/fetch 2.27.0, scheme of version 1', shopV1.paid, node, ['fetch.mjs'], old);
if (python !== undefined) {
  await recorded('v2-python', 'x402 2.25.0 for Python, httpx', shop.paid, python, ['pay.py']);
  await recorded('v1-by-python', 'x402 2.25.0 for Python, httpx, version 1', shopV1.paid, python, ['pay.py'], old);
}
await recorded('v2-post', '@x402/fetch 2.27.0', `${shop.url}/paid/echo`, node, ['fetch.mjs'], { BODY: '{"a":1}' });

for (const child of children.reverse()) {
  child.stdin.end();
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
