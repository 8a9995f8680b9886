#!/bin/sh
# measurement.json: what an owner's gate must expect of an executable, and of the image that it is in.
#
#   scripts/measurement.sh measure EXECUTABLE [NAME]         prints it for an executable
#   scripts/measurement.sh pin FILE IMAGE@sha256:DIGEST      writes a pushed image into it
set -eu

plain() {
    case $1 in
    *[!A-Za-z0-9._/:@-]*) echo "measurement: $1 has characters that no name here has" >&2; exit 64 ;;
    esac
}

write() {
    printf '{\n  "executable": "%s",\n  "sha256": "%s"' "$1" "$2"
    [ -z "${3:-}" ] || printf ',\n  "image": "%s",\n  "image_digest": "%s"' "$3" "$4"
    printf '\n}\n'
}

field() { sed -n "s/^ *\"$1\": \"\([^\"]*\)\".*/\1/p" "$2"; }

case ${1:-} in
measure)
    name=${3:-$(basename "$2")}
    plain "$name"
    sum=$(sha256sum <"$2")
    write "$name" "${sum%% *}"
    ;;
pin)
    plain "$3"
    digest=${3##*@sha256:}
    case $digest in
    *[!0-9a-f]* | '') echo "measurement: $3 does not end in @sha256: and a digest" >&2; exit 64 ;;
    esac
    [ ${#digest} = 64 ] || { echo "measurement: a SHA-256 digest has 64 digits" >&2; exit 64; }
    name=$(field executable "$2") sum=$(field sha256 "$2")
    [ ${#sum} = 64 ] || { echo "measurement: $2 is no measurement.json" >&2; exit 65; }
    write "$name" "$sum" "$3" "$digest" >"$2.new"
    mv "$2.new" "$2"
    ;;
*) echo "usage: $0 measure EXECUTABLE [NAME] | pin FILE IMAGE@sha256:DIGEST" >&2; exit 64 ;;
esac
