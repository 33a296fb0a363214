# shellcheck shell=bash
# Sourced by the launch scripts: makes a virtual environment if there is none, and activates it.
#
#   BERTJAX_VENV   folder of the environment (default .venv in the checkout)
#   PYTHON         interpreter that it is made with (default: the newest supported one found)

bertjax_python() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
        return
    fi
    local name
    for name in python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "bertjax: no Python 3.11, 3.12 or 3.13 found; set PYTHON to one" >&2
    return 2
}

# bertjax_environment REQUIREMENTS [PACKAGE ...]: install these and this checkout, unless that was done before.
# The stamp holds a checksum of all requirements, so a changed file is installed again.
bertjax_environment() {
    local root venv requirements python stamp wanted
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv=${BERTJAX_VENV:-$root/.venv}
    requirements=$root/$1
    stamp=$venv/.installed-$1
    shift
    wanted=$(cat "$root"/requirements*.txt "$root/pyproject.toml" | cksum)${*:+ $*}
    if [ ! -x "$venv/bin/python" ]; then
        python=$(bertjax_python) || return
        "$python" -m venv "$venv" || return
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        python -m pip install --quiet --disable-pip-version-check -r "$requirements" "$@" || return
        python -m pip install --quiet --disable-pip-version-check --no-deps -e "$root" || return
        echo "$wanted" > "$stamp"
    fi
}
