"""An MCP server that sells its tool `add` itself, with the official x402 package's wrapper for FastMCP: what a gateway's
answers are compared with. `echo` is free.

Environment: FACILITATOR_URL; optional NETWORK, PAY_TO, PRICE as for express.mjs. Streamable HTTP on a free port of
127.0.0.1; prints `{"url":"http://127.0.0.1:…/mcp"}` and ends when standard input closes or on SIGTERM.
"""

import asyncio
import json
import os
import socket
import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from x402 import x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.mcp.server import create_payment_wrapper
from x402.mechanisms.evm.exact import ExactEvmServerScheme
from x402.schemas import ResourceConfig, ResourceInfo

NETWORK = os.environ.get("NETWORK", "eip155:84532")
PAY_TO = os.environ.get("PAY_TO", "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC")


async def serve():
    facilitator = HTTPFacilitatorClient(FacilitatorConfig(url=os.environ["FACILITATOR_URL"]))
    shop = x402ResourceServer(facilitator).register(NETWORK, ExactEvmServerScheme())
    # The library asks the facilitator with a blocking call; nothing else runs yet.
    shop.initialize()
    offer = ResourceConfig(
        scheme="exact",
        network=NETWORK,
        pay_to=PAY_TO,
        price=os.environ.get("PRICE", "$0.01"),
        max_timeout_seconds=60,
    )
    resource = ResourceInfo(url="mcp://tool/add", description="Adds two numbers", mime_type="text/plain")
    paid = create_payment_wrapper(shop, accepts=shop.build_payment_requirements(offer), resource=resource)

    listener = socket.create_server(("127.0.0.1", 0))
    server = FastMCP("calculator", stateless_http=True, json_response=True, log_level="ERROR")

    @server.tool(name="add", description="Adds two numbers")
    @paid
    async def add(a: float, b: float) -> str:
        return f"{a + b:g}"

    @server.tool(name="echo", description="Says it again")
    async def echo(text: str) -> str:
        return text

    web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error", timeout_graceful_shutdown=1))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"}), flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    ended.add_done_callback(lambda _: setattr(web, "should_exit", True))
    await web.serve(sockets=[listener])


if __name__ == "__main__":
    if "FACILITATOR_URL" not in os.environ:
        print("mcp_shop.py: FACILITATOR_URL is not set", file=sys.stderr)
        sys.exit(2)
    asyncio.run(serve())
    # Whoever still reads standard input must not hold the process.
    os._exit(0)
