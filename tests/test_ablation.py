"""The program of the ablation (`benchmarks/ablation.py`): its forms, statistics, and a start after a kill."""

import json
import lzma
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_every_form_is_a_configuration_with_the_same_model_sizes():
    from ablations.forms import FORMS, Sizes, configuration

    sizes = Sizes()
    for name in FORMS:
        config = configuration(name, 1, 100, Path("prepared"), sizes)
        model = config.model
        assert (model.num_hidden_layers, model.hidden_size) == (sizes.layers, sizes.width)
        assert (config.train.steps, config.seed) == (100, 1)
        assert config.optimizer.decay_steps == 20
    assert configuration("gpt_bert", 0, 100, Path("prepared"), sizes).data.causal_share == 1 / 16


def test_measures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    from ablations import intervals

    rng = np.random.default_rng(0)
    labels = [str(value) for value in rng.integers(2, size=200)]
    said = [label if rng.random() < 0.7 else "1" for label in labels]
    sums = intervals.outcomes(labels, said, "1").sum(0, keepdims=True)
    assert intervals.accuracy(sums)[0] == pytest.approx(metrics.accuracy_score(labels, said))
    assert intervals.f1(sums)[0] == pytest.approx(metrics.f1_score(labels, said, pos_label="1"))
    expected = metrics.matthews_corrcoef(labels, said)
    assert intervals.matthews(sums)[0] == pytest.approx(expected)
    same = intervals.outcomes(labels, ["1"] * 200, "1").sum(0, keepdims=True)
    assert intervals.matthews(same)[0] == 0
    with pytest.raises(ValueError, match="found no 'yes'"):
        intervals.outcomes(labels, said, "yes")


def test_equal_forms_are_not_told_apart_and_different_ones_are():
    from ablations.intervals import Resampling, bits_per_byte, is_told_apart

    rng = np.random.default_rng(1)
    sizes = rng.integers(50, 90, size=60)

    def form(level, seeds=2):
        noise = rng.normal(1, 0.1, size=(seeds, 60))
        return [np.stack([level * sizes * own, sizes], axis=1) for own in noise]

    forms = {"a": form(2.0), "b": form(2.0), "worse": form(2.3)}
    found = Resampling(bits_per_byte, forms)
    assert found.interval("a").low < 2.0 < found.interval("a").high
    assert not is_told_apart(found.difference("b", "a", 2))
    difference = found.difference("worse", "a", 2)
    assert is_told_apart(difference)
    assert difference.low < 0.3 < difference.high
    # More comparisons, wider intervals.
    wider = found.difference("worse", "a", 20)
    assert wider.high - wider.low > difference.high - difference.low


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    from ablations.intervals import Resampling, bits_per_byte

    rng = np.random.default_rng(2)
    values = rng.normal(5, 1, size=400)
    found = Resampling(bits_per_byte, {"a": [np.stack([values, np.ones(400)], axis=1)]})
    own = found.interval("a")
    assert own.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert own.high - own.value == pytest.approx(half, rel=0.1)
    assert own.value - own.low == pytest.approx(half, rel=0.1)


def test_a_curve_is_read_between_its_points():
    from ablations.intervals import at_tokens

    values = [np.array([1.0]), np.array([3.0])]
    assert at_tokens([10, 20], values, 15) == 2
    assert at_tokens([10, 20], values, 20) == 3
    assert at_tokens([10, 20], values, 9) is None
    assert at_tokens([10, 20], values, 21) is None
    assert at_tokens([10], values[:1], 10) == 1


def marks(start, pairs):
    return [{"start": start, "step": step, "seconds": seconds} for step, seconds in pairs]


def test_seconds_leave_out_what_was_compiled_and_what_was_done_twice():
    from ablations.cells import cpu_seconds

    # 30 s of start and compilation, then 1 s a step.
    whole = marks("a", [(10, 30.0), (20, 40.0), (30, 50.0), (40, 60.0)])
    assert cpu_seconds(whole) == 40
    # Killed after step 30; the next start goes on from a checkpoint at 20, with 2 s a step. What was
    # compiled in costs the median, 1.5 s a step.
    resumed = whole[:3] + marks("b", [(30, 25.0), (40, 45.0)])
    assert cpu_seconds(resumed) == 15 + 10 + 15 + 20
    # Another program from step 20 on: compiled in 100 s, then 3 s a step.
    phases = marks("a", [(10, 30.0), (20, 40.0), (30, 170.0), (40, 200.0)])
    assert cpu_seconds(phases, [20]) == 10 + 10 + 30 + 30


