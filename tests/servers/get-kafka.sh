#!/usr/bin/env bash
# The jars of a real Apache Kafka, broker and tools, for tests without containers.
#   usage: get-kafka.sh [DIR]     prints DIR; start with: java -cp "DIR/libs/*" kafka.Kafka …
# Needs Maven and a Java of at least 17. 54 MB, half a minute the first time.
source "$(dirname "${BASH_SOURCE[0]}")/provide.sh"

POM=$(absolute "$(dirname "${BASH_SOURCE[0]}")")/kafka/pom.xml
VERSION=$(sed -nE 's|.*<kafka.version>(.*)</kafka.version>.*|\1|p' "$POM")
DIR=$(absolute "${1:-$SERVERS/kafka-$VERSION}")

have() { [[ -f $DIR/complete && $(<"$DIR/complete") == "$VERSION" && -f $DIR/libs/kafka_2.13-$VERSION.jar ]]; }
done_if_present() { if have; then echo "$DIR"; exit 0; fi; }

# Also when the jars are there: without Java they are of no use.
need java
done_if_present
need mvn
java_version=$(java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
[[ ${java_version:-0} -ge 17 ]] || missing "Kafka $VERSION needs Java 17, and this one is version=\`${java_version:-unknown}\`"

lock "$DIR"
done_if_present
say "fetching Kafka $VERSION with Maven"
rm -rf "$DIR"
mkdir -p "$DIR"
mvn -q -B -f "$POM" dependency:copy-dependencies -DoutputDirectory="$DIR/libs" >&2
# Last, so that an interrupted copy is never taken for a whole one.
echo "$VERSION" >"$DIR/complete"
have || { say "Maven ended well, but kafka_2.13-$VERSION.jar is not in dir=\`$DIR/libs\`"; exit 1; }
echo "$DIR"
