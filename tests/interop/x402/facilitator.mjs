// An x402 facilitator made of the official packages (@x402/core, @x402/evm) over a chain of its own (chain.mjs).
//
//   node facilitator.mjs [CHAIN_ID]     default 84532, Base Sepolia
//
// Listens on a free port of 127.0.0.1, prints one JSON line when ready:
//   {"facilitator":"http://127.0.0.1:…","rpc":"http://127.0.0.1:…","chainId":84532,"network":"eip155:84532",
//    "networkV1":"base-sepolia","asset":"0x036C…","name":"USDC","version":"2",
//    "payer":{"address":"0x…","privateKey":"0x…"},"payTo":"0x…"}
// and ends, with its chain, when standard input closes or on SIGTERM.
//
//   POST /verify, POST /settle   {x402Version, paymentPayload, paymentRequirements}
//   GET  /supported              exact (EIP-3009 and Permit2) and upto for x402 version 2, exact for version 1
//   GET  /balances[?address=]    {"address","balance","calls":{"verify","settle"},"settled"}; without an address
//                                {"payer":"atomic units","payTo":"…","calls","settled"}

import { createServer } from 'node:http';
import { x402Facilitator } from '@x402/core/facilitator';
import { toFacilitatorEvmSigner } from '@x402/evm';
import { ExactEvmScheme } from '@x402/evm/exact/facilitator';
import { ExactEvmSchemeV1 } from '@x402/evm/exact/v1/facilitator';
import { UptoEvmScheme } from '@x402/evm/upto/facilitator';
import { createWalletClient, http, isAddress, publicActions } from 'viem';
import { privateKeyToAccount } from 'viem/accounts';
import { startChain, TOKEN, untilEnded } from './chain.mjs';

const NAMES_V1 = { 8453: 'base', 84532: 'base-sepolia', 43114: 'avalanche', 137: 'polygon' };
const MAX_BODY = 1 << 20;

const chain = await startChain(Number(process.argv[2] ?? 84532));
const networkV1 = NAMES_V1[chain.chainId];
const wallet = createWalletClient({
  account: privateKeyToAccount(chain.facilitator.privateKey),
  chain: chain.chain,
  transport: http(chain.rpc),
  pollingInterval: 50,
}).extend(publicActions);

// One transaction is handed in at a time, or two settlements would take the same account nonce.
let last = Promise.resolve();
const inTurn = (send) => (last = last.then(send, send));
const signer = toFacilitatorEvmSigner({
  address: wallet.account.address,
  getCode: (query) => wallet.getCode(query),
  readContract: (query) => wallet.readContract({ ...query, args: query.args ?? [] }),
  verifyTypedData: (query) => wallet.verifyTypedData(query),
  writeContract: (query) => inTurn(() => wallet.writeContract({ ...query, args: query.args ?? [] })),
  sendTransaction: (query) => inTurn(() => wallet.sendTransaction(query)),
  waitForTransactionReceipt: (query) => wallet.waitForTransactionReceipt(query),
});
const facilitator = new x402Facilitator();
facilitator.register(chain.network, new ExactEvmScheme(signer));
facilitator.register(chain.network, new UptoEvmScheme(signer));
if (networkV1 !== undefined) facilitator.registerV1(networkV1, new ExactEvmSchemeV1(signer));

const calls = { verify: 0, settle: 0 };
let settled = 0;

async function bodyOf(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY) throw new Error('body too large');
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}

const balanceOf = async (address) =>
  `${await wallet.readContract({ address: chain.asset, abi: TOKEN, functionName: 'balanceOf', args: [address] })}`;

async function balances(address) {
  if (address === null) {
    const [payer, payTo] = await Promise.all([chain.payer.address, chain.payTo].map(balanceOf));
    return { payer, payTo, calls, settled };
  }
  return { address, balance: await balanceOf(address), calls, settled };
}

async function answer(request) {
  const url = new URL(request.url, 'http://127.0.0.1');
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /supported':
      return [200, facilitator.getSupported()];
    case 'GET /balances': {
      const address = url.searchParams.get('address');
      if (address !== null && !isAddress(address, { strict: false })) return [400, { error: 'not an address' }];
      return [200, await balances(address)];
    }
    case 'POST /verify': {
      const { paymentPayload, paymentRequirements } = await bodyOf(request);
      calls.verify += 1;
      return [200, await facilitator.verify(paymentPayload, paymentRequirements)];
    }
    case 'POST /settle': {
      const { paymentPayload, paymentRequirements } = await bodyOf(request);
      calls.settle += 1;
      const outcome = await facilitator.settle(paymentPayload, paymentRequirements);
      if (outcome.success) settled += 1;
      return [200, outcome];
    }
    default:
      return [404, { error: 'not found' }];
  }
}

const server = createServer(async (request, response) => {
  let status, value;
  try {
    [status, value] = await answer(request);
  } catch (error) {
    [status, value] = [error instanceof SyntaxError ? 400 : 500, { error: error.message }];
  }
  const text = JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? `${one}` : one));
  response.writeHead(status, { 'content-type': 'application/json' }).end(text);
});
untilEnded(async () => {
  server.close();
  server.closeAllConnections();
  await chain.stop();
});
server.listen(0, '127.0.0.1', () => {
  const { rpc, chainId, network, asset, name, version, payer, payTo } = chain;
  const facts = { rpc, chainId, network, networkV1, asset, name, version, payer, payTo };
  console.log(JSON.stringify({ facilitator: `http://127.0.0.1:${server.address().port}`, ...facts }));
});
