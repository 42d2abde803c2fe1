#!/usr/bin/env bash
# Do the outside parts work with each other, with no gateway between them? Every official client pays an official shop
# through the official facilitator, and the tokens have moved afterwards.
#
#   selftest.sh [PYTHON]    PYTHON: interpreter with requirements.txt; without it the Python parts are left out
#
# Wants the packages of package.json next to it in node_modules (`npm ci --ignore-scripts`). Exit code 0 if all held.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2
python=${1:-}
work=$(mktemp -d) || exit 2

# What is started here ends when this fifo has no writer any more, however this script ends.
mkfifo "$work/alive" && exec 9<>"$work/alive" || exit 2
started=()
# shellcheck disable=SC2317 # the trap calls it
finish() {
    exec 9>&-
    ((${#started[@]} == 0)) || wait "${started[@]}" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

failed=0
verdict() { # 0|1 TEXT
    if (($1 == 0)); then printf 'ok      %s\n' "$2"; else printf 'FAILED  %s\n' "$2"; failed=1; fi
}

# member FILE EXPRESSION: of the JSON object `it` in the file's first line
member() {
    node -e 'const it = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8").split("\n")[0]);
        console.log(eval(process.argv[2]) ?? "")' "$1" "$2"
}

# start NAME COMMAND…: a server; returns when it has printed its line
start() {
    local name=$1 tries
    shift
    : >"$work/$name"
    "$@" <"$work/alive" 9>&- >"$work/$name" 2>"$work/$name.err" &
    started+=("$!")
    for ((tries = 0; tries < 600; tries++)); do
        [[ $(head -c 1 "$work/$name") != '{' ]] || return 0
        kill -0 "$!" 2>/dev/null || break
        sleep 0.1
    done
    verdict 1 "$name did not start"
    cat "$work/$name.err" >&2
    exit 1
}

payments=0 due=0 amount=10000
# pays NAME EXPRESSION COMMAND…: the client pays, and the expression holds for its line `it`
pays() {
    local name=$1 expression=$2 held
    shift 2
    timeout 60 "$@" </dev/null >"$work/out" 2>"$work/err" 9>&-
    held=$(member "$work/out" "$expression" 2>>"$work/err")
    [[ $held == true ]]
    verdict $? "$name"
    payments=$((payments + 1)) due=$((due + amount))
    [[ $held == true ]] || cat "$work/out" "$work/err"
}

start facilitator node facilitator.mjs
FACILITATOR_URL=$(member "$work/facilitator" it.facilitator)
PRIVATE_KEY=$(member "$work/facilitator" it.payer.privateKey)
export FACILITATOR_URL PRIVATE_KEY
start shop node express.mjs
start shop-v1 node v1-express.mjs
shop=$(member "$work/shop" it.paid)
url=$(member "$work/shop" it.url)
old=$(member "$work/shop-v1" it.paid)
balances() { node -e 'fetch(process.argv[1]).then((a) => a.text()).then(console.log)' "$FACILITATOR_URL/balances"; }
balances >"$work/before"

paid='it.status === 200 && it.requests === 2 && it.receipt.success && it.receipt.transaction.length === 66'
v1=(env PAYMENT_VERSION=1)
pays '@x402/fetch, version 2' "$paid && it.body === 'the page\n'" node fetch.mjs "$shop"
pays '@x402/fetch, version 2, POST with a body' "$paid && it.body === 'hello'" env BODY=hello node fetch.mjs "$url/paid/echo"
pays '@x402/fetch, version 2, Permit2' "$paid" node fetch.mjs "$url/paid/permit2"
amount=4000
pays '@x402/fetch, version 2, upto' "$paid && it.receipt.amount === '4000'" node fetch.mjs "$url/paid/upto"
amount=10000
pays '@x402/axios, version 2' "$paid" node axios.mjs "$shop"
pays '@x402/fetch, version 1' "$paid" "${v1[@]}" node fetch.mjs "$old"
pays '@x402/axios, version 1' "$paid" "${v1[@]}" node axios.mjs "$old"
pays 'x402-fetch, version 1' "$paid" node v1-fetch.mjs "$old"
if [[ -n $python ]]; then
    start mcp-shop "$python" mcp_shop.py
    mcp=$(member "$work/mcp-shop" it.url)
    pays 'x402 for Python, version 2' "$paid" "$python" pay.py "$shop"
    pays 'x402 for Python, version 1' "$paid" "${v1[@]}" "$python" pay.py "$old"
    result='it.paid && it.receipt.success && it.result.content[0].text === "5"'
    pays 'MCP SDK and @x402/core, a tool call' "$result" node mcp_client.mjs "$mcp"
    pays 'MCP SDK and x402 for Python, a tool call' "$result" "$python" mcp_client.py "$mcp"
fi

balances >"$work/after"
payer=$(($(member "$work/before" it.payer) - $(member "$work/after" it.payer)))
payee=$(($(member "$work/after" it.payTo) - $(member "$work/before" it.payTo)))
settled=$(member "$work/after" it.settled)
((payer == due && payee == due && settled == payments))
verdict $? "$payments payments, $settled settled: payer -$payer, payee +$payee atomic units"

start mcp-server node mcp_server.mjs
mcp=$(member "$work/mcp-server" it.url)
free=('it.paid === false && it.result.content[0].text === "x"' env TOOL=echo 'ARGUMENTS={"text":"x"}')
pays 'MCP SDK, a free tool' "${free[@]}" node mcp_client.mjs "$mcp"
[[ -z $python ]] || pays 'MCP SDK for Python, a free tool' "${free[@]}" "$python" mcp_client.py "$mcp"
exit "$failed"
