#!/usr/bin/env bash
# A consumer of Alertmanager's webhook that reads with Alertmanager's own types: the program in webhook-consumer/.
#   usage: get-webhook-consumer.sh [PATH]     prints PATH, an executable
# Needs Go 1.22 or newer. 20 MB, a minute of two cores the first time.
source "$(dirname "${BASH_SOURCE[0]}")/provide.sh"

SOURCE=$(absolute "$(dirname "${BASH_SOURCE[0]}")")/webhook-consumer
# Its version: checkouts that differ do not build over each other.
HASH=$(cd "$SOURCE" && cat go.mod go.sum main.go | sha256sum | cut -c 1-12)

OUT=$(absolute "${1:-$SERVERS/webhook-consumer-$HASH/webhook-consumer}")

# Built elsewhere and moved: what is there is whole. Of a PATH that was given the hash is not known.
have() { [[ -x $OUT && -f $OUT.source && $(<"$OUT.source") == "$HASH" ]]; }
done_if_present() { if have; then echo "$OUT"; exit 0; fi; }

done_if_present
need_go 22 "the webhook consumer"
lock "$OUT"
done_if_present
say "building the webhook consumer"
BUILD=$OUT.build
mkdir -p "$BUILD"
(
  cd "$SOURCE"
  quietly "$BUILD/go.log" go build -mod=readonly -trimpath -buildvcs=false -ldflags '-s -w' -o "$BUILD/webhook-consumer" .
)
mv -f "$BUILD/webhook-consumer" "$OUT"
rm -rf "$BUILD"
# Last, so that an interrupted build is never taken for a whole one.
echo "$HASH" >"$OUT.source"
have || { say "what was built is not in path=\`$OUT\`"; exit 1; }
echo "$OUT"
