#!/usr/bin/env bash
# Pretrains on a Cloud TPU slice: asks for it, brings the code, runs, follows, asks for another one when it is
# preempted, and deletes it at the end, also when interrupted.
#
#   launch/tpu.sh --name NAME --zone ZONE --accelerator TYPE --run-dir gs://BUCKET/RUN [OPTION ...] \
#       -- CONFIG [--dotted.field VALUE ...]
#
#   --name NAME                  of the queued resource and its nodes
#   --zone ZONE                  such as us-west4-a; the project is gcloud's own
#   --accelerator TYPE           v4-N, v5litepod-N, v5p-N or v6e-N
#   --run-dir DIR                where the run is kept: a path that all hosts share
#   --spot | --reserved          neither: on demand
#   --valid-until-duration 6h    give up when there is no capacity for so long
#   --slices N                   several slices as one run: the mesh's replica axis
#   --commit REV                 the code (default: HEAD, and no uncommitted change)
#   --max-restarts N             after crashes and lost hosts (default 3); preemptions do not count
#   --keep                       leave the slice at the end; one of that name that is there is used
#   --dry-run                    print the commands, run none
#   CONFIG                       a preset such as fast/base, or a file of the commit by its path
#
# Exit status: 0 done; 2 a mistake, here or in the configuration; 75 no capacity, try again later; 130 or 143
# interrupted (the same command continues); 1 anything else.
# BERTJAX_POLL_SECONDS (20) lies between two looks, BERTJAX_GRACE_SECONDS (300) is what workers get to end after
# the first one has, BERTJAX_STOP_SECONDS (60) to save on SIGTERM, BERTJAX_MISSES (15) looks may go unanswered.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/tpu_options.sh
. launch/tpu_slice.sh
. launch/tpu_follow.sh

main() {
    read_options "$@"
    check_options
    replicas=()
    [ "$slices" = 1 ] || replicas=(--mesh.replica "$slices")
    deletion=(queued-resources delete "$name" --zone="$zone" --force --quiet)
    exec 3>&1 4>&2
    if [ "$dry_run" = yes ]; then
        plan
        return
    fi
    work=$(mktemp -d)
    asked=no creating=no running=no restarts=0 attempt=0
    trap '' PIPE # a reader that went away must not keep us from deleting
    trap finish EXIT
    trap 'interrupted INT' INT
    trap 'interrupted TERM' TERM
    trap 'interrupted HUP' HUP
    claim_name
    pack_code
    get_ready
    while :; do
        run_once
    done
}

pack_code() {
    local command=(git archive --format=tar.gz --prefix=code/ --output="$work/code.tar.gz" "$sha")
    if [ "$dry_run" = yes ]; then
        echo "git$(printf ' %q' "${command[@]:1}")"
    else
        "${command[@]}"
    fi
}

# plan: the commands of a run that nothing befalls, by the very functions that issue them.
plan() {
    attempt=1 work=$(mktemp -d)
    describe
    pack_code
    request_slice
    describe
    set_up > /dev/null
    start_run
    describe
    on_all state 1
    on_first log 1 1
    [ "$keep" = yes ] || delete
    rm -r "$work"
}

# claim_name: what bears the name already is somebody's, and would be deleted at the end.
claim_name() {
    ask_slice
    case $state in
        NOT_FOUND) ;;
        UNKNOWN)
            tail -n 20 "$work/chatter" >&2
            exit 1
            ;;
        *)
            [ "$keep" = yes ] || mistake "$name: there is one in state $state; choose another name, or --keep to use it"
            asked=yes
            ;;
    esac
}

ask_for_slice() {
    say "asking for $name: $slices x $accelerator in $zone"
    asked=yes creating=yes
    request_slice || exit 1
    creating=no
}

get_ready() {
    while :; do
        ask_slice
        ! gone "$state" || [ "$state" = NOT_FOUND ] || delete_slice || exit 1
        ! gone "$state" || ask_for_slice
        wait_for_slice
        if [ "$state" = ACTIVE ]; then
            if set_up; then return 0; fi
            ask_slice
            gone "$state" || exit 1
        fi
        say "$name is $state"
    done
}

# wait_for_slice: until it is active, or was lost again before it was.
wait_for_slice() {
    local seen='' misses=0
    while :; do
        ask_slice
        [ "$state" = "$seen" ] || say "$name is $state"
        seen=$state
        case $state in
            FAILED)
                cloud queued-resources describe "$name" --zone="$zone" --format='yaml(state)' || true
                say "not to be had; the same command asks again"
                exit 75
                ;;
            ACTIVE | SUSPENDING | SUSPENDED | DELETING | NOT_FOUND) return ;;
            UNKNOWN) misses=$((misses + 1)) ;;
            *) misses=0 ;;
        esac
        if [ "$misses" -ge "${BERTJAX_MISSES:-15}" ]; then
            tail -n 20 "$work/chatter" >&2
            exit 1
        fi
        pause
    done
}

run_once() {
    attempt=$((attempt + 1))
    say "attempt $attempt: bertjax train ${words[*]}"
    running=yes
    start_run || tail -n 20 "$work/chatter" >&2 # following shows which workers did not start
    follow
    running=no
    case $outcome in
        finished)
            say "finished"
            exit 0
            ;;
        mistake)
            say "a mistake in the configuration: not restarted"
            exit 2
            ;;
        stopped) say "stopped after saving: restarting" ;;
        crashed) count_restart "a worker crashed" ;;
        preempted) start_over ;;
        lost) give_up_slice ;;
    esac
}

# give_up_slice: hosts do not answer. What can be reached saves; a run that makes hosts deaf is not for ever repeated.
give_up_slice() {
    say "stopping what can be reached"
    stop_run > "$work/states" || true
    if [ "$keep" = yes ]; then
        say "$name is kept: look at it, and start again"
        exit 1
    fi
    count_restart "hosts were lost"
    start_over
}

start_over() {
    say "asking again; the run goes on from its last checkpoint"
    delete_slice || exit 1
    get_ready
}

count_restart() {
    restarts=$((restarts + 1))
    if [ "$restarts" -gt "$max_restarts" ]; then
        say "$1, and --max-restarts is $max_restarts: giving up"
        exit 1
    fi
    say "$1: restart $restarts of $max_restarts"
}

# interrupted SIGNAL: perhaps in the middle of a command whose output goes to a file.
interrupted() {
    exec >&3 2>&4
    say "interrupted by SIG$1"
    exit $((128 + $(kill -l "$1")))
}

# finish: on any end of this script. A request under way is waited for, so that what it makes is deleted too.
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    set +e # from here on all is tried, whatever fails
    exec >&3 2>&4
    if [ -n "$child" ]; then
        if [ "$creating" = no ]; then kill -TERM -- "-$child" 2>/dev/null || true; fi
        wait "$child" 2>/dev/null || true
    fi
    if [ "$running" = yes ] && ! gone "$state"; then
        say "stopping the run, which saves"
        stop_run > "$work/states" || true
        note_states
    fi
    if [ "$asked" = yes ] && [ "$keep" = yes ]; then
        say "$name is kept; it costs money until: $(show "${deletion[@]}")"
    elif [ "$asked" = yes ]; then
        delete_slice || status=1
    fi
    rm -rf "$work"
    exit "$status"
}

main "$@"
