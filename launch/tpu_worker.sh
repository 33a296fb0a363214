#!/usr/bin/env bash
# The part of launch/tpu.sh that runs on each worker of a slice. It lies in ~/bertjax there, with the files that it
# makes.
#
#   install             unpack the code that was sent, and install Python and the packages
#   start N WORD ...    run `bertjax WORD ...` as attempt N, detached from the connection
#   state N             print one line: ID running | ID exit STATUS | ID gone
#   log N FIRST         print the log's lines from number FIRST on, numbered
#   report N ID ...     print the end of the log, if this is worker ID
#   stop N SECONDS      send SIGTERM, on which bertjax saves, and SIGKILL if it still runs after SECONDS
#
# gcloud repeats a command when its connection drops, so each of these can be repeated. None ends with status 255,
# which means a dropped connection to ssh.
set -euo pipefail
cd "$(dirname "$0")"
export PATH="$HOME/.local/bin:$PATH"
me=$(cat worker)

make_environment() {
    rm -rf code attempts
    tar -xzf code.tar.gz
    # The images bring Python 3.10; uv brings its own.
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    [ -x venv/bin/python ] || uv venv --python 3.12 venv
    uv pip install --python venv/bin/python -e './code[data,gs]' 'jax[tpu]'
}

install() {
    free_tpu
    # A process of its own, since `set -e` has no effect inside a condition.
    if ! bash ./tpu_worker.sh make_environment > install.log 2>&1; then
        show_end install.log
        echo "[worker $me] install failed"
        return 1
    fi
    echo "$me installed"
}

# free_tpu: end what an earlier attempt left and would keep the chips: its processes first, then libtpu's lock.
free_tpu() {
    local file
    for file in attempts/*/pid; do
        [ ! -f "$file" ] || kill -KILL -- "-$(cat "$file")" 2>/dev/null || true
    done
    local lock=${LIBTPU_LOCKFILE:-/tmp/libtpu_lockfile}
    rm -f "$lock" 2>/dev/null || sudo -n rm -f "$lock"
}

start() {
    mkdir -p attempts
    mkdir "attempts/$1" 2>/dev/null || return 0 # the command was repeated: the attempt runs already
    free_tpu
    setsid nohup bash ./tpu_worker.sh run "$@" > "attempts/$1/log" 2>&1 < /dev/null &
    local tries=0
    until [ -s "attempts/$1/pid" ] || [ "$tries" -ge 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

# run N WORD ...: the process that `start` detaches; it leaves the exit status in a file.
run() {
    local attempt=$PWD/attempts/$1 status=0
    shift
    echo $$ > "$attempt/pid"
    trap : TERM INT # bertjax gets the signal too and ends; this shell stays to note its exit status
    cd code
    # 8482, the port that JAX would take, is closed by Google Cloud's own firewall rules; 8476 is open.
    # On another slice than before, the lock of a killed run expires within a minute.
    BERTJAX_DISTRIBUTED=1 BERTJAX_LOCK_SECONDS=120 JAX_COORDINATOR_PORT=8476 ../venv/bin/bertjax "$@" || status=$?
    echo "$status" > "$attempt/status.part"
    mv "$attempt/status.part" "$attempt/status"
}

alive() { kill -0 -- "-$(cat "attempts/$1/pid" 2>/dev/null)" 2>/dev/null; }

state() {
    local status=attempts/$1/status
    if [ ! -s "$status" ] && alive "$1"; then
        echo "$me running"
    elif [ -s "$status" ]; then
        echo "$me exit $(cat "$status")"
    else
        echo "$me gone"
    fi
}

log() {
    local log=attempts/$1/log ended=0
    [ ! -s "attempts/$1/status" ] || ended=1
    [ -f "$log" ] || return 0
    # A line that is still being written is left for the next call.
    awk -v first="$2" -v lines="$(($(wc -l < "$log") + ended))" 'NR > lines { exit } NR >= first { print NR, $0 }' "$log"
}

show_end() {
    local text
    text=$(tail -n 20 "$1" | sed "s|^|[worker $me] |")
    echo "$text" # in one piece, since all workers write to one stream
}

report() {
    local attempt=$1 id
    shift
    for id in "$@"; do
        [ "$id" != "$me" ] || show_end "attempts/$attempt/log"
    done
}

stop() {
    local tenths=$(($2 * 10))
    kill -TERM -- "-$(cat "attempts/$1/pid")" 2>/dev/null || true
    until [ -s "attempts/$1/status" ] || ! alive "$1" || [ "$tenths" -le 0 ]; do
        sleep 0.1
        tenths=$((tenths - 1))
    done
    state "$1"
    kill -KILL -- "-$(cat "attempts/$1/pid")" 2>/dev/null || true
}

"$@"
