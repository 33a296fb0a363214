# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by launch/tpu.sh: follows an attempt until it is known how it ended.

declare -A ended=() # by worker: its exit status, or "gone" where it left none

# follow: sets `outcome` to finished, stopped, mistake, crashed, lost or preempted.
follow() {
    local misses=0 shown=0 first_end=
    outcome='' reported=no
    ended=()
    while pause; do
        ask_slice
        if gone "$state"; then
            say "$name is $state"
            outcome=preempted
            return
        fi
        misses=$((misses + 1))
        if ask_workers && [ "$state" = ACTIVE ]; then misses=0; fi
        show_log
        if [ "${#ended[@]}" = "$workers" ]; then
            judge
            return
        fi
        if [ "$misses" -ge "${BERTJAX_MISSES:-15}" ]; then
            say "no answer from all workers in $misses tries"
            outcome=lost
            return
        fi
        if [ "${#ended[@]}" -gt 0 ]; then
            first_end=${first_end:-$SECONDS}
            if [ $((SECONDS - first_end)) -ge "${BERTJAX_GRACE_SECONDS:-300}" ]; then
                say "stopping the workers that are left"
                stop_run > "$work/states" || true
                note_states
                judge
                return
            fi
        fi
    done
}

gone() { [[ $1 =~ ^(SUSPENDING|SUSPENDED|FAILED|DELETING|NOT_FOUND)$ ]]; }

stop_run() { on_all stop "$attempt" "${BERTJAX_STOP_SECONDS:-60}"; }

# ask_workers: 0 if all answered. Up to three of the workers that fail first show the end of their logs: the others
# fail because these are gone. The first worker's log is shown anyway.
ask_workers() {
    on_all state "$attempt" > "$work/states" || true
    note_states
    if [ "${#failed[@]}" -gt 0 ] && [ "$reported" = no ]; then
        reported=yes
        on_all report "$attempt" "${failed[@]:0:3}" || true
    fi
    [ "$answers" = "$workers" ]
}

# note_states: read the states into `ended`. Sets `answers`, the number of workers that answered, and `failed`, the
# workers other than the first that crashed.
note_states() {
    local id what status
    local -A heard=()
    failed=()
    while read -r id what status; do
        case $what in
            running) ;;
            exit | gone)
                status=${status:-gone}
                if [ -z "${ended[$id]:-}" ] && [ "$status" != 0 ]; then
                    say "worker $id: exit status $status"
                fi
                ended[$id]=$status
                [[ $status =~ ^(0|75)$ || $id =~ ^(0/)?0$ ]] || failed+=("$id")
                ;;
            *) continue ;;
        esac
        heard[$id]=yes
    done < "$work/states"
    answers=${#heard[@]}
}

# show_log: print what is new in the first worker's log. Lines are numbered, so that none is printed twice.
show_log() {
    local line number first=0
    [ "$slices" = 1 ] || first=0/0
    on_first log "$attempt" $((shown + 1)) > "$work/lines" || return 0
    while IFS= read -r line; do
        number=${line%% *}
        if [ "$number" -gt "$shown" ]; then
            printf '[worker %s] %s\n' "$first" "${line#* }"
            shown=$number
        fi
    done < "$work/lines"
}

# judge: set `outcome` from the exit statuses. A 2 or 3 on any worker decides; a crash may be the beginning of a
# preemption.
judge() {
    local status
    outcome=finished
    for status in "${ended[@]}"; do
        case $status:$outcome in
            2:* | 3:*) outcome=mistake ;;
            *:mistake) ;;
            0:*) ;;
            75:finished) outcome=stopped ;;
            75:*) ;;
            *) outcome=crashed ;;
        esac
    done
    [ "${#ended[@]}" = "$workers" ] || [ "$outcome" = mistake ] || outcome=crashed
    if [ "$outcome" = crashed ]; then
        pause
        ask_slice
        if gone "$state"; then
            say "$name is $state"
            outcome=preempted
        fi
    fi
}
