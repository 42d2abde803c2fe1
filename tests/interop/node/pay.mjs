// Pays a gateway as a stranger would: everything about the signature comes from the npm package `web-bot-auth`,
// everything about structured fields from `structured-headers`. Nothing here is shared with the gateway.
//
// Environment:
//   GATEWAY_URL  the priced page, http://127.0.0.1:8402/priced
//   AGENT_URL    who pays, the value of Signature-Agent, http://127.0.0.1:9000
//   KEY_FILE     private Ed25519 key as JWK; its public half is in AGENT_URL's key directory
//   FORMS        which forms of Signature-Agent to try, default "string,dictionary"
//
// One JSON line per step on standard output, `{"client","form","step","ok",…}`. Exit code 0 only if every step held.

import { readFile } from 'node:fs/promises';
import { parseDictionary, serializeDictionary } from 'structured-headers';
import { signatureHeaders } from 'web-bot-auth';
import { signerFromJWK } from 'web-bot-auth/crypto';

const LABEL = 'sig1';

// `header`: what goes over the wire. `component`: how the signature covers it. `covered`: the value that the signer
// must see for that component: web-bot-auth 0.1.3 writes `;key` into the identifier but does not select the
// dictionary's member itself (RFC 9421 section 2.1.2), so it is handed the member.
const FORMS = {
  string: (agent) => ({
    header: `"${agent}"`,
    component: 'signature-agent',
    covered: `"${agent}"`,
  }),
  dictionary: (agent) => ({
    header: `${LABEL}="${agent}"`,
    component: { name: 'signature-agent', parameters: new Map([['key', LABEL]]) },
    covered: `"${agent}"`,
  }),
};

function setting(name, fallback) {
  const value = process.env[name] ?? fallback;
  if (value === undefined) {
    console.error(`pay.mjs: ${name} is not set`);
    process.exit(2);
  }
  return value;
}

class Unmet extends Error {
  constructor(message, seen) {
    super(message);
    this.seen = seen;
  }
}

function expect(holds, message, seen = {}) {
  if (!holds) throw new Unmet(message, seen);
}

async function request(url, headers = {}) {
  const response = await fetch(url, { headers, redirect: 'manual', signal: AbortSignal.timeout(15_000) });
  const text = await response.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Not every answer is JSON.
  }
  return { status: response.status, headers: response.headers, text, json };
}

// The first `deferred` entry of a 402's `accepts`.
function offerOf(answer) {
  const seen = { status: answer.status, body: answer.text.slice(0, 2000) };
  expect(answer.status === 402, 'no 402', seen);
  expect(/^application\/json\b/.test(answer.headers.get('content-type') ?? ''), 'offer is not application/json', seen);
  expect(Array.isArray(answer.json?.accepts), 'no accepts[]', seen);
  const entry = answer.json.accepts.find((one) => one.scheme === 'deferred');
  expect(entry !== undefined, 'no deferred offer', seen);
  expect(typeof entry.network === 'string' && entry.network !== '', 'no network', seen);
  expect(typeof entry.extras?.id === 'string', 'no extras.id', seen);
  expect(/^[A-Za-z0-9_-]{1,256}$/.test(entry.extras.id), 'id has characters outside A-Za-z0-9_-', seen);
  return { scheme: entry.scheme, network: entry.network, id: entry.extras.id };
}

async function signed(url, offer, form, signer) {
  const payment = serializeDictionary(offer);
  const created = new Date();
  const signature = await signatureHeaders(
    { method: 'GET', url, headers: { payment, 'signature-agent': form.covered } },
    signer,
    {
      created,
      expires: new Date(created.getTime() + 300_000),
      key: LABEL,
      components: ['@authority', '@method', '@path', 'payment', form.component],
    },
  );
  return { ...signature, Payment: payment, 'Signature-Agent': form.header };
}

function receiptOf(answer, offer) {
  const field = answer.headers.get('payment-response');
  const seen = { status: answer.status, payment_response: field, body: answer.text.slice(0, 2000) };
  expect(answer.status === 200, 'no 200', seen);
  expect(field !== null, 'no Payment-Response', seen);
  const receipt = Object.fromEntries([...parseDictionary(field)].map(([key, [value]]) => [key, value]));
  for (const key of ['scheme', 'network', 'id']) {
    expect(receipt[key] === offer[key], `Payment-Response has another ${key}`, seen);
  }
  expect(Number.isInteger(receipt.timestamp), 'Payment-Response has no integer timestamp', seen);
  expect(Math.abs(receipt.timestamp - Date.now() / 1000) < 300, 'timestamp is far from now', seen);
  return receipt;
}

function refusalOf(answer, code, offer) {
  const fresh = offerOf(answer);
  const seen = { status: answer.status, body: answer.text.slice(0, 2000) };
  expect(String(answer.json.error).split(/[:\s]/)[0] === code, `error is not ${code}`, seen);
  expect(fresh.id !== offer.id, 'the refusal offers the used id again', seen);
  expect(!answer.headers.has('payment-response'), 'a refusal with a payment response', seen);
  return fresh;
}

async function pay(url, form, signer, step) {
  const offer = await step('offer', async () => offerOf(await request(url)));
  const headers = await signed(url, offer, form, signer);
  await step('paid', async () => receiptOf(await request(url, headers), offer));
  await step('replay', async () => {
    const fresh = refusalOf(await request(url, headers), 'already_used', offer);
    return { error: 'already_used', id: fresh.id };
  });
}

const url = setting('GATEWAY_URL');
const agent = setting('AGENT_URL');
const signer = await signerFromJWK(JSON.parse(await readFile(setting('KEY_FILE'), 'utf8')));
let failed = false;
for (const name of setting('FORMS', 'string,dictionary').split(',')) {
  const report = (line) => console.log(JSON.stringify({ client: 'node', form: name, ...line }));
  const step = async (label, run) => {
    try {
      const seen = await run();
      report({ step: label, ok: true, ...seen });
      return seen;
    } catch (error) {
      report({ step: label, ok: false, message: error.message, cause: error.cause?.message, ...error.seen });
      throw error;
    }
  };
  try {
    if (!Object.hasOwn(FORMS, name)) throw new Error(`FORMS: unknown form ${name}`);
    await pay(url, FORMS[name](agent), signer, step);
  } catch (error) {
    failed = true;
    if (error.seen === undefined) console.error(`pay.mjs: ${name}: ${error.stack}`);
  }
}
process.exitCode = failed ? 1 : 0;
