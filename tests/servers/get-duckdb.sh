#!/usr/bin/env bash
# A Python with DuckDB, which reads our Parquet files as a stranger would.
#   usage: get-duckdb.sh [DIR]     prints DIR; run DIR/bin/python
# Needs Python 3.9 or newer with venv and pip. 100 MB, seconds.
source "$(dirname "${BASH_SOURCE[0]}")/provide.sh"

VERSION=2.0.0
DIR=$(absolute "${1:-$SERVERS/duckdb-$VERSION}")

# The import is asked for, not a file: a venv stops working when its Python is upgraded away.
have() { [[ $("$DIR/bin/python" -c 'import duckdb; print(duckdb.__version__)' 2>/dev/null) == "$VERSION" ]]; }
done_if_present() { if have; then echo "$DIR"; exit 0; fi; }

done_if_present
need python3
python3 -c 'import ensurepip, venv' 2>/dev/null || missing "this python3 has no venv module (on Debian: python3-venv)"
lock "$DIR"
done_if_present
say "installing DuckDB $VERSION with pip"
rm -rf "$DIR"
mkdir -p "$DIR"
python3 -m venv "$DIR" >&2
"$DIR/bin/python" -m pip install --quiet --only-binary :all: "duckdb==$VERSION" >&2
have || { say "pip ended well, but duckdb $VERSION cannot be imported in dir=\`$DIR\`"; exit 1; }
echo "$DIR"
