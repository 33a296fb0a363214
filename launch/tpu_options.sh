# shellcheck shell=bash disable=SC2034
# Sourced by launch/tpu.sh: what it was told, checked before anything is paid for.

mistake() {
    echo "tpu.sh: $*" >&2
    exit 2
}

read_options() {
    name='' zone='' accelerator='' run_dir='' tier='' valid='' commit='' slices=1 max_restarts=3 keep=no dry_run=no
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in
            --spot | --reserved)
                [ -z "$tier" ] || mistake "$1 beside $tier: at most one of them"
                tier=$1
                ;;
            --keep) keep=yes ;;
            --dry-run) dry_run=yes ;;
            -h | --help)
                sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' launch/tpu.sh
                exit
                ;;
            --name | --zone | --accelerator | --run-dir | --valid-until-duration | --slices | --commit | --max-restarts)
                [ "${2:---}" != -- ] || mistake "$1: nothing given"
                read_value "$1" "$2"
                shift
                ;;
            *) mistake "$1: no such option (bertjax's own words come after --)" ;;
        esac
        shift
    done
    [ $# -ge 2 ] || mistake "no configuration given: expected ... -- CONFIG [--dotted.field VALUE ...]"
    shift
    words=("$@")
}

read_value() {
    case $1 in
        --name) name=$2 ;;
        --zone) zone=$2 ;;
        --accelerator) accelerator=$2 ;;
        --run-dir) run_dir=$2 ;;
        --valid-until-duration) valid=$2 ;;
        --slices) slices=$2 ;;
        --commit) commit=$2 ;;
        --max-restarts) max_restarts=$2 ;;
    esac
}

check_options() {
    [[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || mistake "--name: found '$name', expected small letters, digits and -"
    [[ $zone =~ ^[a-z0-9-]+$ ]] || mistake "--zone: found '$zone', expected a zone such as us-west4-a"
    [[ $slices =~ ^[1-9][0-9]*$ ]] || mistake "--slices: found '$slices', expected 1, 2, ..."
    [[ $max_restarts =~ ^[0-9]+$ ]] || mistake "--max-restarts: found '$max_restarts', expected 0, 1, ..."
    read_accelerator
    check_run_dir
    check_code
    [ "$dry_run" = yes ] || command -v gcloud >/dev/null || mistake "gcloud: not found; install the Google Cloud CLI"
}

# read_accelerator: the runtime that a type of slice boots, and its number of hosts. The number in a type counts
# chips (v5e, v6e) or cores, two a chip (the others); up to 8 are one host, else a host has 4 chips.
read_accelerator() {
    local a_host=8 size=${accelerator##*-}
    case $accelerator in
        v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
        v5p-*) runtime=v2-alpha-tpuv5 ;;
        v5litepod-*) runtime=v2-alpha-tpuv5-lite a_host=4 ;;
        v6e-*) runtime=v2-alpha-tpuv6e a_host=4 ;;
        *) mistake "--accelerator: found '$accelerator', expected v4-N, v5litepod-N, v5p-N or v6e-N" ;;
    esac
    [[ $size =~ ^[1-9][0-9]*$ ]] || mistake "--accelerator: found '$accelerator', expected a number after the -"
    [ "$size" -le 8 ] || [ $((size % a_host)) = 0 ] || mistake "--accelerator: $accelerator is no whole number of hosts"
    hosts=$((size <= 8 ? 1 : size / a_host))
    workers=$((hosts * slices))
}

check_run_dir() {
    local where="--run-dir: found '$run_dir', expected"
    case $run_dir in
        *://?*) ;;
        '') mistake "$where a folder such as gs://BUCKET/RUN" ;;
        *)
            [ "$workers" = 1 ] || mistake "$where a path that all $workers hosts share, such as gs://BUCKET/RUN"
            [[ $run_dir = /* ]] || mistake "$where gs://BUCKET/RUN, or /a/whole/path outside the code, which is sent anew"
            [ "$keep" = yes ] || mistake "$where gs://BUCKET/RUN, or --keep: a local folder goes with the slice"
            ;;
    esac
}

check_code() {
    local word
    git rev-parse --git-dir >/dev/null 2>&1 || mistake "$PWD: no git checkout to take the code from"
    if [ -z "$commit" ] && [ -n "$(git status --porcelain --untracked-files=no)" ]; then
        mistake "uncommitted changes would not be on the workers: commit them, or say --commit HEAD"
    fi
    sha=$(git rev-parse --verify --quiet "${commit:-HEAD}^{commit}") || mistake "--commit: no commit '$commit'"
    # A path, or the name of a preset.
    git cat-file -e "$sha:${words[0]}" 2>/dev/null || git cat-file -e "$sha:configs/${words[0]}.py" 2>/dev/null ||
        mistake "${words[0]}: no such configuration in commit ${sha:0:12}"
    for word in "${words[@]}"; do
        case $word in --run-dir | --run-dir=*) mistake "--run-dir goes before the --" ;; esac
    done
}
