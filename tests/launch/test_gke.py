"""launch/gke.yaml: what matters of it, by the fields' names in JobSet's and Kubernetes' own
definitions.
"""

import re

import pytest
import yaml

from bertjax.cli.train import STOPPED
from tests.launch.conftest import ROOT

TEXT = (ROOT / "launch" / "gke.yaml").read_text()


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load(TEXT)


@pytest.fixture(scope="module")
def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.fixture(scope="module")
def container(job):
    (container,) = job["template"]["spec"]["containers"]
    return container


def test_it_is_a_jobset(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    exclusive = jobset["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
    assert exclusive == "cloud.google.com/gke-nodepool"


def outcome(jobset, job, status):
    """What becomes of the set when a host ends with `status`: the controllers' rules, in order."""
    reason = "BackoffLimitExceeded" if job["backoffLimit"] == 0 else None
    for rule in job["podFailurePolicy"]["rules"]:
        codes = rule["onExitCodes"]
        assert codes["operator"] == "In"
        if status in codes["values"] and rule["action"] == "FailJob":
            reason = "PodFailurePolicy"
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        if reason in rule["onJobFailureReasons"]:
            return rule["action"]
    return "RestartJobSet"


def test_75_and_crashes_restart_and_2_does_not(jobset, job):
    assert outcome(jobset, job, 2) == "FailJobSet"
    for status in (STOPPED, 1, 134, 137, 143):
        assert outcome(jobset, job, status) == "RestartJobSet"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_pods_are_left_to_these_rules(job, container):
    assert job["template"]["spec"]["restartPolicy"] == "Never", (
        "podFailurePolicy is refused with another"
    )
    assert {rule["onExitCodes"]["containerName"] for rule in job["podFailurePolicy"]["rules"]} == {
        container["name"]
    }
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_hosts_and_chips_are_those_of_the_topology(job, container):
    selector = job["template"]["spec"]["nodeSelector"]
    rows, columns = map(int, selector["cloud.google.com/gke-tpu-topology"].split("x"))
    assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert job["parallelism"] == job["completions"]
    assert job["completions"] * container["resources"]["limits"]["google.com/tpu"] == rows * columns


def test_the_processes_find_each_other(container):
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment == {
        "BERTJAX_DISTRIBUTED": "1",
        "JAX_COORDINATOR_PORT": "8476",
        "BERTJAX_LOCK_SECONDS": "120",
    }
    assert [port["containerPort"] for port in container["ports"]] == [8476]


def test_the_command_is_one_of_bertjax_on_shared_folders(container):
    assert container["command"] == ["bertjax", "train"]
    config, *options = container["args"]
    assert (ROOT / config).exists()
    assert all(isinstance(word, str) for word in container["args"])
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert set(given) == {"--run-dir", "--data.prepared-dir"}
    assert all(value.startswith("gs://") for value in given.values())


def test_what_is_to_be_filled_in_says_so():
    lines = TEXT.splitlines()
    to_fill = [
        i
        for i, line in enumerate(lines)
        if re.search(r"^ .*(BUCKET|PROJECT|configs/|tpu: |topology: |replicas: )", line)
    ]
    assert len(to_fill) == 8
    for i in to_fill:
        assert (
            "FILL IN" in lines[i]
            or "# FILL IN" in lines[i - 1] + lines[i - 2]
            or "exclusive" in lines[i]
        ), lines[i]
