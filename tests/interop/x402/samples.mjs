// Writes what official clients send and what official servers answer to samples/*.json, for parsers to be tested with.
// `node samples.mjs [PYTHON]`, with PYTHON the interpreter of requirements.txt, writes those that are missing: delete one
// to renew it. The keys in them are the well-known development ones.
//
// NAME.json       {client, exchanges[{request,response}], outcome}: what record.mjs saw, what the client printed
// refusals-*.json {server, cases{NAME: {request,response}}}: answers to payments that are wrong in one way each
// facilitator-*.json {facilitator, cases{NAME: {request,verify,settle}}}: the same payments, asked of the facilitator

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { randomBytes } from 'node:crypto';
import { privateKeyToAccount } from 'viem/accounts';
import { account } from './chain.mjs';
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

const fileOf = (name) => new URL(`samples/${name}.json`, here);
const present = (name) => existsSync(fileOf(name));

async function save(name, value) {
  await writeFile(fileOf(name), `${JSON.stringify(value, null, 2)}\n`);
  const seen = value.exchanges?.map((one) => one.response.status) ?? Object.keys(value.cases);
  console.log(`${name}: ${JSON.stringify(seen)}`);
}

async function recorded(name, client, target, command, args, environment) {
  if (present(name)) return;
  const proxy = await record(target);
  const child = run(command, [...args, proxy.url + new URL(target).pathname], { PRIVATE_KEY: key, ...environment });
  const outcome = await line(child);
  proxy.stop();
  await save(name, { client, exchanges: proxy.exchanges, outcome });
}

// A payment as the official clients make it, with one thing changed: `change` may alter the authorization before it is
// signed, `after` the finished payload.
async function payment(version, offer, { payer = key, change = {}, domain = {}, after = (payload) => payload } = {}) {
  const signer = privateKeyToAccount(payer);
  const now = Math.floor(Date.now() / 1000);
  const authorization = {
    from: signer.address,
    to: offer.payTo,
    value: offer.amount ?? offer.maxAmountRequired,
    validAfter: `${now - 600}`,
    validBefore: `${now + offer.maxTimeoutSeconds}`,
    nonce: `0x${randomBytes(32).toString('hex')}`,
    ...change,
  };
  const type = (name) => ({ name, type: { from: 'address', to: 'address', nonce: 'bytes32' }[name] ?? 'uint256' });
  const signature = await signer.signTypedData({
    domain: { ...offer.extra, chainId: chain.chainId, verifyingContract: offer.asset, ...domain },
    types: { TransferWithAuthorization: Object.keys(authorization).map(type) },
    primaryType: 'TransferWithAuthorization',
    message: authorization,
  });
  const payload = { signature, authorization };
  const { scheme, network } = offer;
  const whole = version === 1 ? { x402Version: 1, scheme, network, payload } : { x402Version: 2, payload, accepted: offer };
  return after(structuredClone(whole));
}

// Payments that are wrong in one way each. «spent» is one that was settled before.
function wrongPayments(version, offer) {
  const make = (options) => () => payment(version, offer, options);
  const now = Math.floor(Date.now() / 1000);
  const lower = `${BigInt(offer.amount ?? offer.maxAmountRequired) - 1n}`;
  const flip = (whole) => {
    const text = whole.payload.signature;
    whole.payload.signature = `${text.slice(0, 10)}${text[10] === '0' ? '1' : '0'}${text.slice(11)}`;
    return whole;
  };
  const cases = {
    'value-too-low': make({ change: { value: lower } }),
    'value-too-high': make({ change: { value: `${BigInt(lower) + 2n}` } }),
    'bad-signature': make({ after: flip }),
    'wrong-recipient': make({ change: { to: account(5).address } }),
    'wrong-domain': make({ domain: { name: 'USD Coin' } }),
    expired: make({ change: { validBefore: `${now - 10}` } }),
    'expires-in-3-seconds': () => payment(version, offer, { change: { validBefore: `${Math.floor(Date.now() / 1000) + 3}` } }),
    'valid-in-the-future': make({ change: { validAfter: `${now + 3600}`, validBefore: `${now + 7200}` } }),
    'no-balance': make({ payer: account(6).privateKey }),
    'short-signature': make({ after: (whole) => ({ ...whole, payload: { ...whole.payload, signature: '0x1234' } }) }),
    'no-payload': make({ after: (whole) => ({ ...whole, payload: {} }) }),
    'unknown-version': make({ after: (whole) => ({ ...whole, x402Version: 3 }) }),
  };
  if (version === 1) {
    cases['other-network'] = make({ after: (whole) => ({ ...whole, network: 'base' }) });
    return cases;
  }
  const accepted = (change) => make({ after: (whole) => ({ ...whole, accepted: { ...whole.accepted, ...change } }) });
  cases['accepted-lower-amount'] = accepted({ amount: lower });
  cases['accepted-other-network'] = accepted({ network: 'eip155:8453' });
  cases['accepted-extra-member'] = accepted({ extra: { ...offer.extra, more: 1 } });
  cases['accepted-lower-case-address'] = accepted({ payTo: offer.payTo.toLowerCase() });
  const other = { url: 'http://other.example/paid/page' };
  cases['resource-elsewhere'] = make({ after: (whole) => ({ ...whole, resource: other }) });
  return cases;
}

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64');

