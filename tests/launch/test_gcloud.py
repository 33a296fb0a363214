"""The real gcloud, where it is installed, takes the commands of launch/tpu.sh; a stand-in for
Google's API answers it.

No credentials, and every address is this machine's.
"""

import http.server
import json
import os
import shutil
import subprocess
import threading

import pytest

from tests.launch.test_tpu import command
from tests.waiting import LIMIT_SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed"),
]


class Api(http.server.BaseHTTPRequestHandler):
    """Google's API as far as it is asked: `server.states` has the queued resources, each of one
    node with two workers.
    """

    def answer(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
        path, _, query = self.path.partition("?")
        self.server.requests.append((self.command, path, body))
        *_, kind, name = path.split("/")
        operation = {
            "name": "projects/p/locations/us-west4-a/operations/o",
            "done": True,
            "response": {"name": NODE},
        }
        if kind == "projects":
            self.send(200, {"name": "p", "commonInstanceMetadata": {"items": []}})
        elif self.command == "POST" and name == "queuedResources":
            self.server.states[query.partition("queuedResourceId=")[2]] = "ACTIVE"
            self.send(200, operation)
        elif (kind == "queuedResources" and name not in self.server.states) or name.endswith(
            ":getGuestAttributes"
        ):
            self.send(
                404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "no such resource"}}
            )
        elif self.command == "GET" and kind == "queuedResources":
            nodes = [{"nodeId": "bert", "parent": "projects/p/locations/us-west4-a"}]
            self.send(
                200,
                {
                    "name": name,
                    "state": {"state": self.server.states[name]},
                    "tpu": {"nodeSpec": nodes},
                },
            )
        elif self.command == "GET" and kind == "nodes":
            ends = [{"ipAddress": f"10.0.0.{worker}"} for worker in range(2)]
            node = {
                "name": NODE,
                "id": "1",
                "state": "READY",
                "health": "HEALTHY",
                "apiVersion": "V2",
            }
            self.send(
                200, node | {"networkEndpoints": ends, "networkConfigs": [{}], "metadata": {}}
            )
        else:
            if self.command == "DELETE":
                del self.server.states[name]
            self.send(200, operation)

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def send(self, status, what):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(what).encode())

    def log_message(self, *_):
        pass


NODE = "projects/p/locations/us-west4-a/nodes/bert"
# What gcloud calls with words of its own and then `root@10.0.0.1 -- COMMAND WORDS` or `FILES
# root@10.0.0.1:bertjax/`.
SSH = """#!/bin/bash
until [ "$1" = -- ]; do host=$1; shift; done
shift
mkdir -p "$WORKERS/${host##*.}" && cd "$WORKERS/${host##*.}"
export PATH=$STAND_IN/worker_bin:/usr/bin:/bin HOME=$PWD LIBTPU_LOCKFILE=$PWD/libtpu_lockfile
exec bash -c "$*"
"""
SCP = """#!/bin/bash
target=${!#}
until [ "$1" = "$target" ]; do
    case $1 in *.tar.gz | *.sh) files+=("$1") ;; esac
    shift
done
worker=${target%%:*}
cp "${files[@]}" "$WORKERS/${worker##*.}/${target#*:}"
"""


@pytest.fixture
def api():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.requests, server.states = [], {"bert": "SUSPENDED"}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def environment(api, tmp_path):
    """In which the real gcloud asks this machine, without credentials."""
    address = f"http://127.0.0.1:{api.server_port}/"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": address,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{address}compute/v1/",
    }


