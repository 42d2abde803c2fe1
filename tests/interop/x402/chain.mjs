// A local EVM node that looks like a public network to x402: same chain id, and at the address of that network's USDC
// a token of ours (Token.sol) with the same EIP-712 name and version; Permit2 and x402's own contracts (Permit2.sol)
// are where they are elsewhere, too, and the payer has approved Permit2. Nothing leaves 127.0.0.1.
//
// As a program: `node chain.mjs [CHAIN_ID]` (default 84532, Base Sepolia) prints one JSON line
// `{rpc, chainId, network, asset, name, version, payer{address,privateKey}, payTo, facilitator}` and ends when standard
// input closes or on SIGTERM. As a module: `startChain(chainId)`, and `untilEnded`, which the other servers use too.

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { DEFAULT_ASSETS, x402ExactPermit2ProxyAddress, x402UptoPermit2ProxyAddress } from '@x402/evm';
import { createTestClient, encodeFunctionData, http, maxUint256, parseAbi, publicActions, walletActions } from 'viem';
import { mnemonicToAccount } from 'viem/accounts';

const require = createRequire(import.meta.url);

// The well-known development phrase: its accounts have no value on any network.
const PHRASE = 'test test test test test test test test test test test junk';
const MULTICALL3 = '0xcA11bde05977b3631167028862bE2a173976CA11';
const PERMIT2 = '0x000000000022D473030F116dDEE9F6B43aC78BA3';
const INITIAL_BALANCE = 1_000_000_000n; // 1000 dollars

export const TOKEN = parseAbi([
  'function balanceOf(address) view returns (uint256)',
  'function mint(address to, uint256 value)',
  'function approve(address spender, uint256 value) returns (bool)',
  'function setUp(string name, string version, string symbol)',
]);

export function account(index) {
  const found = mnemonicToAccount(PHRASE, { addressIndex: index });
  return { address: found.address, privateKey: `0x${Buffer.from(found.getHdKey().privateKey).toString('hex')}` };
}

// Calls `end` once, when standard input closes or somebody asks the process to stop, and then leaves.
export function untilEnded(end) {
  let ended = false;
  const stop = async () => {
    if (ended) return;
    ended = true;
    await end();
    process.exit(0);
  };
  process.stdin.on('end', stop).on('close', stop).resume();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, stop);
  return stop;
}

// The native binary itself, not the package's wrapper: the wrapper would be one more process to stop.
function anvilBinary() {
  const cpu = { x64: 'amd64', arm64: 'arm64' }[process.arch] ?? process.arch;
  const name = process.platform === 'win32' ? 'anvil.exe' : 'anvil';
  return require.resolve(`@foundry-rs/anvil-${process.platform}-${cpu}/bin/${name}`);
}

async function compile() {
  const solc = require('solc');
  const read = async (name) => [name, { content: await readFile(new URL(name, import.meta.url), 'utf8') }];
  const sources = Object.fromEntries(await Promise.all(['Token.sol', 'Permit2.sol'].map(read)));
  const output = JSON.parse(
    solc.compile(
      JSON.stringify({
        language: 'Solidity',
        sources,
        // Without the optimizer the many arguments of EIP-3009 do not fit the stack.
        settings: {
          optimizer: { enabled: true, runs: 200 },
          evmVersion: 'paris',
          outputSelection: { '*': { '*': ['evm.deployedBytecode.object'] } },
        },
      }),
    ),
  );
  const faults = (output.errors ?? []).filter((error) => error.severity === 'error');
  if (faults.length > 0) throw new Error(faults.map((error) => error.formattedMessage).join('\n'));
  const all = Object.assign({}, ...Object.values(output.contracts));
  return (name) => `0x${all[name].evm.deployedBytecode.object}`;
}

function startNode(chainId) {
  // `--mixed-mining`: a block at once for every transaction, and one a minute, so that «now» on the chain is never far
  // from now when a simulation asks whether an authorization is valid already.
  const child = spawn(
    anvilBinary(),
    ['--host', '127.0.0.1', '--port', '0', '--chain-id', `${chainId}`, '--mixed-mining', '--block-time', '60'],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  return new Promise((resolve, reject) => {
    let seen = '';
    child.on('error', reject);
    child.on('exit', (code, signal) => reject(new Error(`anvil ended (${code ?? signal}): ${seen}`)));
    child.stdout.on('data', (chunk) => {
      if (seen === null) return;
      seen += chunk;
      const port = /Listening on 127\.0\.0\.1:(\d+)/.exec(seen)?.[1];
      if (port === undefined) return;
      seen = null;
      resolve({ child, rpc: `http://127.0.0.1:${port}` });
    });
  });
}

export async function startChain(chainId = 84532) {
  const network = `eip155:${chainId}`;
  const usdc = DEFAULT_ASSETS[network]?.[0];
  if (usdc === undefined) throw new Error(`@x402/evm knows no default asset on ${network}`);
  const [{ child, rpc }, code] = await Promise.all([startNode(chainId), compile()]);
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const stop = async () => {
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 3000);
    await exited;
    clearTimeout(late);
  };
  process.on('exit', () => child.kill('SIGKILL'));
  try {
    const chain = {
      id: chainId,
      name: network,
      nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
      rpcUrls: { default: { http: [rpc] } },
    };
    const client = createTestClient({ mode: 'anvil', chain, transport: http(rpc), pollingInterval: 50 })
      .extend(publicActions)
      .extend(walletActions);
    const [facilitator, payer, payTo] = [0, 1, 2].map(account);
    for (const [address, name] of [
      [usdc.asset, 'Token'],
      [MULTICALL3, 'Multicall'],
      [PERMIT2, 'Permit2'],
      [x402ExactPermit2ProxyAddress, 'ExactProxy'],
      [x402UptoPermit2ProxyAddress, 'UptoProxy'],
    ]) {
      await client.setCode({ address, bytecode: code(name) });
    }
    const send = async (functionName, args, from = facilitator) => {
      const data = encodeFunctionData({ abi: TOKEN, functionName, args });
      const hash = await client.sendTransaction({ account: from.address, to: usdc.asset, data });
      const receipt = await client.waitForTransactionReceipt({ hash });
      if (receipt.status !== 'success') throw new Error(`${functionName} reverted`);
    };
    await send('setUp', [usdc.name, usdc.version, usdc.symbol]);
    await send('mint', [payer.address, INITIAL_BALANCE]);
    // As a payer does once, before the first payment that goes through Permit2.
    await send('approve', [PERMIT2, maxUint256], payer);
    const facts = { rpc, chainId, network, asset: usdc.asset, name: usdc.name, version: usdc.version };
    return { ...facts, chain, client, facilitator, payer, payTo: payTo.address, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { chain, client, stop, ...facts } = await startChain(Number(process.argv[2] ?? 84532));
  untilEnded(stop);
  console.log(JSON.stringify(facts));
}
