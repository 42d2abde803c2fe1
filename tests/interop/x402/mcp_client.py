"""Calls an MCP tool and pays for it: the official MCP SDK, and the official x402 package's session around it.

argv[1] is the server's URL (Streamable HTTP); environment: PRIVATE_KEY, optional TOOL (default add), ARGUMENTS (JSON,
default {"a": 2, "b": 3}). One JSON line `{"result","receipt","paid","tools"}` with exit code 0, or `{"error"}` with
exit code 1. `result` is the tool's result as the SDK read it, `paid` whether the wrapper paid.
"""

import asyncio
import json
import os
import sys

from eth_account import Account
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from x402 import x402Client
from x402.mcp.client import x402MCPSession
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact import ExactEvmClientScheme


def plain(value):
    return value.model_dump(by_alias=True, exclude_none=True, mode="json") if hasattr(value, "model_dump") else value


async def pay(url):
    payer = x402Client()
    payer.register("eip155:*", ExactEvmClientScheme(EthAccountSigner(Account.from_key(os.environ["PRIVATE_KEY"]))))
    async with streamablehttp_client(url) as (reader, writer, _), ClientSession(reader, writer) as session:
        paying = x402MCPSession(session, payer)
        await paying.initialize()
        tools = [tool.name for tool in (await paying.list_tools()).tools]
        arguments = json.loads(os.environ.get("ARGUMENTS", '{"a": 2, "b": 3}'))
        outcome = await paying.call_tool(os.environ.get("TOOL", "add"), arguments)
    return {
        "result": plain(outcome.raw_result),
        "receipt": plain(outcome.payment_response),
        "paid": outcome.payment_made,
        "tools": tools,
    }


def main():
    if len(sys.argv) != 2 or "PRIVATE_KEY" not in os.environ:
        print("usage: PRIVATE_KEY=0x… mcp_client.py URL", file=sys.stderr)
        return 2
    try:
        line = asyncio.run(pay(sys.argv[1]))
    except BaseException as error:
        # A task group hides the cause in itself.
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(json.dumps({"error": str(error) or repr(error)}))
        return 1
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