async function refusals(name, what, version, shopUrl) {
  if (present(name)) return;
  const field = version === 1 ? 'X-PAYMENT' : 'PAYMENT-SIGNATURE';
  const proxy = await record(shopUrl);
  const ask = async (value, path = '/paid/page', more = {}) => {
    const headers = { ...more, ...(value === undefined ? {} : { [field]: value }) };
    await (await fetch(`${proxy.url}${path}`, { headers })).text();
    return proxy.exchanges.at(-1);
  };
  const cases = { 'no-payment': await ask() };
  const { body, decoded } = cases['no-payment'].response;
  const offer = version === 1 ? body.accepts[0] : decoded['PAYMENT-REQUIRED'].accepts[0];
  for (const [label, make] of Object.entries(wrongPayments(version, offer))) cases[label] = await ask(base64(await make()));
  const good = base64(await payment(version, offer));
  cases.paid = await ask(good);
  cases['spent-again'] = await ask(good);
  cases['not-base64'] = await ask('@@@');
  cases['not-json'] = await ask(Buffer.from('hello').toString('base64'));
  // An unknown member makes the text long enough to end in padding.
  let padded;
  for (let note = ''; !padded?.endsWith('='); note += '.') padded = base64({ ...(await payment(version, offer)), note });
  cases.unpadded = await ask(padded.replace(/=+$/, ''));
  const browser = { accept: 'text/html', 'user-agent': 'Mozilla/5.0' };
  cases['no-payment-browser'] = await ask(undefined, '/paid/page', browser);
  const page = cases['no-payment-browser'].response;
  if (typeof page.body === 'string') page.body = `${page.body.slice(0, 200)}… (${page.body.length} characters)`;
  if (version === 2) {
    cases['origin-fails'] = await ask(base64(await payment(version, offer)), '/paid/broken');
    const twice = base64(await payment(version, offer));
    await Promise.all([ask(twice), ask(twice)]);
    [cases['at-once-1'], cases['at-once-2']] = proxy.exchanges.slice(-2);
  }
  proxy.stop();
  await save(name, { server: what, cases });
}

async function askFacilitator(name, version, offer) {
  if (present(name)) return;
  const cases = {};
  const post = async (path, request) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(FACILITATOR_URL + path, { method: 'POST', headers, body: JSON.stringify(request) });
    return { status: answer.status, body: await answer.json() };
  };
  const ask = async (paymentPayload) => {
    const request = { x402Version: version, paymentPayload, paymentRequirements: offer };
    return { request, verify: await post('/verify', request), settle: await post('/settle', request) };
  };
  for (const [label, make] of Object.entries(wrongPayments(version, offer))) cases[label] = await ask(await make());
  const good = await payment(version, offer);
  cases.paid = await ask(good);
  cases['spent-again'] = await ask(good);
  const supported = await (await fetch(`${FACILITATOR_URL}/supported`)).json();
  await save(name, { facilitator: '@x402/core and @x402/evm 2.27.0', supported, cases });
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

await recorded('v2-permit2', '@x402/fetch 2.27.0', `${shop.url}/paid/permit2`, node, ['fetch.mjs']);
await recorded('v2-upto', '@x402/fetch 2.27.0', `${shop.url}/paid/upto`, node, ['fetch.mjs']);
await refusals('refusals-v2', '@x402/express 2.27.0', 2, shop.paid);
await refusals('refusals-v1', 'x402-express 1.2.0', 1, shopV1.paid);

const offered = async (url) => {
  const answer = await fetch(url);
  const field = answer.headers.get('payment-required');
  return (field === null ? await answer.json() : JSON.parse(Buffer.from(field, 'base64').toString())).accepts[0];
};
await askFacilitator('facilitator-v2', 2, await offered(shop.paid));
await askFacilitator('facilitator-v1', 1, await offered(shopV1.paid));

if (python !== undefined) {
  const mcp = await line(run(python, ['mcp_shop.py'], { FACILITATOR_URL }));
  await recorded('mcp-node', 'MCP SDK 1.32.2, @x402/core 2.27.0', mcp.url, node, ['mcp_client.mjs']);
  await recorded('mcp-python', 'mcp 1.30.0, x402 2.25.0 for Python', mcp.url, python, ['mcp_client.py']);
}
const plain = await server('mcp_server.mjs');
await recorded('mcp-free', 'MCP SDK 1.32.2, no payment, event streams', plain.url, node, ['mcp_client.mjs']);

for (const child of children.reverse()) {
  child.stdin.end();
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
