#!/usr/bin/env bash
# A real InfluxDB 2 server (open source edition, without its web interface), built from
# the Go module proxy and the cargo registry, for tests without containers.
#   usage: get-influxd.sh [PATH]     prints PATH, an executable
# Needs Go 1.25.10 or newer, cargo and gcc. Eight minutes of two cores the first time.
#   JOBS (2)    jobs of the build
source "$(dirname "${BASH_SOURCE[0]}")/provide.sh"

MODULE=github.com/influxdata/influxdb/v2
VERSION=v2.9.1
# Of the module's zip, as go.sum would hold it. The same module's own go.sum pins Flux.
SUM='h1:lCCimWY/VpSmNyfOUm5WqKhZijlgJA8JHSD/+39XXuA='

OUT=$(absolute "${1:-$SERVERS/influxd-$VERSION/influxd}")
BUILD=$OUT.build
JOBS=${JOBS:-2}

have() { [[ -x $OUT && $("$OUT" version 2>/dev/null) == *"InfluxDB $VERSION "* ]]; }
done_if_present() { if have; then echo "$OUT"; exit 0; fi; }

done_if_present
need go cargo gcc
lock "$OUT"
done_if_present
say "building InfluxDB $VERSION, which takes some minutes"
mkdir -p "$BUILD/lib"

# module_field NAME : that field of what `go mod download -json` prints.
module_field() { sed -nE "s/^[[:space:]]*\"$1\": \"([^\"]*)\".*/\1/p"; }

# 1. The sources.
server_info=$(cd "$BUILD" && go mod download -json "$MODULE@$VERSION") || { say "$server_info"; exit 1; }
server_src=$(module_field Dir <<<"$server_info")
server_sum=$(module_field Sum <<<"$server_info")
[[ $server_sum == "$SUM" ]] || { say "checksum of $MODULE is not the pinned one: got=\`$server_sum\`"; exit 1; }
flux_info=$(cd "$server_src" && go mod download -json github.com/influxdata/flux) || { say "$flux_info"; exit 1; }
flux_src=$(module_field Dir <<<"$flux_info")

# 2. The half of Flux that is written in Rust, as a static library. Its toolchain file asks
#    for an old compiler and five targets; the one in use does. Its feature that turns
#    warnings into errors stays off: newer compilers warn about more.
if [[ ! -f $BUILD/lib/libflux.a ]]; then
  rm -rf "$BUILD/flux"
  mkdir -p "$BUILD/flux"
  cp -r "$flux_src/libflux" "$flux_src/stdlib" "$BUILD/flux/"
  chmod -R u+w "$BUILD/flux"
  if [[ -z ${RUSTUP_TOOLCHAIN:-} ]] && command -v rustup >/dev/null; then
    RUSTUP_TOOLCHAIN=$(cd / && rustup show active-toolchain | awk 'NR == 1 { print $1 }')
    export RUSTUP_TOOLCHAIN
  fi
  (
    cd "$BUILD/flux/libflux"
    export CARGO_TARGET_DIR=$BUILD/target CARGO_PROFILE_RELEASE_LTO=false RUSTFLAGS='--cap-lints warn'
    quietly "$BUILD/flux.log" cargo rustc --jobs "$JOBS" --locked --release --package flux --lib --crate-type staticlib \
      --no-default-features --features cffi
  )
  cp "$BUILD/target/release/libflux.a" "$BUILD/lib/libflux.a"
fi

# 3. The server. Its C bindings ask pkg-config for nothing but "flux", so a script can answer. Where the library is,
#    they are told by CGO_LDFLAGS: Go's build cache takes notice of that, and not of what pkg-config says, so that a
#    later build in another place would look for the library here.
cat >"$BUILD/pkg-config" <<SHIM
#!/bin/sh
case " \$* " in
  *" --cflags "*) echo "-I$BUILD/flux/libflux/include" ;;
  *" --libs "*) echo "-lflux -ldl -lpthread -lm" ;;
esac
SHIM
chmod +x "$BUILD/pkg-config"
(
  cd "$server_src"
  export PKG_CONFIG=$BUILD/pkg-config CGO_ENABLED=1 CGO_LDFLAGS="-O2 -g -L$BUILD/lib" GOFLAGS=-buildvcs=false
  quietly "$BUILD/server.log" go build -p "$JOBS" -trimpath -tags sqlite_foreign_keys,sqlite_json \
    -ldflags "-s -w -X main.version=$VERSION -X main.commit=registry" \
    -o "$BUILD/influxd" ./cmd/influxd
)
mv -f "$BUILD/influxd" "$OUT"
have || { say "what was built does not run: $("$OUT" version 2>&1 || true)"; exit 1; }
# Only now: an interrupted build goes on where it stopped.
rm -rf "$BUILD"
echo "$OUT"
