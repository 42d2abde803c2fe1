"""Pays a gateway as a stranger would: the signature comes from `http-message-signatures`, structured fields from
`http-sf`, HTTP from `requests`. Nothing here is shared with the gateway.

Environment:
  GATEWAY_URL  the priced page, http://127.0.0.1:8402/priced
  AGENT_URL    who pays, the value of Signature-Agent, http://127.0.0.1:9000
  KEY_FILE     private Ed25519 key as JWK; its public half is in AGENT_URL's key directory
  FORMS        which forms to try, default "string,dictionary"; also "bare", which covers no more than the payment and
               the agent, as the proposal prints it

One JSON line per step on standard output, `{"client","form","step","ok",…}`. Exit code 0 only if every step held.
"""

import base64
import datetime
import hashlib
import json
import os
import re
import sys
import time

import http_sf
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver, algorithms

LABEL = "sig1"
REQUEST = ("@authority", "@method", "@path", "payment")

# Form: value of Signature-Agent over the wire, covered components, whether `alg` is among the parameters.
FORMS = {
    "string": ('"{agent}"', (*REQUEST, "signature-agent"), True),
    "dictionary": (LABEL + '="{agent}"', (*REQUEST, f'"signature-agent";key="{LABEL}"'), False),
    "bare": ('"{agent}"', ("payment", "signature-agent"), False),
}


class Unmet(Exception):
    def __init__(self, message, **seen):
        super().__init__(message)
        self.seen = seen


def expect(holds, message, **seen):
    if not holds:
        raise Unmet(message, **seen)


class Agent:
    def __init__(self, url, jwk):
        def unpadded(text):
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

        members = {name: jwk[name] for name in ("crv", "kty", "x")}
        canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
        digest = hashlib.sha256(canonical).digest()
        self.url = url
        self.key_id = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        key = Ed25519PrivateKey.from_private_bytes(unpadded(jwk["d"]))
        self.signer = HTTPMessageSigner(
            signature_algorithm=algorithms.ED25519,
            key_resolver=MappingKeyResolver(public_keys={}, private_keys={self.key_id: key}),
        )
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy and no .netrc between us and the gateway

    def send(self, request):
        return self.session.send(request, timeout=15, allow_redirects=False)

    def get(self, url):
        return self.send(self.session.prepare_request(requests.Request("GET", url)))

    def signed(self, url, offer, form):
        agent_field, covered, include_alg = FORMS[form]
        headers = {
            "Payment": http_sf.ser(offer),
            "Signature-Agent": agent_field.format(agent=self.url),
        }
        request = self.session.prepare_request(requests.Request("GET", url, headers=headers))
        created = datetime.datetime.now(datetime.timezone.utc)
        self.signer.sign(
            request,
            key_id=self.key_id,
            created=created,
            expires=created + datetime.timedelta(minutes=5),
            nonce=base64.b64encode(os.urandom(32)).decode(),
            label=LABEL,
            tag="web-bot-auth",
            include_alg=include_alg,
            covered_component_ids=covered,
        )
        return request


def offer_of(answer):
    """The first `deferred` entry of a 402's `accepts`."""
    seen = {"status": answer.status_code, "body": answer.text[:2000]}
    expect(answer.status_code == 402, "no 402", **seen)
    content_type = answer.headers.get("content-type", "")
    expect(content_type.startswith("application/json"), "offer is not application/json", **seen)
    entry = next((one for one in answer.json().get("accepts", []) if one.get("scheme") == "deferred"), None)
    expect(entry is not None, "no deferred offer", **seen)
    offer = {"scheme": "deferred", "network": entry.get("network"), "id": entry.get("extras", {}).get("id")}
    expect(isinstance(offer["network"], str) and offer["network"] != "", "no network", **seen)
    expect(isinstance(offer["id"], str), "no extras.id", **seen)
    expect(re.fullmatch(r"[A-Za-z0-9_-]{1,256}", offer["id"]), "id has characters outside A-Za-z0-9_-", **seen)
    return offer


def receipt_of(answer, offer):
    field = answer.headers.get("payment-response")
    seen = {"status": answer.status_code, "payment_response": field, "body": answer.text[:2000]}
    expect(answer.status_code == 200, "no 200", **seen)
    expect(field is not None, "no Payment-Response", **seen)
    receipt = {key: value for key, (value, _) in http_sf.parse(field.encode(), tltype="dictionary").items()}
    for key in ("scheme", "network", "id"):
        expect(receipt.get(key) == offer[key], f"Payment-Response has another {key}", **seen)
    expect(type(receipt.get("timestamp")) is int, "Payment-Response has no integer timestamp", **seen)
    expect(abs(receipt["timestamp"] - time.time()) < 300, "timestamp is far from now", **seen)
    return receipt


def refusal_of(answer, code, offer):
    fresh = offer_of(answer)
    seen = {"status": answer.status_code, "body": answer.text[:2000]}
    expect(re.split(r"[:\s]", str(answer.json().get("error")))[0] == code, f"error is not {code}", **seen)
    expect(fresh["id"] != offer["id"], "the refusal offers the used id again", **seen)
    expect("payment-response" not in answer.headers, "a refusal with a payment response", **seen)
    return {"error": code, "id": fresh["id"]}


def pay(agent, url, form):
    def step(label, run):
        line = {"client": "python", "form": form, "step": label}
        try:
            seen = run()
        except Unmet as unmet:
            print(json.dumps({**line, "ok": False, "message": str(unmet), **unmet.seen}), flush=True)
            raise
        except Exception as error:
            print(json.dumps({**line, "ok": False, "message": repr(error)}), flush=True)
            raise
        print(json.dumps({**line, "ok": True, **seen}), flush=True)
        return seen

    offer = step("offer", lambda: offer_of(agent.get(url)))
    request = agent.signed(url, offer, form)
    step("paid", lambda: receipt_of(agent.send(request), offer))
    step("replay", lambda: refusal_of(agent.send(request), "already_used", offer))


def main():
    missing = [name for name in ("GATEWAY_URL", "AGENT_URL", "KEY_FILE") if name not in os.environ]
    forms = os.environ.get("FORMS", "string,dictionary").split(",")
    if missing or not set(forms) <= FORMS.keys():
        print(f"pay.py: not set: {missing}; forms: {forms} of {list(FORMS)}", file=sys.stderr)
        return 2
    with open(os.environ["KEY_FILE"], encoding="utf-8") as file:
        agent = Agent(os.environ["AGENT_URL"], json.load(file))
    failed = False
    for form in forms:
        try:
            pay(agent, os.environ["GATEWAY_URL"], form)
        except Exception as error:
            failed = True
            if not isinstance(error, Unmet):
                print(f"pay.py: {form}: {error!r}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
