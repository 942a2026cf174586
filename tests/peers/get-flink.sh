#!/usr/bin/env bash
# Apache Flink from its Python package, and the Kafka connector of its SQL: what tests/peers/flink_sql.py runs on.
#   usage: get-flink.sh [DIR]     prints DIR; run DIR/venv/bin/python, with DIR/flink-sql-connector-kafka.jar
#                                 DIR/complete tells the versions
# Needs Java 11 or newer, Maven, and a Python from 3.9 to 3.12 with venv and pip. 1 GB, some minutes the first time.
source "$(dirname "${BASH_SOURCE[0]}")/../servers/provide.sh"

VERSION=2.2.1
# The part after the dash is the line of Flink that the connector is made for.
CONNECTOR=5.0.0-2.2
# Its goals' options differ between versions, and Maven would take whichever it finds first.
COPY=org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy

DIR=$(absolute "${1:-$SERVERS/flink-$VERSION}")
JAR=flink-sql-connector-kafka
VERSIONS="$VERSION, Kafka connector $CONNECTOR"

# The import is asked for as well: a venv stops working when its Python is upgraded away.
have() {
  [[ -f $DIR/complete && $(<"$DIR/complete") == "$VERSIONS" && -f $DIR/$JAR.jar ]] &&
    [[ $("$DIR/venv/bin/python" -c 'import pyflink.version as flink; print(flink.__version__)' 2>/dev/null) == "$VERSION" ]]
}
done_if_present() { if have; then echo "$DIR"; exit 0; fi; }

# Flink has wheels for these Pythons only; anything else would compile half of its dependencies, or fail to.
find_python() {
  local python
  for python in python3 python3.12 python3.11 python3.10 python3.9; do
    "$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 9) <= sys.version_info < (3, 13))' 2>/dev/null || continue
    echo "$python"
    return
  done
}

# Also when all is there: without Java it is of no use.
need java
done_if_present
need mvn
java_version=$(java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
[[ ${java_version:-0} -ge 11 ]] || missing "Flink $VERSION needs Java 11, and this one is version=\`${java_version:-unknown}\`"
python=$(find_python)
[[ -n $python ]] || missing "there is no Python from 3.9 to 3.12 with its venv module (on Debian: python3-venv)"

lock "$DIR"
done_if_present
say "installing Flink $VERSION with pip"
rm -rf "$DIR"
mkdir -p "$DIR"
"$python" -m venv "$DIR/venv" >&2
quietly "$DIR/pip.log" "$DIR/venv/bin/python" -m pip install "apache-flink==$VERSION" "apache-flink-libraries==$VERSION"
say "fetching its Kafka connector $CONNECTOR with Maven"
quietly "$DIR/maven.log" mvn -B "$COPY" -Dartifact="org.apache.flink:$JAR:$CONNECTOR" \
  -DoutputDirectory="$DIR" -Dmdep.stripVersion=true
# Last, so that an interrupted installation is never taken for a whole one.
echo "$VERSIONS" >"$DIR/complete"
have || { say "pip and Maven ended well, but Flink $VERSIONS is not in dir=\`$DIR\`"; exit 1; }
echo "$DIR"
