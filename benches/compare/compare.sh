#!/usr/bin/env bash
# Tollgate beside nginx on this machine: CPU per request, rate, memory. `compare.sh --help` has the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
for tool in python3 nginx wrk; do
    command -v "$tool" >/dev/null && continue
    echo "compare: $tool is missing: apt-get install nginx-light wrk python3" >&2
    exit 2
done
export TOLLGATE=${TOLLGATE:-$here/../../target/release/tollgate}
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/compare.py" "$@"
