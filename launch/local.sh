#!/usr/bin/env bash
# From an empty machine to a trained, evaluated BERT on its CPU, in about ten minutes on two cores.
#
#   bash launch/local.sh [--dotted.field VALUE ...]
#
# What is given is handed to `bertjax train tiny`. Started again, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/env.sh
bertjax_environment requirements.txt

run=${BERTJAX_RUN:-runs/tiny}
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}

bertjax prepare tiny
bertjax train tiny --run-dir "$run" "$@"
bertjax evaluate "$run"
bertjax fill-mask "$run" \
    "Return True [MASK] the object is a string." \
    "The function returns None [MASK] no value is found." \
    "Return the [MASK] of the given file."
echo
echo "checkpoints: $run/checkpoints"
echo "report:      $run/report.html"
