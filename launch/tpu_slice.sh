# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by launch/tpu.sh: every call to gcloud, in the syntax of its general release (no alpha).

child=
say() { echo "tpu.sh $(date +%T): $*" || true; } # the terminal may be gone; the slice must be deleted even so

# interruptible COMMAND ...: run it in a process group of its own. bash runs a trap only between commands, but
# `wait` returns at once.
interruptible() {
    local status=0
    set -m
    "$@" < /dev/null &
    child=$!
    set +m
    wait "$child" || status=$?
    child=
    return "$status"
}

pause() { interruptible sleep "${BERTJAX_POLL_SECONDS:-20}"; }

show() { echo "gcloud compute tpus$(printf ' %q' "$@")"; }

# cloud WORD ...: `gcloud compute tpus WORD ...`; its stderr goes to a file, to be shown if it fails.
cloud() {
    local chatter=${chatter:-$work/chatter}
    if [ "$dry_run" = yes ]; then
        show "$@" >&3
        return 0
    fi
    interruptible gcloud compute tpus "$@" 2> "$chatter"
}

# cloud_or_tell WORD ...: `cloud`, showing the stderr if it fails.
cloud_or_tell() {
    cloud "$@" && return 0
    local status=$?
    tail -n 20 "$work/chatter" >&2
    return "$status"
}

request_slice() {
    local options=(--zone="$zone" --accelerator-type="$accelerator" --runtime-version="$runtime")
    if [ "$slices" = 1 ]; then
        options+=(--node-id="$name")
    else
        options+=(--node-count="$slices" --node-prefix="$name")
    fi
    [ -z "$tier" ] || options+=("$tier")
    [ -z "$valid" ] || options+=(--valid-until-duration="$valid")
    cloud_or_tell queued-resources create "$name" "${options[@]}"
}

# ask_slice: set `state` to that of the queued resource, NOT_FOUND, or UNKNOWN where no answer came.
ask_slice() {
    state=UNKNOWN
    if describe > "$work/answer"; then
        state=$(cat "$work/answer")
    elif grep -q NOT_FOUND "$work/chatter"; then
        state=NOT_FOUND
    fi
}
describe() { cloud queued-resources describe "$name" --zone="$zone" --format='value(state.state)'; }

delete_slice() {
    local try
    say "deleting $name"
    for try in 1 2 3; do
        if delete || grep -q NOT_FOUND "$work/chatter"; then
            return 0 # a bare `return` in a trap gives the status from before it
        fi
        [ "$try" = 3 ] || pause
    done
    tail -n 20 "$work/chatter" >&2
    say "$name COULD NOT BE DELETED and may cost money: $(show "${deletion[@]}")"
    return 1
}
delete() { cloud "${deletion[@]}"; }

# on_all WORD ...: run tpu_worker.sh with these words, on all workers of all slices at once.
on_all() {
    cloud queued-resources ssh "$name" --zone="$zone" --node=all --worker=all --batch-size=64 --quiet \
        --command="$(remote "$@")"
}

on_first() {
    cloud queued-resources ssh "$name" --zone="$zone" --node=0 --worker=0 --quiet --command="$(remote "$@")"
}

remote() {
    printf 'bash bertjax/tpu_worker.sh'
    printf ' %q' "$@"
}

# greet SLICE WORKER: let SSH know the worker, and tell the worker its number. The answer counts, not gcloud's exit
# status: that is 0 also when a node could not be reached.
greet() {
    local id=$2 chatter=$work/chatter-$1-$2
    [ "$slices" = 1 ] || id=$1/$2
    cloud queued-resources ssh "$name" --zone="$zone" --node="$1" --worker="$2" --quiet \
        --command="mkdir -p bertjax && echo $id | tee bertjax/worker" > "$work/greeting-$1-$2" || true
    if [ "$dry_run" = yes ] || grep -qx "$id" "$work/greeting-$1-$2"; then
        return 0
    fi
    tail -n 20 "$chatter" >&2
    say "no SSH to worker $id"
    return 1
}

# greet_all: the first worker of each slice alone, since that brings the SSH key there; then the others, 16 at a time.
greet_all() {
    local slice worker status=0
    for ((slice = 0; slice < slices; slice++)); do
        greet "$slice" 0 || return
    done
    for ((worker = 1; worker < hosts; worker++)); do
        for ((slice = 0; slice < slices; slice++)); do
            greet "$slice" "$worker" &
            [ "$dry_run" = no ] || wait
            [ "$(jobs -rp | wc -l)" -lt 16 ] || wait -n || status=1
        done
    done
    while [ -n "$(jobs -p)" ]; do
        wait -n || status=1
    done
    return "$status"
}

send_code() {
    cloud_or_tell queued-resources scp "$work/code.tar.gz" launch/tpu_worker.sh "$name:bertjax/" \
        --zone="$zone" --node=all --worker=all --batch-size=64 --quiet
}

set_up() {
    say "reaching $workers workers"
    greet_all || return
    say "sending the code at ${sha:0:12}"
    send_code || return
    say "installing"
    install_all
}

install_all() {
    on_all install > "$work/installed" || true
    if [ "$dry_run" = yes ]; then return 0; fi
    local count
    count=$(grep ' installed$' "$work/installed" | sort -u | wc -l) || true
    [ "$count" != "$workers" ] || return 0
    grep -v ' installed$' "$work/installed" || tail -n 20 "$work/chatter"
    say "installed on $count of $workers workers"
    return 1
}

start_run() { on_all start "$attempt" train "${words[0]}" --run-dir "$run_dir" "${replicas[@]}" "${words[@]:1}"; }
