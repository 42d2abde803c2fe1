"""Pays with the official x402 package for Python, over httpx.

argv[1] is the URL; environment as for the Node clients (client.mjs): PRIVATE_KEY, optional METHOD, BODY, CONTENT_TYPE,
PAYMENT_VERSION (1: the scheme is registered for version 1 only). One JSON line,
`{"status","body","receipt","requests","headers"}` with exit code 0, or `{"error","requests"}` with exit code 1.

Spend controls are the package's defaults (1 dollar a payment in a known dollar token).
"""

import asyncio
import base64
import json
import os
import sys

import httpx
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact import ExactEvmClientScheme
from x402.mechanisms.evm.exact.v1.client import ExactEvmSchemeV1


class Counting(httpx.AsyncHTTPTransport):
    """Counts what really goes out, below the wrapper that pays."""

    requests = 0

    async def handle_async_request(self, request):
        Counting.requests += 1
        return await super().handle_async_request(request)


def paying_client():
    signer = EthAccountSigner(Account.from_key(os.environ["PRIVATE_KEY"]))
    client = x402Client()
    if os.environ.get("PAYMENT_VERSION") == "1":
        client.register_v1(os.environ.get("NETWORK_V1", "base-sepolia"), ExactEvmSchemeV1(signer))
    else:
        client.register("eip155:*", ExactEvmClientScheme(signer))
    return client


def receipt_of(headers):
    field = headers.get("payment-response") or headers.get("x-payment-response")
    if field is None:
        return None
    try:
        return json.loads(base64.b64decode(field))
    except ValueError:
        return field


async def pay(url):
    body = os.environ.get("BODY")
    method = os.environ.get("METHOD", "GET" if body is None else "POST")
    headers = {} if body is None else {"content-type": os.environ.get("CONTENT_TYPE", "application/json")}
    transport = x402AsyncTransport(paying_client(), Counting())
    # `trust_env`: no proxy and no .netrc between us and the server.
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=30) as client:
        answer = await client.request(method, url, headers=headers, content=body)
    return {
        "status": answer.status_code,
        "body": answer.text,
        "receipt": receipt_of(answer.headers),
        "headers": dict(answer.headers),
    }


def main():
    if len(sys.argv) != 2 or "PRIVATE_KEY" not in os.environ:
        print("usage: PRIVATE_KEY=0x… pay.py URL", file=sys.stderr)
        return 2
    try:
        line = asyncio.run(pay(sys.argv[1]))
    except Exception as error:
        print(json.dumps({"error": str(error) or repr(error), "requests": Counting.requests}))
        return 1
    print(json.dumps({**line, "requests": Counting.requests}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
