#!/usr/bin/env bash
# Makes the development environment: hack/venv.sh PYTHON FOLDER
set -euo pipefail
python=$1 folder=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Kedge needs Python 3.11 or newer as '$python'; name another one with: make PYTHON=python3.12 ..." >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "This Python has no venv module; install it first (Debian: apt-get install python3-venv)" >&2
        exit 2
    fi
    echo "installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
fi
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
echo "installing the pinned Python packages into $folder"
# The file names the whole closure. Resolving it again would fail on the day that a newer release of a package appears
# which another one asks for with an extra: pip takes that extra for a requirement without a pin.
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
problems=$("$folder/bin/pip" check --disable-pip-version-check) || { echo "$problems" >&2; exit 1; }
