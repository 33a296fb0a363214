"""launch/tpu_worker.sh, the part of launch/tpu.sh that runs on each worker; a folder is the worker."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.launch.conftest import ROOT
from tests.launch.stand_in import ready
from tests.waiting import LIMIT_SECONDS, until

# What `stop` is given where the run ends by itself: it returns as soon as that is so.
PLENTY = str(LIMIT_SECONDS)


class Worker:
    def __init__(self, cloud, folder):
        self.cloud = cloud
        self.home = folder
        self.place = folder / "bertjax"
        self.place.mkdir(parents=True)
        self.lock = folder / "libtpu_lockfile"
        self.environment = {
            "PATH": f"{cloud.folder}/worker_bin:/usr/bin:/bin",
            "HOME": str(folder),
            "STAND_IN": str(cloud.folder),
            "LIBTPU_LOCKFILE": str(self.lock),
        }
        (self.place / "worker").write_text("1\n")
        shutil.copy(ROOT / "launch" / "tpu_worker.sh", self.place)
        with tarfile.open(self.place / "code.tar.gz", "w:gz") as code:
            code.add(ROOT / "configs", "code/configs")

    def __call__(self, *words):
        line = ["bash", "bertjax/tpu_worker.sh", *words]
        return subprocess.run(
            line,
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    def start(self, attempt=1):
        """Start an attempt, and wait until it handles SIGTERM as its step says."""
        before = ready(self.cloud.folder)
        run = self("start", str(attempt), "train", "configs/large.py")
        until(lambda: ready(self.cloud.folder) > before, expected=f"attempt {attempt} is ready")
        return run

    def state(self, attempt=1):
        return self("state", str(attempt)).stdout.strip()

    def pid(self, attempt=1):
        return int((self.place / "attempts" / str(attempt) / "pid").read_text())


def ended(pid):
    """Whether a process has ended; its parent may not have collected it yet."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def worker(cloud, tmp_path):
    """`worker(**scenario)`: installed, nothing started."""

    def make(**scenario):
        place = cloud(**scenario)
        made = Worker(place, place.folder / "homes" / "0" / "0-1")
        assert made("install").returncode == 0
        return made

    return make


def test_a_start_returns_at_once_and_the_run_has_a_session_of_its_own(worker):
    """`capture_output` waits for the pipe's end: the run holds on to nothing of the connection."""
    worker = worker(runs=[{"*": [["until_term"]]}])
    assert worker.start().returncode == 0
    assert worker.state() == "1 running"
    assert os.getsid(worker.pid()) == worker.pid()
    assert worker("stop", "1", PLENTY).stdout == "1 exit 75\n"
    assert worker.state() == "1 exit 75"


def test_a_run_that_was_killed_is_gone(worker):
    worker = worker(runs=[{"*": [["until_term"]]}])
    worker.start()
    os.killpg(worker.pid(), 9)
    until(lambda: worker.state() == "1 gone")
    assert worker.state(7) == "1 gone", "so is an attempt that never was"


def test_a_start_ends_what_an_earlier_one_left_and_frees_the_chips(worker):
    worker = worker(runs=[{"*": [["never"]]}])
    worker.start(1)
    first = worker.pid(1)
    worker.lock.touch()
    worker.start(2)
    until(lambda: ended(first))
    assert worker.state(2) == "1 running"
    assert not worker.lock.exists()
    second = worker.pid(2)
    assert worker("stop", "2", "0").stdout == "1 running\n"
    until(lambda: ended(second))


def test_the_log_is_numbered_from_where_one_says_and_only_whole_lines_while_it_runs(worker):
    worker = worker(runs=[{"*": [["until_term"]]}])
    worker.start()
    log = worker.place / "attempts" / "1" / "log"
    log.write_text("one\n  two  \nthr")
    assert worker("log", "1", "1").stdout == "1 one\n2   two  \n"
    assert worker("log", "1", "3").stdout == ""
    worker("stop", "1", PLENTY)
    log.write_text("one\n  two  \nthree")
    assert worker("log", "1", "2").stdout == "2   two  \n3 three\n"


def test_only_who_is_named_reports(worker):
    worker = worker(runs=[{"*": [["say", "\n".join(f"line {i}" for i in range(50))], ["exit", 1]]}])
    worker("start", "1", "train")
    until(lambda: worker.state() == "1 exit 1")
    assert worker("report", "1", "0", "2").stdout == ""
    lines = worker("report", "1", "0", "1").stdout.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("[worker 1] line 30", "[worker 1] line 49", 20)


def test_uv_is_fetched_where_there_is_none(cloud):
    cloud = cloud()
    worker = Worker(cloud, cloud.folder / "homes" / "0" / "0-1")
    elsewhere = cloud.folder / "uv"
    (cloud.folder / "worker_bin" / "uv").rename(elsewhere)
    place = "$HOME/.local/bin"
    cloud.script(
        "worker_bin/curl", f'echo "$@" >&2; echo "mkdir -p {place} && cp {elsewhere} {place}/uv"'
    )
    run = worker("install")
    assert run.returncode == 0, run.stdout
    assert "https://astral.sh/uv/install.sh" in (worker.place / "install.log").read_text()
    assert (worker.place / "venv" / "bin" / "bertjax").exists()
