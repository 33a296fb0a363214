#!/usr/bin/env bash
# Lint, type check and tests, in an environment that is made if there is none.
#
#   bash launch/test.sh [--slow] [PYTEST OPTION ...]      everything, on one Python
#   bash launch/test.sh --all-pythons                     the quick tests, on each supported Python of this machine
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/env.sh

quick_part() {
    local version python tried=0
    for version in 3.11 3.12 3.13; do
        python=$(command -v "python$version" || true)
        if [ -z "$python" ] || ! "$python" -c '' 2>/dev/null; then
            # pyenv keeps interpreters that are not on PATH.
            python=
            for found in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
                [ -x "$found" ] && python=$found
            done
        fi
        if [ -z "$python" ]; then
            echo "Python $version: not on this machine"
            continue
        fi
        tried=$((tried + 1))
        (
            export PYTHON=$python BERTJAX_VENV=$PWD/.venv-$version
            bertjax_environment requirements-test.txt
            echo "Python $version: $(python -c 'import jax, flax; print("jax", jax.__version__, "flax", flax.__version__)')"
            python -m pytest -q -m quick
        )
    done
    [ "$tried" -gt 0 ]
}

if [ "${1:-}" = --all-pythons ]; then
    quick_part
    exit
fi
bertjax_environment requirements-dev.txt
ruff check
ruff format --check
mypy
# Two at a time, since most of a test's time is XLA compiling on one core. In the order of the folders: the file
# that takes longest is in the first one.
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
