# Sourced by the get-*.sh scripts. Each of them provides one real server or tool
# for the tests, from a package registry's ordinary client, and promises:
#   - nothing is written outside the target, its lock, and the client's own cache;
#   - several processes may ask for the same thing at once: one builds, the others wait;
#   - what is complete and of the right version is left alone, within milliseconds;
#   - the path of what was asked for is the only line on standard output;
#   - exit status 3: this machine lacks a tool, so a test may skip. Anything else is a failure.
set -euo pipefail

SERVERS=${XDG_CACHE_HOME:-$HOME/.cache}/tidemark/servers

say() { echo "${0##*/}: $*" >&2; }

missing() { say "$*"; exit 3; }

# need TOOL... : every one of them is on the path.
need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || missing "\`$tool\` is not installed, which this needs: $*"
  done
}

# need_go MINOR WHAT : Go 1.MINOR or newer, which WHAT needs. An older one says so less clearly, and as a failure.
need_go() {
  local version minor
  need go
  version=$(GOTOOLCHAIN=local go env GOVERSION)
  minor=$(sed -nE 's/^go1\.([0-9]+).*/\1/p' <<<"$version")
  [[ ${minor:-0} -ge $1 ]] || missing "$2 needs Go 1.$1, and this one is version=\`$version\`"
}

absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }

# lock PATH : held until the script ends. The file stays: removing it would let
# two processes hold locks on two files of the same name.
lock() {
  mkdir -p "$(dirname "$1")"
  exec 9>"$1.lock"
  flock 9
}

# quietly LOG COMMAND... : the command's output goes to a file, and its end is shown when the command fails.
quietly() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; say "failed: $*"; exit 1; }
}
