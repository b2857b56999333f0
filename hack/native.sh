#!/usr/bin/env bash
# Compiles what the model server counts rows with: hack/native.sh PYTHON TARGET
# The compiler is a pinned Python package, so that every machine and image builder has the same one; with its 400 MB it
# is not kept.
set -euo pipefail
python=$1 target=$2
root=$(cd "$(dirname "$0")/.." && pwd)
compiler=$(mktemp -d)
trap 'rm -rf "$compiler"' EXIT

"$python" -m pip install --quiet --disable-pip-version-check --no-compile --target "$compiler" \
    --no-deps --require-hashes --only-binary :all: -r "$root/requirements/compiler.txt"
# For the architecture as such: the code asks at run time what more the processor can do.
PYTHONPATH=$compiler ZIG_GLOBAL_CACHE_DIR=$compiler/cache ZIG_LOCAL_CACHE_DIR=$compiler/cache \
    "$python" -m ziglang cc -mcpu=baseline -O3 -Wall -Wextra -Werror -fPIC -shared -nostdlib -s \
    -o "$target" "$root/model_server/kedge_server/counting.c"
