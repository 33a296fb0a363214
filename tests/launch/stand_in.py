"""A stand-in for Google Cloud: a `gcloud` that records and answers, and folders as its workers.

`Cloud(folder, scenario)` puts `gcloud` into `folder/bin`. Its `ssh` really runs the command, in the
worker's folder, where `uv` and the `bertjax` that it installs are stand-ins too. `scenario` (all
optional):

    hosts           workers of a slice (4)
    states          for each request in turn, what `describe` answers in turn; the last one stays (ACTIVE)
    preempt         {request: n}: at the nth look at the workers, once all of them are ready, that request
                    is SUSPENDED and its processes are dead
    taken           the state of a resource of that name that exists before
    runs            for each start of a worker in turn {worker or "*": steps}; the last one stays
    install_fails   workers on which packages do not install
    repeat          every ssh command is run twice, as gcloud does when a connection drops after the first
    deaf            {request: looks at the workers, counted from 1, that none answers}
    unreachable     nodes which gcloud, with a warning and exit status 0, leaves out
    held            of "create" and "install", those that wait for `Cloud.release`
    delete_fails    so many deletions fail before one succeeds

Steps of a run:

    ["say", text]
    ["train", from, to]     continues from what an earlier run saved
    ["until_term"]          ready; saves on SIGTERM, exit status 75
    ["never"]               ready; ignores SIGTERM
    ["when_ready", count]   waits until so many workers are ready
    ["when_reported"]       waits until the workers were asked for the ends of their logs
    ["exit", status]

Ready is a worker that handles SIGTERM as its step says. No step waits for a length of time.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LIMIT_SECONDS = 600  # a safety net of every wait, as in tests/waiting.py
ZONED = {"--zone"}
SSH = ZONED | {"--node", "--worker", "--batch-size", "--quiet"}
# What the general release of the commands takes, by its help (SDK 528), of what matters here.
FLAGS = {
    "create": ZONED
    | {"--accelerator-type", "--runtime-version", "--node-id", "--node-count", "--node-prefix"}
    | {"--spot", "--reserved", "--guaranteed", "--valid-until-duration"},
    "describe": ZONED | {"--format"},
    "delete": ZONED | {"--force", "--quiet", "--async"},
    "ssh": SSH | {"--command"},
    "scp": SSH | {"--recurse"},
}


class Cloud:
    """The test's side: makes the stand-in, and reads what it recorded."""

    def __init__(self, folder, **scenario):
        self.folder = Path(folder)
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "worker_bin").mkdir()
        (self.folder / "scenario.json").write_text(json.dumps(scenario))
        for where, name in (("bin", "gcloud"), ("worker_bin", "uv")):
            self.script(f"{where}/{name}", f'exec {sys.executable} -S -E {__file__} {name} "$@"')
        if scenario.get("taken"):
            save(
                self.folder,
                {"request": -1, "asked": 0, "looks": 0, "nodes": 1, "states": [scenario["taken"]]},
            )

    def script(self, name, line):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def environment(self, **more):
        return {
            **{name: os.environ[name] for name in ("HOME", "LANG", "USER") if name in os.environ},
            "PATH": f"{self.folder}/bin:/usr/bin:/bin",
            "STAND_IN": str(self.folder),
            "BERTJAX_POLL_SECONDS": "0.02",
            # On a busy machine a worker may need long to end or to save. No test waits for these to
            # pass: each says what they are where it wants workers to be stopped.
            "BERTJAX_GRACE_SECONDS": str(LIMIT_SECONDS),
            "BERTJAX_STOP_SECONDS": str(LIMIT_SECONDS),
            "BERTJAX_MISSES": "4",
            **more,
        }

    def calls(self, *verbs):
        """The recorded calls, without `gcloud compute tpus queued-resources`; those of `verbs`
        where any are named.
        """
        file = self.folder / "calls.jsonl"
        calls = (
            [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        )
        return [call for call in calls if not verbs or call[0] in verbs]

    def commands(self, word):
        """The remote commands that begin with the worker script's `word`."""
        return remote_commands(self.folder, word)

    def ready(self):
        """How often a worker became ready."""
        return ready(self.folder)

    def runs(self):
        """What each start of `bertjax` on a worker saw: worker, argv, cwd and environment."""
        file = self.folder / "runs.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def left(self):
        """Whether a queued resource is there and costs money."""
        return (self.folder / "made.json").exists()

    def homes(self):
        return sorted(self.folder.glob("homes/*/*"))

    def release(self):
        """Let go on what the scenario holds."""
        (self.folder / "released").touch()

    def end(self):
        self.release()
        kill_all(self.folder)


def wait_for(condition):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("the stand-in waited in vain")
        time.sleep(0.02)


def hold(folder, scenario, what):
    """Wait for `Cloud.release` where the scenario holds `what`."""
    if what in scenario.get("held", []):
        wait_for((folder / "released").exists)


def ready(folder, request="*"):
    """How often a worker became ready, of one request or of all."""
    return sum(path.stat().st_size for path in folder.glob(f"homes/{request}/*/ready"))


def become_ready():
    """Called in the code's folder of a worker, two below its home."""
    with open("../../ready", "a") as file:
        file.write("x")


def remote_commands(folder, word):
    """The remote commands that were recorded and begin with the worker script's `word`."""
    file = folder / "calls.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    commands = []
    for verb, *arguments in map(json.loads, lines):
        if verb == "ssh":
            commands += [argument.removeprefix("--command=") for argument in arguments]
    prefix = f"bash bertjax/tpu_worker.sh {word}"
    return [command for command in commands if command.startswith(prefix)]


def load(folder):
    try:
        return json.loads((folder / "made.json").read_text())
    except FileNotFoundError:
        return None


def save(folder, made):
    part = folder / f"made.{os.getpid()}"
    part.write_text(json.dumps(made))
    part.replace(folder / "made.json")


def record(folder, name, what):
    with open(folder / name, "a") as file:
        file.write(json.dumps(what) + "\n")


def kill_all(folder):
    for file in folder.glob("homes/*/*/bertjax/attempts/*/pid"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def fail(text, status=1):
    print(f"ERROR: (gcloud.compute.tpus) {text}", file=sys.stderr)
    sys.exit(status)


def gcloud(folder, scenario, words):
    if words[:3] != ["compute", "tpus", "queued-resources"]:
        fail(f"Invalid choice: {words[:3]}", 2)
    verb, words = words[3], words[4:]
    record(folder, "calls.jsonl", [verb, *words])
    flags = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
    if unknown := set(flags) - FLAGS[verb]:
        fail(f"unrecognized arguments: {unknown}", 2)
    if "--zone" not in flags:
        fail("--zone is missing", 2)
    operands = [word for word in words if not word.startswith("--")]
    {"create": create, "describe": describe, "delete": delete, "ssh": ssh, "scp": scp}[verb](
        folder, scenario, operands, flags
    )


def create(folder, scenario, operands, flags):
    if load(folder):
        fail("ALREADY_EXISTS: Resource already exists")
    if ("--node-id" in flags) == ("--node-count" in flags):
        fail("Exactly one of (--node-id | --node-count) must be specified", 2)
    lines = (folder / "calls.jsonl").read_text().splitlines()
    request = sum(line.startswith('["create"') for line in lines) - 1
    states = scenario.get("states", [["ACTIVE"]])
    nodes = int(flags.get("--node-count", 1))
    for node in range(nodes):
        for worker in range(scenario.get("hosts", 4)):
            (folder / "homes" / str(request) / f"{node}-{worker}").mkdir(parents=True)
    made = {"request": request, "asked": 0, "looks": 0, "nodes": nodes}
    made["states"] = states[min(request, len(states) - 1)]
    if "create" not in scenario.get("held", []):
        save(folder, made)
        return
    # A request that is on its way to the service happens there, whatever becomes of gcloud.
    service = [sys.executable, "-S", "-E", __file__, "service", json.dumps(made)]
    subprocess.run(service, start_new_session=True, check=True)


def service(folder, scenario, words):
    hold(folder, scenario, "create")
    save(folder, json.loads(words[0]))


def describe(folder, scenario, operands, flags):
    made = load(folder)
    if not made:
        fail("NOT_FOUND: Resource was not found")
    state = made["states"][min(made["asked"], len(made["states"]) - 1)]
    save(folder, made | {"asked": made["asked"] + 1})
    if flags["--format"] == "value(state.state)":
        print(state)
    else:
        print(f"state:\n  state: {state}")


def delete(folder, scenario, operands, flags):
    failures = (
        len((folder / "delete_failures").read_text())
        if (folder / "delete_failures").exists()
        else 0
    )
    if failures < scenario.get("delete_fails", 0):
        (folder / "delete_failures").write_text("x" * (failures + 1))
        fail("INTERNAL: try again")
    if "--force" not in flags or "--quiet" not in flags:
        fail("the queued resource has nodes", 1)
    if not load(folder):
        fail("NOT_FOUND: Resource was not found")
    kill_all(folder)
    (folder / "made.json").unlink()


def targets(folder, scenario, made, flags):
    if made is None or made["states"][-1] in ("SUSPENDED", "FAILED"):
        fail("the TPU is in state PREEMPTED and cannot be used")
    hosts = scenario.get("hosts", 4)

    def chosen(flag, count):
        value = flags.get(flag, "0")
        if value != "all" and int(value) >= count:
            fail(f"{flag}: index {value} is larger than the valid indexes")
        return range(count) if value == "all" else [int(value)]

    nodes, workers = chosen("--node", made["nodes"]), chosen("--worker", hosts)
    nodes = [node for node in nodes if node not in scenario.get("unreachable", [])]
    homes = folder / "homes" / str(made["request"])
    return [(worker, homes / f"{node}-{worker}") for node in nodes for worker in workers]


def ssh(folder, scenario, operands, flags):
    made = load(folder)
    command = flags["--command"]
    if "tpu_worker.sh state" in command and made:
        made["looks"] += 1
        if made["looks"] == scenario.get("preempt", {}).get(str(made["request"])):
            count = made["nodes"] * scenario.get("hosts", 4)
            wait_for(lambda: ready(folder, made["request"]) == count)
            kill_all(folder)
            made["states"] = ["SUSPENDED"]
        save(folder, made)
    if made and made["looks"] in scenario.get("deaf", {}).get(str(made["request"]), []):
        fail("Connection timed out")
    running = []
    for worker, home in targets(folder, scenario, made, flags):
        print(f"SSH: Attempting to connect to worker {worker}...", file=sys.stderr)
        environment = {
            "PATH": f"{folder}/worker_bin:/usr/bin:/bin",
            "HOME": str(home),
            "STAND_IN": str(folder),
            "LIBTPU_LOCKFILE": str(home / "libtpu_lockfile"),
        }
        # gcloud splits at spaces, ssh joins with them, the login shell reads the outcome.
        line = ["bash", "-c", " ".join(command.split(" "))]
        for again in range(2 if scenario.get("repeat") else 1):
            process = subprocess.Popen(line, cwd=home, env=environment, stdin=subprocess.DEVNULL)
            if again or not scenario.get("repeat"):
                running.append((worker, process))
            else:
                process.wait()
    status = 0
    for worker, process in running:
        if process.wait():
            status = process.returncode
            print(
                f"##### Command execution on worker {worker} failed with exit status {status}.",
                file=sys.stderr,
            )
    sys.exit(status)


def scp(folder, scenario, operands, flags):
    *sources, target = operands
    for _, home in targets(folder, scenario, load(folder), flags):
        for source in sources:
            shutil.copy(source, home / target.partition(":")[2])


def uv(folder, scenario, words):
    """In ~/bertjax of a worker: `uv venv` and `uv pip install`."""
    me = Path("worker").read_text().strip()
    record(folder, "uv.jsonl", [me, *words])
    if words[0] == "venv":
        os.makedirs(f"{words[-1]}/bin")
        Path(words[-1], "bin", "python").symlink_to(sys.executable)
        return
    assert words[:2] == ["pip", "install"], words
    hold(folder, scenario, "install")
    if me in scenario.get("install_fails", []):
        print("error: Failed to download `jaxlib`: no space left on device", file=sys.stderr)
        sys.exit(2)
    bertjax = Path("venv/bin/bertjax")
    bertjax.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} bertjax "$@"\n')
    bertjax.chmod(0o755)


def bertjax(folder, scenario, words):
    me = Path("../worker").read_text().strip()
    before = (
        (folder / "runs.jsonl").read_text().splitlines() if (folder / "runs.jsonl").exists() else []
    )
    starts = len([1 for line in before if json.loads(line)["worker"] == me])
    names = ("BERTJAX_DISTRIBUTED", "JAX_COORDINATOR_PORT")
    saw = {"worker": me, "argv": words, "cwd": os.getcwd(), "files": sorted(os.listdir())}
    record(
        folder, "runs.jsonl", saw | {"environment": {name: os.environ.get(name) for name in names}}
    )
    plans = scenario.get("runs", [{"*": [["train", 0, 2], ["exit", 0]]}])
    plan = plans[min(starts, len(plans) - 1)]
    for step, *values in plan.get(me, plan.get("*", [])):
        STEPS[step](folder, *values)
    sys.exit(0)


def say(folder, text):
    print(text, flush=True)


def train(folder, first, last):
    saved = folder / "saved_step"
    if saved.exists():
        first = int(saved.read_text())
        say(folder, f"restored step {first}")
    for step in range(first + 1, last + 1):
        say(folder, f"step {step}: loss {10 - step / 10:.1f}")
        time.sleep(0.02)
    if Path("../worker").read_text().strip() in ("0", "0/0"):
        saved.write_text(str(last))


def until_term(folder):
    # Blocked, a signal that comes before `sigwait` stays pending: none is lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    become_ready()
    signal.sigwait({signal.SIGTERM})
    say(folder, "stopped by a signal, saved; the same command continues")
    sys.exit(75)


def never(folder):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    become_ready()
    while True:
        signal.pause()


STEPS = {
    "say": say,
    "train": train,
    "until_term": until_term,
    "never": never,
    "when_ready": lambda folder, count: wait_for(lambda: ready(folder) >= count),
    "when_reported": lambda folder: wait_for(lambda: remote_commands(folder, "report")),
    "exit": lambda folder, status: sys.exit(status),
}

if __name__ == "__main__":
    stand_in = Path(os.environ["STAND_IN"])
    programs = {"gcloud": gcloud, "uv": uv, "bertjax": bertjax, "service": service}
    scenario_of_test = json.loads((stand_in / "scenario.json").read_text())
    programs[sys.argv[1]](stand_in, scenario_of_test, sys.argv[2:])
