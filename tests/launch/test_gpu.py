"""launch/gpu.sh, with stand-ins for the driver, Slurm's commands and the Python environment."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from tests.launch.conftest import ROOT
from tests.waiting import LIMIT_SECONDS, until

WORDS = ["configs/base.py", "--run-dir", "runs/it's mine"]
BERTJAX = """#!/bin/bash
echo x >> "$STAND_IN/starts"
printf '%s\\0' "$@" > "$STAND_IN/argv"
echo "$XLA_FLAGS" > "$STAND_IN/flags"
trap 'echo TERM >> "$STAND_IN/signals"' TERM
trap 'echo INT >> "$STAND_IN/signals"' INT
set -- $(sed -n "$(wc -l < "$STAND_IN/starts")p" "$STAND_IN/plan")
[ "$1" = save ] || exit "${1:-0}"
echo $$ > "$STAND_IN/ready.part"
mv "$STAND_IN/ready.part" "$STAND_IN/ready"
until [ -s "$STAND_IN/signals" ]; do sleep 0.02; done
exit 75
"""
SLURM = {"SLURM_JOB_ID": "4242", "SLURM_NTASKS_PER_NODE": "8", "SLURM_GPUS_ON_NODE": "8"}


class Machine:
    """A checkout with its environment, and a PATH with the stand-ins; `plan`: how each start ends."""

    def __init__(self, folder, *plan, driver="580.65.06"):
        self.folder = folder
        (folder / "bin").mkdir()
        shutil.copytree(ROOT / "launch", folder / "launch")
        (folder / "launch" / "env.sh").write_text(
            'bertjax_environment() { echo "$*" > "$STAND_IN/packages"; }\n'
        )
        (folder / "plan").write_text("".join(f"{step}\n" for step in plan))
        self.script("bertjax", BERTJAX)
        self.script("srun", '#!/bin/sh\necho "$*" >> "$STAND_IN/srun"\nshift 2\nexec "$@"\n')
        self.script("scontrol", '#!/bin/sh\necho "$*" >> "$STAND_IN/scontrol"\n')
        self.script(
            "squeue", '#!/bin/sh\necho "$*" > "$STAND_IN/squeue"\necho "${JOB_STATE:-RUNNING}"\n'
        )
        if driver:
            self.script("nvidia-smi", f"#!/bin/sh\necho {driver}\necho {driver}\n")

    def script(self, name, text):
        (self.folder / "bin" / name).write_text(text)
        (self.folder / "bin" / name).chmod(0o755)

    def environment(self, **more):
        return {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "STAND_IN": str(self.folder), **more}

    def run(self, *words, script="launch/gpu.sh", cwd=None, **environment):
        line = ["bash", self.folder / script, *(words or WORDS)]
        return subprocess.run(
            line,
            cwd=cwd or self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    def read(self, name):
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    @property
    def starts(self):
        return len(self.read("starts").split())


def test_one_process_runs_the_words_as_they_are(tmp_path):
    machine = Machine(tmp_path, 0)
    assert machine.run().returncode == 0
    assert machine.read("argv").split("\0")[:-1] == ["train", *WORDS]
    assert machine.starts == 1
    assert machine.read("srun") == ""
    assert machine.read("flags") == "--xla_gpu_enable_latency_hiding_scheduler=true\n"


def test_flags_that_are_set_stay(tmp_path):
    machine = Machine(tmp_path, 0)
    machine.run(XLA_FLAGS="--mine")
    assert machine.read("flags") == "--mine\n"


@pytest.mark.parametrize(
    ("driver", "chosen", "cuda"),
    [
        ("580.65.06", {}, 13),
        ("570.86.10", {}, 12),
        ("580.65.06", {"BERTJAX_CUDA": "12"}, 12),
        ("", {"BERTJAX_CUDA": "13"}, 13),
    ],
)
def test_cuda_follows_from_the_driver_or_is_said(tmp_path, driver, chosen, cuda):
    machine = Machine(tmp_path, 0, driver=driver)
    assert machine.run(**chosen).returncode == 0
    assert machine.read("packages") == f"requirements.txt jax[cuda{cuda}]\n"


@pytest.mark.parametrize(
    ("plan", "status", "starts"),
    [
        ([2, 0], 2, 1),
        ([3, 0], 3, 1),
        ([75, 75, 75, 75, 75, 0], 0, 6),
        ([1, 134, 0], 0, 3),
        ([1, 1, 1, 1, 0], 1, 4),
    ],
)
def test_what_is_restarted(tmp_path, plan, status, starts):
    machine = Machine(tmp_path, *plan)
    assert machine.run().returncode == status
    assert machine.starts == starts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_run_once_and_what_saved_is_not_restarted(tmp_path, number):
    machine = Machine(tmp_path, "save", 0)
    process = subprocess.Popen(
        ["env", "--default-signal=INT", "bash", machine.folder / "launch" / "gpu.sh", *WORDS],
        env=machine.environment(),
        start_new_session=True,
    )
    until((machine.folder / "ready").exists, process=process)
    # The signal to the group of Ctrl-C does not reach the run but through gpu.sh.
    assert os.getpgid(int(machine.read("ready"))) != os.getpgid(process.pid)
    os.killpg(process.pid, number)
    assert process.wait(LIMIT_SECONDS) == 75
    assert machine.read("signals") == "TERM\n"
    assert machine.starts == 1


def test_slurm_runs_a_copy_in_the_folder_it_was_submitted_from(tmp_path):
    machine = Machine(tmp_path, 0)
    shutil.copy(machine.folder / "launch" / "gpu.sh", tmp_path / "slurm_script")
    run = machine.run(script="slurm_script", cwd="/", SLURM_SUBMIT_DIR=str(tmp_path), **SLURM)
    assert run.returncode == 0, run.stderr
    assert machine.read("srun").startswith(
        "--kill-on-bad-exit=0 --gpu-bind=none bertjax train configs/base.py"
    )


def test_what_slurm_stopped_is_queued_again(tmp_path):
    machine = Machine(tmp_path, 75, 0)
    assert machine.run(**SLURM).returncode == 75
    assert machine.read("scontrol") == "requeue 4242\n"
    assert machine.read("squeue") == "-h -j 4242 -o %T\n"
    assert machine.starts == 1


def test_what_somebody_cancelled_is_not(tmp_path):
    machine = Machine(tmp_path, 75, 0)
    assert machine.run(JOB_STATE="COMPLETING", **SLURM).returncode == 75
    assert machine.read("scontrol") == ""


def test_slurm_is_asked_to_signal_and_to_requeue():
    options = re.findall(r"^#SBATCH (.*)$", (ROOT / "launch" / "gpu.sh").read_text(), re.M)
    assert {"--requeue", "--open-mode=append", "--signal=TERM@120"} <= set(options)


@pytest.mark.parametrize(
    ("environment", "words", "expected"),
    [
        ({}, [""], "BERTJAX_CUDA"),
        (
            SLURM | {"SLURM_NTASKS_PER_NODE": "1"},
            WORDS,
            "found '1', expected a task for each of the node's 8 GPUs",
        ),
        ({"BERTJAX_CUDA": "11"}, WORDS, "BERTJAX_CUDA: found '11'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, environment, words, expected):
    machine = Machine(tmp_path, 0, driver="")
    run = machine.run(*words, **environment)
    assert run.returncode == 2
    assert machine.starts == 0
    (line,) = run.stderr.splitlines()
    assert expected in line


def test_without_a_configuration_it_says_what_it_expects(tmp_path):
    run = subprocess.run(["bash", ROOT / "launch" / "gpu.sh"], capture_output=True, text=True)
    assert run.returncode == 2
    assert (
        run.stderr == "gpu.sh: no configuration given: expected CONFIG [--dotted.field VALUE ...]\n"
    )
