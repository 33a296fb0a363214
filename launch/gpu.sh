#!/usr/bin/env bash
#SBATCH --job-name=bertjax
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
# Pretrains on NVIDIA GPUs: on all of this machine, or on those of a Slurm job.
#
#   bash launch/gpu.sh base [--run-dir DIR] [--dotted.field VALUE ...]
#   sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 launch/gpu.sh base [...]
#
# On one machine one process has all GPUs. Under Slurm each task has one: jax.distributed reads Slurm's variables,
# gives each task the GPU of its number on the node, and derives the coordinator's port from the job's number.
# A run that SIGTERM stopped (a time limit, a preemption) has saved. It is started again here, or queued again by Slurm.
#
#   BERTJAX_CUDA=12|13         default: 13 where the driver is 580 or later
#   BERTJAX_MAX_RESTARTS=3     after crashes
#
# Exit status: as `bertjax train`.
set -euo pipefail
root=$(dirname "$0")/..
[ -f "$root/launch/env.sh" ] || root=${SLURM_SUBMIT_DIR:-.} # Slurm runs a copy of this file
cd "$root"

mistake() {
    echo "gpu.sh: $*" >&2
    exit 2
}
say() { echo "gpu.sh $(date +%T): $*"; }

cuda_version() {
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) || # a line for each GPU
        mistake "nvidia-smi: no driver found; set BERTJAX_CUDA to 12 or 13"
    if [ "${driver%%.*}" -ge 580 ]; then echo 13; else echo 12; fi
}

check_tasks() {
    [ "${SLURM_NTASKS_PER_NODE:-}" = "${SLURM_GPUS_ON_NODE:-}" ] || mistake "--ntasks-per-node: found" \
        "'${SLURM_NTASKS_PER_NODE:-}', expected a task for each of the node's ${SLURM_GPUS_ON_NODE:-0} GPUs"
}

# run_once WORD ...: train in a process group of its own, so that Ctrl-C reaches the run only through `stop`: it saves
# on the first signal and dies of a second one. Slurm signals its tasks itself.
run_once() {
    local command=(bertjax train "$@") status
    [ "$slurm" = no ] || command=(srun --kill-on-bad-exit=0 --gpu-bind=none "${command[@]}")
    set -m
    "${command[@]}" < /dev/null &
    child=$!
    set +m
    while :; do
        interrupted=no status=0
        wait "$child" || status=$?
        # Where the trap ended `wait`, its status is the signal's. The run goes on, or has ended by now; bash remembers
        # its status either way.
        [ "$interrupted" = yes ] || break
    done
    child=
    return "$status"
}

stop() {
    stopping=yes interrupted=yes
    if [ "$slurm" = no ] && [ -n "$child" ]; then
        kill -TERM -- "-$child" 2>/dev/null || true
    fi
}

queue_again() {
    # Not a job that somebody cancels: it is COMPLETING by now. A preempted job is queued again by Slurm itself.
    if [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then
        say "stopped after saving: queued again"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit 75
}

main() {
    [ -f launch/env.sh ] || mistake "$PWD: no checkout of bertjax; submit from its folder"
    [ $# -gt 0 ] || mistake "no configuration given: expected CONFIG [--dotted.field VALUE ...]"
    slurm=no child='' stopping=no interrupted=no
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        slurm=yes
        check_tasks
    fi
    local cuda status restarts=0
    cuda=${BERTJAX_CUDA:-$(cuda_version)}
    [[ $cuda =~ ^1[23]$ ]] || mistake "BERTJAX_CUDA: found '$cuda', expected 12 or 13"
    . launch/env.sh
    bertjax_environment requirements.txt "jax[cuda$cuda]"
    # Overlap communication with computation (docs.jax.dev, GPU performance tips).
    export XLA_FLAGS=${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}
    # Slurm starts a job again on other nodes, where the lock of a killed run expires within a minute.
    [ -z "${SLURM_JOB_ID:-}" ] || export BERTJAX_LOCK_SECONDS=${BERTJAX_LOCK_SECONDS:-120}
    trap stop TERM INT
    while :; do
        status=0
        run_once "$@" || status=$?
        [ "$slurm$status" != yes75 ] || queue_again
        [ "$stopping" = no ] || exit "$status"
        case $status in
            0 | 2 | 3) exit "$status" ;;
            75) say "stopped after saving: restarting" ;;
            *)
                restarts=$((restarts + 1))
                [ "$restarts" -le "${BERTJAX_MAX_RESTARTS:-3}" ] || exit "$status"
                say "exit status $status: restart $restarts of ${BERTJAX_MAX_RESTARTS:-3}"
                ;;
        esac
    done
}

main "$@"
