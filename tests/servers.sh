#!/usr/bin/env bash
# Provides every real server and tool of the tests, one after the other, and tells which there are.
# A machine that lacks what one of them is made from is told so, and goes without it. Anything else that goes
# wrong is a failure.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/servers" || exit 1
status=0
for script in get-*.sh; do
  started=$SECONDS
  path=$(bash "./$script" </dev/null)
  case $? in
    0) echo "$script: $path ($((SECONDS - started)) s)" ;;
    3) echo "$script: not on this machine; tests that need it are skipped" ;;
    *) echo "$script: failed"; status=1 ;;
  esac
done
exit "$status"
