#!/usr/bin/env bash
# A real Prometheus Alertmanager, built from the Go module proxy, for tests without containers.
#   usage: get-alertmanager.sh [PATH]     prints PATH, an executable
# Needs Go 1.22 or newer. 30 MB, a minute of two cores the first time.
source "$(dirname "${BASH_SOURCE[0]}")/provide.sh"

MODULE=github.com/prometheus/alertmanager
VERSION=v0.28.1
# Of the module's zip, as go.sum would hold it. The module's own go.sum pins the rest.
SUM='h1:BK5pCoAtaKg01BYRUJhEDV1tqJMEtYBGzPw8QdvnnvA='

OUT=$(absolute "${1:-$SERVERS/alertmanager-$VERSION/alertmanager}")
BUILD=$OUT.build

have() { [[ -x $OUT && $("$OUT" --version 2>/dev/null) == *"version ${VERSION#v} "* ]]; }
done_if_present() { if have; then echo "$OUT"; exit 0; fi; }

done_if_present
need_go 22 "Alertmanager $VERSION"
lock "$OUT"
done_if_present
say "building Alertmanager $VERSION"
mkdir -p "$BUILD"

info=$(cd "$BUILD" && go mod download -json "$MODULE@$VERSION") || { say "$info"; exit 1; }
sum=$(sed -nE 's/^[[:space:]]*"Sum": "([^"]*)".*/\1/p' <<<"$info")
[[ $sum == "$SUM" ]] || { say "checksum of $MODULE is not the pinned one: got=\`$sum\`"; exit 1; }
# Without a version the program would not tell its own, which is asked for above.
(
  cd "$BUILD"
  export GOBIN=$BUILD/bin
  quietly "$BUILD/go.log" go install -trimpath \
    -ldflags "-s -w -X github.com/prometheus/common/version.Version=${VERSION#v}" "$MODULE/cmd/alertmanager@$VERSION"
)
mv -f "$BUILD/bin/alertmanager" "$OUT"
have || { say "what was built does not run: $("$OUT" --version 2>&1 || true)"; exit 1; }
rm -rf "$BUILD"
echo "$OUT"
