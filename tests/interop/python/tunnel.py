"""WebSockets through a gateway: server and client are PyPI's `websockets`, the gateway is between them. A handshake that has
a price is paid as in pay.py.

Prints the server's port, then reads a line of JSON from standard input:
  urls   where the gateway is, [["http://127.0.0.1:8402", "ws://…"], …]; below each, /socket is free and /paid/socket is not
  ca     whom TLS believes, a file
  agent  who pays, the value of Signature-Agent; key: its private Ed25519 key as JWK

One JSON line per tunnel on standard output, `{"url","compression","ok":true}`. Exit code 0 only if every step held.
"""

import json
import os
import queue
import ssl
import sys
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from pay import Agent, expect

PATIENCE = 20
MESSAGE_BYTES_MAX = 1 << 21
ended = queue.Queue()


def origin(socket):
    """Sends everything back; pings, and closes, when it is told to."""
    try:
        for message in socket:
            if message == "ping me":
                answered = socket.ping(b"from the server")
                socket.send("pong" if answered.wait(PATIENCE) else "no pong")
            elif isinstance(message, str) and message.startswith("close "):
                socket.close(int(message.split()[1]), "bye")
            else:
                socket.send(message)
    except ConnectionClosed:
        pass
    ended.put((socket.close_code, socket.close_reason))


def opened(url, compression, tls, headers=()):
    return connect(
        url, ssl=tls if url.startswith("wss:") else None, additional_headers=list(headers), compression=compression,
        subprotocols=["other", "chat"], max_size=MESSAGE_BYTES_MAX, open_timeout=PATIENCE, proxy=None,
    )


def paid_headers(http_url, url, compression, tls, agent):
    """The fields that pay for a handshake, and what a copy of it is told."""
    try:
        opened(url, compression, tls)
    except InvalidStatus as refused:
        answer = refused.response
    else:
        raise AssertionError("a handshake that has a price was served for nothing")
    expect(answer.status_code == 402, "no 402", status=answer.status_code)
    entry = next(one for one in json.loads(answer.body)["accepts"] if one["scheme"] == "deferred")
    offer = {"scheme": "deferred", "network": entry["network"], "id": entry["extras"]["id"]}
    signed = agent.signed(http_url, offer, "string").headers
    return [(name, signed[name]) for name in ("Payment", "Signature-Agent", "Signature-Input", "Signature")]


def talk(socket):
    expect(socket.subprotocol == "chat", "another subprotocol", seen=socket.subprotocol)
    binary = os.urandom(1 << 20)
    for message in ("Grüße aus dem Tunnel", "", bytes(range(256)), binary, "ä" * (1 << 19)):
        socket.send(message)
        expect(socket.recv(PATIENCE) == message, "another message came back", bytes=len(message))
    # In frames of their own, with a ping between them.
    parts = [binary[at:at + 100_000] for at in range(0, len(binary), 100_000)]
    pongs = []

    def fragments():
        for part in parts:
            pongs.append(socket.ping())
            yield part

    socket.send(fragments())
    expect(socket.recv(PATIENCE) == binary, "a message in fragments came back as another")
    expect(all(pong.wait(PATIENCE) for pong in pongs), "a ping was not answered")
    socket.send("ping me")
    expect(socket.recv(PATIENCE) == "pong", "the server's ping was not answered")


def closes(open_again):
    """From the server's side, the client's, and by a connection that breaks."""
    with open_again() as socket:
        socket.send("close 4001")
        try:
            socket.recv(PATIENCE)
        except ConnectionClosed as closed:
            seen = (closed.rcvd.code, closed.rcvd.reason)
        expect(seen == (4001, "bye"), "another close", seen=seen)
        expect(ended.get(timeout=PATIENCE) == (4001, "bye"), "the server saw another")
    with open_again() as socket:
        socket.close(4002, "enough")
        expect(socket.close_code == 4002, "another close", seen=socket.close_code)
        expect(ended.get(timeout=PATIENCE) == (4002, "enough"), "the server saw another")
    socket = open_again()
    # Without a close frame.
    socket.close_socket()
    expect(ended.get(timeout=PATIENCE)[0] == 1006, "the server missed the end")


def main():
    with serve(origin, "127.0.0.1", 0, subprotocols=["chat"], max_size=MESSAGE_BYTES_MAX) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.socket.getsockname()[1], flush=True)
        asked = json.loads(sys.stdin.readline())
        agent = Agent(asked["agent"], asked["key"])
        tls = ssl.create_default_context(cafile=asked["ca"])
        # A certificate that is its own authority is not as strict as an authority's.
        tls.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        for http_base, base in asked["urls"]:
            for compression in ("deflate", None):
                free = base + "/socket"
                with opened(free, compression, tls) as socket:
                    expect(bool(socket.protocol.extensions) == bool(compression), "another extension")
                    talk(socket)
                ended.get(timeout=PATIENCE)
                closes(lambda: opened(free, compression, tls))
                print(json.dumps({"url": free, "compression": compression, "ok": True}), flush=True)
                paid = base + "/paid/socket"
                headers = paid_headers(http_base + "/paid/socket", paid, compression, tls, agent)
                with opened(paid, compression, tls, headers) as socket:
                    expect("payment-response" in socket.response.headers, "no payment response")
                    talk(socket)
                ended.get(timeout=PATIENCE)
                try:
                    opened(paid, compression, tls, headers)
                except InvalidStatus as refused:
                    expect(refused.response.status_code == 402, "a copy", status=refused.response.status_code)
                else:
                    raise AssertionError("a copied handshake was served")
                print(json.dumps({"url": paid, "compression": compression, "ok": True}), flush=True)
        server.shutdown()


if __name__ == "__main__":
    main()