def test_results_go_on_after_their_last_whole_line(tmp_path):
    from reporting import Results

    path = tmp_path / "results.jsonl"
    Results(path).add({"kind": "train", "form": "bert", "seed": 0})
    with path.open("a") as file:
        file.write('{"kind": "tra')  # killed while it wrote
    results = Results(path)
    assert results.newest(kind="train", form="bert", seed=0)
    assert not results.newest(kind="train", form="bert", seed=1)
    results.add({"kind": "train", "form": "bert", "seed": 1})
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [0, 1]
    with pytest.raises(SystemExit, match="in use by another process"):
        Results(path)


WORDS = [
    "the",
    "cat",
    "dog",
    "bird",
    "fish",
    "sees",
    "hears",
    "follows",
    "other",
    "no",
    "one",
    "good",
    "bad",
    "man",
    "house",
    "tree",
]
SIZES = {"vocab_size": 60, "width": 32, "heads": 4, "length": 32, "rows": 16}


def write_data(folder):
    rng = random.Random(0)

    def sentence():
        return " ".join(rng.choices(WORDS, k=rng.randint(4, 9))) + "."

    documents = ["\n".join(sentence() for _ in range(8)) for _ in range(300)]
    with lzma.open(folder / "corpus.txt.xz", "wt") as file:
        file.write("\n\n".join(documents) + "\n")
    cola = folder / "tasks" / "cola"
    cola.mkdir(parents=True)
    for name in ("in_domain_train.tsv", "in_domain_dev.tsv"):
        lines = [f"x\t{number % 2}\t\t{sentence()}" for number in range(40)]
        (cola / name).write_text("\n".join(lines) + "\n")


def started(folder, *words):
    command = [sys.executable, BENCHMARKS / "ablation.py", "--folder", folder / "bench"]
    command += ["--corpus", folder / "corpus.txt.xz", "--tasks", folder / "tasks"]
    command += ["--forms", "bert", "electra", "--seeds", "0", "--budget", "3"]
    command += ["--sizes", json.dumps(SIZES), *words]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
    )


def wait_for(condition, process, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_two_forms_killed_in_the_middle_go_on_and_make_the_page(tmp_path):
    write_data(tmp_path)
    bench = tmp_path / "bench"
    stages = ("--stages", "calibrate", "train", "bits", "cola")
    first = started(tmp_path, *stages)
    runs = bench / "cells"
    # A kept checkpoint of a cell that is not finished.
    wait_for(lambda: any(runs.glob("*/checkpoints/[1-9]*/state")), first)
    # Its workers end by themselves.
    first.kill()
    first.wait()
    before = (bench / "results.jsonl").read_text()
    assert '"kind": "train"' not in before or before.count('"kind": "train"') < 2
    second = started(tmp_path, *stages)
    output, _ = second.communicate(timeout=900)
    assert second.returncode == 0, output
    assert (bench / "results.jsonl").read_text().startswith(before)
    entries = [json.loads(line) for line in (bench / "results.jsonl").read_text().splitlines()]
    done = {(entry["kind"], entry.get("form")) for entry in entries}
    for stage in ("calibrate", "train", "bits", "cola"):
        assert {(stage, "bert"), (stage, "electra")} <= done
    by_form = {entry["form"]: entry for entry in entries if entry["kind"] == "bits"}
    assert by_form["electra"]["network"] == "generator"
    for entry in by_form.values():
        # It learns: the end is better than the first point.
        first_point, last = entry["curve"][0], entry["curve"][-1]
        assert sum(last["bits"]) < sum(first_point["bits"])
        assert first_point["bytes"] == last["bytes"] == by_form["bert"]["curve"][0]["bytes"]
    tables = (bench / "tables.md").read_text()
    assert "ELECTRA, its generator" in tables
    assert "CoLA, Matthews' correlation" in tables
    page = (bench / "report.html").read_text()
    assert 'id="plot-tokens"' in page
    assert "https://cdn" not in page.split("</head>")[1]
    # A third start has nothing to do; other settings are another folder.
    third = started(tmp_path, *stages)
    assert third.wait(timeout=300) == 0
    other = started(tmp_path, "--stages", "train", "--budget", "4")
    output, _ = other.communicate(timeout=300)
    assert other.returncode == 1
    assert "another --folder" in output