@pytest.fixture
def gcloud(api, environment):
    def run(line):
        api.requests.clear()
        return subprocess.run(
            ["bash", "-c", line],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    return run


def planned(checkout, verb, *options, name="bert"):
    """The first line of a dry run that has this verb."""
    slice_ = (
        "--name",
        name,
        "--zone",
        "us-west4-a",
        "--accelerator",
        "v6e-16",
        "--run-dir",
        "gs://b/r",
    )
    run = subprocess.run(
        command(checkout, *options, "--dry-run", slice_=slice_), capture_output=True, text=True
    )
    return next(line for line in run.stdout.splitlines() if f" {verb} " in line)


def test_the_state_is_where_the_script_looks_for_it(checkout, gcloud):
    run = gcloud(planned(checkout, "describe"))
    assert (run.returncode, run.stdout) == (0, "SUSPENDED\n"), run.stderr
    run = gcloud(planned(checkout, "describe", name="other"))
    assert run.returncode == 1
    assert "NOT_FOUND" in run.stderr


def test_a_request_says_what_was_meant(checkout, gcloud, api):
    assert (
        gcloud(planned(checkout, "create", "--spot", "--valid-until-duration", "6h")).returncode
        == 0
    )
    ((_, _, asked),) = [request for request in api.requests if request[0] == "POST"]
    (node,) = asked["tpu"]["nodeSpec"]
    assert (asked["spot"], asked["queueingPolicy"]) == ({}, {"validUntilDuration": "21600s"})
    assert (node["nodeId"], node["node"]["acceleratorType"]) == ("bert", "v6e-16")
    assert node["node"]["runtimeVersion"] == "v2-alpha-tpuv6e"
    assert gcloud(planned(checkout, "create", "--reserved", "--slices", "2")).returncode == 0
    ((_, _, asked),) = [request for request in api.requests if request[0] == "POST"]
    assert asked["tpu"]["nodeSpec"][0]["multisliceParams"] == {
        "nodeCount": 2,
        "nodeIdPrefix": "bert",
    }
    assert "reservationName" in asked


def test_a_deletion_asks_no_question(checkout, gcloud, api):
    assert gcloud(planned(checkout, "delete")).returncode == 0
    assert [path for verb, path, _ in api.requests if verb == "DELETE"] == [
        "/v2/projects/p/locations/us-west4-a/queuedResources/bert"
    ]


@pytest.mark.parametrize("verb", ["ssh", "scp"])
def test_words_of_ssh_and_scp_are_known(checkout, gcloud, api, verb):
    """As far as the first question to the API; the workers themselves cannot be played to it."""
    run = gcloud(planned(checkout, verb, name="other"))
    assert "NOT_FOUND" in run.stderr, run.stderr
    assert api.requests[0][:2] == (
        "GET",
        "/v2/projects/p/locations/us-west4-a/queuedResources/other",
    )


def test_a_whole_run_by_the_real_gcloud(checkout, cloud, api, environment, tmp_path):
    """Its own ssh and scp are stand-ins, behind which the workers are those of the other tests."""
    api.states.clear()
    cloud = cloud(
        runs=[{"1": [["say", "boom"], ["exit", 1]], "*": [["exit", 1]]}, {"*": [["train", 0, 2]]}]
    )
    (cloud.folder / "bin" / "gcloud").unlink()
    for name, text in (("ssh", SSH), ("scp", SCP)):
        (cloud.folder / "bin" / name).write_text(text)
        (cloud.folder / "bin" / name).chmod(0o755)
    environment |= {
        "PATH": f"{cloud.folder}/bin:{environment['PATH']}",
        "STAND_IN": str(cloud.folder),
        "WORKERS": str(cloud.folder / "homes" / "0"),
        "BERTJAX_POLL_SECONDS": "0.1",
    }
    words = ("configs/large.py", "--x", "it's  two")
    run = subprocess.run(
        command(checkout, "--spot", words=words),
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "[worker 1] boom" in run.stdout
    assert "[worker 0] step 2: loss 9.8" in run.stdout
    assert api.states == {}
    assert sorted(run["worker"] for run in cloud.runs()) == ["0", "0", "1", "1"]
    for run in cloud.runs():
        assert run["argv"] == ["train", words[0], "--run-dir", "gs://bucket/runs/large", *words[1:]]
