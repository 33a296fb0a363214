"""launch/tpu.sh against a stand-in `gcloud`, whose `ssh` really runs the commands, in folders that
stand for workers.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess

import pytest

from tests.launch.conftest import git
from tests.waiting import LIMIT_SECONDS, until

SLICE = (
    "--name",
    "bert",
    "--zone",
    "us-west4-a",
    "--accelerator",
    "v4-16",
    "--run-dir",
    "gs://bucket/runs/large",
)
ONE_HOST = (
    "--name",
    "bert",
    "--zone",
    "us-west4-a",
    "--accelerator",
    "v4-8",
    "--run-dir",
    "gs://bucket/runs/large",
)
WORDS = ("configs/large.py", "--optimizer.peak-learning-rate", "1e-4")
SAVES = [["say", "training"], ["until_term"]]
CRASHES = [["say", "Traceback: boom"], ["exit", 1]]


def command(checkout, *options, slice_=SLICE, words=WORDS):
    return ["bash", str(checkout / "launch" / "tpu.sh"), *slice_, *options, "--", *words]


def launch(checkout, cloud, *options, environment=None, **kinds):
    temporary = cloud.folder / "tmp"
    temporary.mkdir(exist_ok=True)
    run = subprocess.run(
        command(checkout, *options, **kinds),
        env=cloud.environment(TMPDIR=str(temporary), **(environment or {})),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert not list(temporary.iterdir()), "its temporary files are removed"
    return run


def told(run):
    """What the script said, without the time of day."""
    return [re.sub(r"^tpu.sh [0-9:]+: ", "", line) for line in run.stdout.splitlines()]


def one_line(run):
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("tpu.sh: ")
    return line


# A run that nothing befalls


def test_a_run_from_asking_to_deleting(checkout, cloud):
    cloud = cloud(states=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    run = launch(checkout, cloud, "--spot")
    assert run.returncode == 0, run.stdout + run.stderr
    sha = git(checkout, "rev-parse", "HEAD").strip()
    assert told(run) == [
        "asking for bert: 1 x v4-16 in us-west4-a",
        "bert is WAITING_FOR_RESOURCES",
        "bert is PROVISIONING",
        "bert is ACTIVE",
        "reaching 2 workers",
        f"sending the code at {sha[:12]}",
        "installing",
        "attempt 1: bertjax train configs/large.py --optimizer.peak-learning-rate 1e-4",
        "[worker 0] step 1: loss 9.9",
        "[worker 0] step 2: loss 9.8",
        "finished",
        "deleting bert",
    ]
    assert not cloud.left
    assert cloud.calls("create") == [
        [
            "create",
            "bert",
            "--zone=us-west4-a",
            "--accelerator-type=v4-16",
            "--runtime-version=tpu-ubuntu2204-base",
            "--node-id=bert",
            "--spot",
        ]
    ]
    assert cloud.calls("delete") == [["delete", "bert", "--zone=us-west4-a", "--force", "--quiet"]]
    check_workers(cloud)


def check_workers(cloud):
    """Every worker ran the same command in the code of the commit, on a Python of its own."""
    runs = cloud.runs()
    assert sorted(run["worker"] for run in runs) == ["0", "1"]
    for run in runs:
        assert run["argv"] == [
            "train",
            "configs/large.py",
            "--run-dir",
            "gs://bucket/runs/large",
            *WORDS[1:],
        ]
        assert run["environment"] == {"BERTJAX_DISTRIBUTED": "1", "JAX_COORDINATOR_PORT": "8476"}
        assert run["cwd"].endswith("/bertjax/code")
        assert run["files"] == ["configs", "launch"]
    uv = [json.loads(line) for line in (cloud.folder / "uv.jsonl").read_text().splitlines()]
    for worker in ("0", "1"):
        assert [words for me, *words in uv if me == worker] == [
            ["venv", "--python", "3.12", "venv"],
            ["pip", "install", "--python", "venv/bin/python", "-e", "./code[data,gs]", "jax[tpu]"],
        ]


def test_the_commit_goes_not_the_working_tree(checkout, cloud, tmp_path):
    copy = shutil.copytree(checkout, tmp_path / "copy")
    (copy / "notes.txt").write_text("of no commit\n")
    assert subprocess.run(command(copy, "--dry-run"), capture_output=True).returncode == 0
    (copy / "configs" / "large.py").write_text("# not committed\n")
    refused = subprocess.run(command(copy), capture_output=True, text=True)
    assert refused.returncode == 2
    assert "uncommitted changes" in one_line(refused)
    cloud = cloud(hosts=1)
    assert launch(copy, cloud, "--commit", "HEAD~1", slice_=ONE_HOST).returncode == 0
    for home in cloud.homes():
        assert (home / "bertjax" / "code" / "configs" / "large.py").read_text() == "# first\n"


def test_words_arrive_as_they_were_given(checkout, cloud):
    cloud = cloud(hosts=1)
    words = [
        "--a",
        "two  spaces",
        "--b",
        "it's",
        '--c="x"',
        "--d",
        "$HOME `id` \\ ;*",
        "--e",
        "line\nbreak",
        "--f",
        "ü",
        "",
    ]
    run_dir = "gs://bucket/a run's"
    options = (*ONE_HOST[:-1], run_dir)
    assert launch(checkout, cloud, slice_=options, words=[WORDS[0], *words]).returncode == 0
    assert {tuple(run["argv"]) for run in cloud.runs()} == {
        ("train", WORDS[0], "--run-dir", run_dir, *words)
    }


def test_slices_are_one_request_and_the_mesh_says_so(checkout, cloud):
    cloud = cloud()
    run = launch(checkout, cloud, "--slices", "2", "--reserved")
    assert run.returncode == 0
    assert "[worker 0/0] step 1: loss 9.9" in told(run)
    (create,) = cloud.calls("create")
    assert {"--node-count=2", "--node-prefix=bert", "--reserved"} <= set(create)
    assert not any(word.startswith("--node-id") for word in create)
    assert sorted(run["worker"] for run in cloud.runs()) == ["0/0", "0/1", "1/0", "1/1"]
    for run in cloud.runs():
        assert run["argv"][4:] == ["--mesh.replica", "2", *WORDS[1:]]


@pytest.mark.parametrize(
    ("accelerator", "runtime", "hosts"),
    [
        ("v4-8", "tpu-ubuntu2204-base", 1),
        ("v4-32", "tpu-ubuntu2204-base", 4),
        ("v5litepod-8", "v2-alpha-tpuv5-lite", 1),
        ("v5litepod-256", "v2-alpha-tpuv5-lite", 64),
        ("v5p-16", "v2-alpha-tpuv5", 2),
        ("v6e-16", "v2-alpha-tpuv6e", 4),
    ],
)
def test_runtime_and_hosts_follow_from_the_accelerator(checkout, accelerator, runtime, hosts):
    options = (
        "--name",
        "bert",
        "--zone",
        "z",
        "--accelerator",
        accelerator,
        "--run-dir",
        "gs://b/r",
        "--dry-run",
    )
    run = subprocess.run(command(checkout, slice_=options), capture_output=True, text=True)
    assert f"--runtime-version={runtime} " in run.stdout
    greeted = re.findall(r"--worker=(\d+) .*bertjax/worker", run.stdout)
    assert greeted == [str(worker) for worker in range(hosts)]


@pytest.mark.parametrize(
    "options", [(), ("--slices", "2", "--spot", "--valid-until-duration", "6h")]
)
def test_dry_run_prints_the_commands_of_a_real_run_and_runs_none(checkout, cloud, options):
    cloud = cloud()
    dry = launch(checkout, cloud, *options, "--dry-run", words=(*WORDS, "--x", "it's two"))
    assert dry.returncode == 0
    assert dry.stderr == ""
    assert cloud.calls() == []
    printed = [shlex.split(line) for line in dry.stdout.splitlines()]
    assert [line[:2] for line in printed if line[0] != "gcloud"] == [["git", "archive"]]
    planned = [line[4:] for line in printed if line[0] == "gcloud"]
    assert launch(checkout, cloud, *options, words=(*WORDS, "--x", "it's two")).returncode == 0

    def known(calls):
        """Each call once, where it comes first; without the temporary folder and the log's line
        that is next.
        """
        texts = [json.dumps(call) for call in calls]
        texts = [re.sub(r'"[^"]*/code.tar.gz"', '"code.tar.gz"', text) for text in texts]
        texts = [re.sub(r"log 1 \d+", "log 1 1", text) for text in texts]
        greets = sorted(text for text in texts if "bertjax/worker" in text)
        return list(
            dict.fromkeys(greets.pop(0) if "bertjax/worker" in text else text for text in texts)
        )

    assert known(planned) == known(cloud.calls())


# What befalls a slice


def test_no_capacity_in_time_ends_with_75_and_deletes_the_request(checkout, cloud):
    cloud = cloud(states=[["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "FAILED"]])
    run = launch(checkout, cloud, "--valid-until-duration", "6h")
    assert run.returncode == 75
    assert "--valid-until-duration=6h" in cloud.calls("create")[0]
    assert told(run)[-3:] == [
        "  state: FAILED",
        "not to be had; the same command asks again",
        "deleting bert",
    ]
    assert not cloud.left
    assert not cloud.calls("ssh")


def test_preempted_in_the_middle_it_is_deleted_asked_for_again_and_goes_on(checkout, cloud):
    cloud = cloud(
        preempt={0: 2}, runs=[{"*": [["train", 0, 2], ["until_term"]]}, {"*": [["train", 0, 4]]}]
    )
    run = launch(checkout, cloud, "--spot", "--max-restarts", "0")
    assert run.returncode == 0, run.stdout
    verbs = [call[0] for call in cloud.calls("create", "delete")]
    assert verbs == ["create", "delete", "create", "delete"]
    assert cloud.calls("create")[0] == cloud.calls("create")[1]
    assert len({tuple(run["argv"]) for run in cloud.runs()}) == 1
    assert len(cloud.runs()) == 4
    assert "bert is SUSPENDED" in told(run)
    steps = [line for line in told(run) if line.startswith("[worker 0]")]
    assert steps[-3:] == [
        "[worker 0] restored step 2",
        "[worker 0] step 3: loss 9.7",
        "[worker 0] step 4: loss 9.6",
    ]


def test_suspended_before_it_was_active_it_is_asked_for_again(checkout, cloud):
    cloud = cloud(hosts=1, states=[["PROVISIONING", "SUSPENDING", "SUSPENDED"], ["ACTIVE"]])
    assert launch(checkout, cloud, "--max-restarts", "0", slice_=ONE_HOST).returncode == 0
    assert [call[0] for call in cloud.calls("create", "delete")] == [
        "create",
        "delete",
        "create",
        "delete",
    ]


def test_one_workers_failed_install_is_named_and_all_is_deleted(checkout, cloud):
    cloud = cloud(install_fails=["1"])
    run = launch(checkout, cloud)
    assert run.returncode == 1
    assert "[worker 1] error: Failed to download `jaxlib`: no space left on device" in told(run)
    assert "[worker 1] install failed" in told(run)
    assert "installed on 1 of 2 workers" in told(run)
    assert "worker 0" not in run.stdout
    assert not cloud.left
    assert cloud.runs() == []


@pytest.mark.parametrize(
    ("nodes", "said"), [([0], "no SSH to worker 0/0"), ([1], "no SSH to worker 1/0")]
)
def test_a_node_that_gcloud_leaves_out_in_silence_is_noticed(checkout, cloud, nodes, said):
    cloud = cloud(unreachable=nodes)
    run = launch(checkout, cloud, "--slices", "2")
    assert run.returncode == 1
    assert said in told(run)
    assert not cloud.left


def test_a_connection_that_drops_repeats_commands_and_nothing_starts_twice(checkout, cloud):
    cloud = cloud(repeat=True)
    run = launch(checkout, cloud)
    assert run.returncode == 0, run.stdout
    assert sorted(run["worker"] for run in cloud.runs()) == ["0", "1"]
    assert [line for line in told(run) if "step" in line] == [
        "[worker 0] step 1: loss 9.9",
        "[worker 0] step 2: loss 9.8",
    ]


def test_looks_without_an_answer_are_borne_for_a_while(checkout, cloud):
    cloud = cloud(hosts=1, deaf={0: [1, 2]})
    assert launch(checkout, cloud, "--max-restarts", "0", slice_=ONE_HOST).returncode == 0


@pytest.mark.slow
def test_workers_that_answer_no_more_are_lost_and_the_slice_asked_for_again(checkout, cloud):
    cloud = cloud(
        hosts=1, deaf={0: list(range(2, 9))}, runs=[{"*": SAVES}, {"*": [["train", 0, 1]]}]
    )
    run = launch(checkout, cloud, "--max-restarts", "1", slice_=ONE_HOST)
    assert run.returncode == 0, run.stdout
    assert "no answer from all workers in 4 tries" in told(run)
    assert "hosts were lost: restart 1 of 1" in told(run)
    assert cloud.commands("stop")
    assert [call[0] for call in cloud.calls("create", "delete")] == [
        "create",
        "delete",
        "create",
        "delete",
    ]


def test_a_run_that_makes_its_hosts_deaf_is_not_repeated_for_ever(checkout, cloud):
    cloud = cloud(hosts=1, deaf={0: list(range(2, 9))}, runs=[{"*": SAVES}])
    run = launch(checkout, cloud, "--max-restarts", "0", slice_=ONE_HOST)
    assert run.returncode == 1, run.stdout
    assert not cloud.left


# How a run ends


def test_a_crash_reaches_the_output_with_its_index_and_is_restarted(checkout, cloud):
    # Worker 0 ends after the crash of worker 1 was reported.
    waits = [["say", "waiting"], ["when_reported"], ["say", "a peer is gone"], ["exit", 1]]
    cloud = cloud(runs=[{"1": CRASHES, "*": waits}, {"*": [["train", 0, 2]]}])
    run = launch(checkout, cloud, "--max-restarts", "1")
    assert run.returncode == 0, run.stdout
    said = told(run)
    expected = ["worker 1: exit status 1", "[worker 1] Traceback: boom", "worker 0: exit status 1"]
    assert [line for line in said if line in expected] == expected
    assert "[worker 0] a peer is gone" in said
    assert "a worker crashed: restart 1 of 1" in said
    assert len(cloud.calls("create")) == 1


def test_crashes_are_restarted_only_so_often(checkout, cloud):
    cloud = cloud(runs=[{"*": CRASHES}])
    run = launch(checkout, cloud, "--max-restarts", "1")
    assert run.returncode == 1
    assert len(cloud.runs()) == 4
    assert "a worker crashed, and --max-restarts is 1: giving up" in told(run)
    assert not cloud.left


def test_75_is_restarted_however_often(checkout, cloud):
    stopped = {"*": [["say", "saved"], ["exit", 75]]}
    cloud = cloud(hosts=1, runs=[stopped, stopped, {"*": [["exit", 0]]}])
    run = launch(checkout, cloud, "--max-restarts", "0", slice_=ONE_HOST)
    assert run.returncode == 0, run.stdout
    assert told(run).count("stopped after saving: restarting") == 2


def test_2_is_never_restarted(checkout, cloud):
    cloud = cloud(runs=[{"*": [["say", "bertjax: train.steps: found 0"], ["exit", 2]]}])
    run = launch(checkout, cloud)
    assert run.returncode == 2
    for worker in (0, 1):
        assert told(run).count(f"[worker {worker}] bertjax: train.steps: found 0") == 1
    assert len(cloud.runs()) == 2
    assert not cloud.left


def test_workers_that_outlive_the_others_are_stopped(checkout, cloud):
    crashes = [["when_ready", 1], ["exit", 1]]
    cloud = cloud(runs=[{"1": crashes, "*": SAVES}, {"*": [["train", 0, 1]]}])
    at_once = {"BERTJAX_GRACE_SECONDS": "0"}
    run = launch(checkout, cloud, "--max-restarts", "1", environment=at_once)
    assert run.returncode == 0, run.stdout
    assert "stopping the workers that are left" in told(run)
    assert "worker 0: exit status 75" in told(run)
    assert len(cloud.calls("create")) == 1


# Ends of the script itself


MOMENTS = {
    "create": (lambda cloud: cloud.calls("create"), {"held": ["create"]}),
    "waiting": (
        lambda cloud: len(cloud.calls("describe")) > 3,
        {"states": [["WAITING_FOR_RESOURCES"]]},
    ),
    "install": (lambda cloud: cloud.commands("install"), {"held": ["install"]}),
    "running": (
        lambda cloud: cloud.ready() == 2 and cloud.commands("log"),
        {"runs": [{"*": SAVES}]},
    ),
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("create", signal.SIGTERM),
        ("waiting", signal.SIGHUP),
        ("install", signal.SIGINT),
        ("running", signal.SIGINT),
        ("running", signal.SIGTERM),
    ],
)
def test_interrupted_it_deletes_what_it_asked_for(checkout, cloud, tmp_path, moment, number):
    reached, scenario = MOMENTS[moment]
    cloud = cloud(**scenario)
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(
            # A process that is started in the background ignores SIGINT, and bash cannot trap a
            # signal that was ignored from the start.
            ["env", "--default-signal=INT,HUP", *command(checkout)],
            env=cloud.environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    until(lambda: reached(cloud), process=process, expected=moment)
    # Ctrl-C goes to the whole group, `kill` to one process.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    until(lambda: f"interrupted by {number.name}" in printed.read_text(), process=process)
    if moment == "create":
        # The request is still under way, and a slice that it makes later would stay: it waits.
        assert process.poll() is None
        assert not cloud.calls("delete")
        cloud.release()
    process.wait(LIMIT_SECONDS)
    output = printed.read_text()
    assert process.returncode == 128 + number, output
    assert not cloud.left
    if moment == "running":
        assert "worker 0: exit status 75" in output
        assert "worker 1: exit status 75" in output


@pytest.mark.parametrize("number", [signal.SIGINT, None], ids=["and Ctrl-C", "alone"])
def test_the_slice_is_deleted_also_when_nobody_reads_any_more(checkout, cloud, number):
    """As with `tpu.sh | tee log` and Ctrl-C, which ends tee first; or `tpu.sh | head`."""
    cloud = cloud(runs=[{"*": SAVES}])
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["env", "--default-signal=INT,HUP,PIPE", *command(checkout)],
        env=cloud.environment(), stdout=writer, stderr=writer, start_new_session=True,
    )  # fmt: skip
    os.close(writer)
    until(lambda: cloud.commands("log"), process=process)
    os.close(reader)
    if number:
        os.killpg(process.pid, number)
    else:
        # `head` sends no signal: the run goes on until somebody ends it.
        process.send_signal(signal.SIGTERM)
    process.wait(LIMIT_SECONDS)
    assert not cloud.left


def test_deleting_is_tried_again(checkout, cloud):
    cloud = cloud(hosts=1, delete_fails=2)
    assert launch(checkout, cloud, slice_=ONE_HOST).returncode == 0
    assert not cloud.left


def test_what_cannot_be_deleted_is_said_with_the_command(checkout, cloud):
    cloud = cloud(hosts=1, delete_fails=9)
    run = launch(checkout, cloud, slice_=ONE_HOST)
    assert run.returncode == 1
    assert cloud.left
    delete = "gcloud compute tpus queued-resources delete bert --zone=us-west4-a --force --quiet"
    assert told(run)[-1] == f"bert COULD NOT BE DELETED and may cost money: {delete}"


def test_a_slice_of_somebody_else_is_neither_used_nor_deleted(checkout, cloud):
    cloud = cloud(taken="ACTIVE")
    run = launch(checkout, cloud)
    assert run.returncode == 2
    assert "there is one in state ACTIVE" in run.stderr
    assert cloud.left
    assert {call[0] for call in cloud.calls()} == {"describe"}


def test_a_kept_slice_is_used_again(checkout, cloud):
    cloud = cloud(hosts=1)
    first = launch(checkout, cloud, "--keep", slice_=ONE_HOST)
    assert first.returncode == 0
    assert told(first)[-1].startswith(
        "bert is kept; it costs money until: gcloud compute tpus queued-resources delete"
    )
    second = launch(checkout, cloud, "--keep", slice_=ONE_HOST)
    assert second.returncode == 0, second.stdout
    assert cloud.left
    assert len(cloud.calls("create")) == 1
    assert len(cloud.runs()) == 2
    assert cloud.calls("delete") == []


# Mistakes


def without(option):
    at = SLICE.index(option)
    return (*SLICE[:at], *SLICE[at + 2 :])


def changed(option, value):
    return (*without(option), option, value)


@pytest.mark.parametrize(
    ("options", "words", "expected"),
    [
        (without("--name"), WORDS, "--name: found ''"),
        (changed("--name", "Bert_1"), WORDS, "--name: found 'Bert_1'"),
        (without("--zone"), WORDS, "--zone: found ''"),
        (changed("--accelerator", "a100"), WORDS, "--accelerator: found 'a100'"),
        (changed("--accelerator", "v4-x"), WORDS, "--accelerator: found 'v4-x'"),
        (
            changed("--accelerator", "v4-12"),
            WORDS,
            "--accelerator: v4-12 is no whole number of hosts",
        ),
        (changed("--run-dir", "runs/large"), WORDS, "a path that all 2 hosts share"),
        ((*changed("--run-dir", "runs/large"), "--keep"), WORDS, "a path that all 2 hosts share"),
        (
            (*changed("--run-dir", "runs/x")[:4], "--accelerator", "v4-8", "--run-dir", "/runs/x"),
            WORDS,
            "or --keep",
        ),
        (
            (
                *changed("--run-dir", "runs/x")[:4],
                "--accelerator",
                "v4-8",
                "--run-dir",
                "runs/x",
                "--keep",
            ),
            WORDS,
            "/a/whole/path",
        ),
        (without("--run-dir"), WORDS, "--run-dir: found ''"),
        ((*SLICE, "--spot", "--reserved"), WORDS, "--reserved beside --spot"),
        ((*SLICE, "--slices", "0"), WORDS, "--slices: found '0'"),
        ((*SLICE, "--max-restarts", "-1"), WORDS, "--max-restarts: found '-1'"),
        ((*SLICE, "--commit", "nowhere"), WORDS, "--commit: no commit 'nowhere'"),
        ((*SLICE, "--commit"), WORDS, "--commit: nothing given"),
        ((*SLICE, "--sopt"), WORDS, "--sopt: no such option"),
        (SLICE, (), "no configuration given"),
        (SLICE, ("configs/larg.py",), "configs/larg.py: no such configuration in commit"),
        (SLICE, (*WORDS, "--run-dir", "x"), "--run-dir goes before the --"),
        (SLICE, (*WORDS, "--run-dir=x"), "--run-dir goes before the --"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_asked_for(checkout, cloud, options, words, expected):
    cloud = cloud()
    run = launch(checkout, cloud, slice_=options, words=words)
    assert run.returncode == 2
    assert expected in one_line(run)
    assert cloud.calls() == []


def test_a_configuration_may_be_a_preset_of_the_commit_by_its_name(checkout, cloud):
    cloud = cloud()
    run = launch(checkout, cloud, "--dry-run", words=("large", *WORDS[1:]))
    assert run.returncode == 0
    assert r"train\ large\ " in run.stdout
    run = launch(checkout, cloud, "--dry-run", words=("larg", *WORDS[1:]))
    assert "larg: no such configuration in commit" in one_line(run)


def test_without_gcloud_it_says_what_to_install(checkout, tmp_path):
    for name in ("git", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    line = [shutil.which("bash"), *command(checkout)[1:]]
    run = subprocess.run(line, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode == 2
    assert "install the Google Cloud CLI" in one_line(run)
