#!/bin/sh
# Makes InfluxDB's tokens for the other containers, so that none of them needs the administrator's:
#
#   $TIDEMARK_TOKEN_FILE   reads and writes buckets of the organisation, and makes those that are missing
#   $GRAFANA_TOKEN_FILE    reads buckets
#
# Changes nothing when the files hold tokens that work. Needs curl and a POSIX shell.
set -eu
: "${INFLUX_URL:?}" "${INFLUX_ORG:?}" "${INFLUX_ADMIN_TOKEN:?}" "${TIDEMARK_TOKEN_FILE:?}" "${GRAFANA_TOKEN_FILE:?}"

# call TOKEN METHOD PATH [BODY]: the answer, or a failure. The token is no argument, which other processes could see.
call() {
  token=$1 method=$2 path=$3
  shift 3
  printf 'header = "Authorization: Token %s"\n' "$token" |
    curl --silent --show-error --fail --max-time 30 --config - --request "$method" \
      --header 'Content-Type: application/json' ${1:+--data "$1"} "$INFLUX_URL$path"
}

# field NAME: the first value of this name in the JSON that comes in.
field() {
  tr -d '\n' | sed -n "s/[^{]*//; s/.*[{,][[:space:]]*\"$1\":[[:space:]]*\"\([^\"]*\)\".*/\1/p"
}

# The organisation comes alone: every "id" in the answer is its own.
org=$(call "$INFLUX_ADMIN_TOKEN" GET "/api/v2/orgs?org=$INFLUX_ORG" | field id)
[ -n "$org" ] || { echo "tokens: there is no organisation $INFLUX_ORG" >&2; exit 1; }

# make_token FILE DESCRIPTION PERMISSIONS
make_token() {
  if [ -s "$1" ] && call "$(cat "$1")" GET "/api/v2/buckets?orgID=$org" >/dev/null 2>&1; then
    echo "tokens: $2 has one that works"
    return
  fi
  body="{\"orgID\":\"$org\",\"description\":\"$2\",\"permissions\":[$3]}"
  token=$(call "$INFLUX_ADMIN_TOKEN" POST /api/v2/authorizations "$body" | field token)
  [ -n "$token" ] || { echo "tokens: no token came for $2" >&2; exit 1; }
  # Each file is in a volume of its own, which one container sees; its user is not the one who writes here.
  umask 022
  printf '%s' "$token" >"$1.new"
  mv "$1.new" "$1"
  echo "tokens: made one for $2"
}

permission() { printf '{"action":"%s","resource":{"type":"%s","orgID":"%s"}}' "$1" "$2" "$org"; }
read_buckets=$(permission read buckets)
write_buckets=$(permission write buckets)
read_org="{\"action\":\"read\",\"resource\":{\"type\":\"orgs\",\"id\":\"$org\"}}"
make_token "$TIDEMARK_TOKEN_FILE" tidemark "$read_buckets,$write_buckets,$read_org"
make_token "$GRAFANA_TOKEN_FILE" grafana "$read_buckets,$read_org"
