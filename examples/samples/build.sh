#!/bin/sh
# Builds the sample actors: all, or those that are named.
#
#   examples/samples/build.sh [SAMPLE …]     uses $ABAX (default: abax on the PATH)
set -eu
cd "$(dirname "$0")"
ABAX=${ABAX:-abax}
CLIENTS=abacosamples/clients
[ $# -gt 0 ] || set -- echo sleep_loop wc sum_reducer py3_func binary_classifier

base=$(sh ../base/python.sh)
for sample in "$@"; do
    case $sample in
    binary_classifier)
        # The model's image, and in it the library that reads the message.
        "$ABAX" build --build-arg "BASE=$base" -t classifier ../classifier
        "$ABAX" build --build-arg BASE=classifier -t "$CLIENTS:classifier" clients
        from=$CLIENTS:classifier
        ;;
    *)
        "$ABAX" build --build-arg "BASE=$base" -t "$CLIENTS" clients
        from=$CLIENTS
        ;;
    esac
    "$ABAX" build --build-arg "BASE=$from" -t "abacosamples/$sample" "$sample"
done
