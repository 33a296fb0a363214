"""Exported folders compute the same in their runtimes as here, or are refused in one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bertjax
from bertjax.compression.figures import model_predict
from bertjax.compression.held_out import measure_of
from bertjax.compression.runtimes import process
from bertjax.compression.runtimes.process import opened
from bertjax.errors import UserError
from bertjax.interop.checkpoints.task_head import load_with_head
from tests.compression.small_runs import encoder_run, task_run
from tests.waiting import until


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return task_run(tmp_path_factory.mktemp("task"))


def compared(run, folder, runtime, largest):
    """The figure and the logits of an exported folder and of its run."""
    measure = measure_of(run)
    model, head = load_with_head(run)
    here = model_predict(model.config.model, model.params, measure.output, head)
    with opened(folder, runtime, threads=1) as there:

        def predict(inputs):
            return there.predict(inputs, [measure.output])[measure.output]

        for inputs in measure.batches():
            largest(f"logits in {runtime}", np.abs(predict(inputs) - here(inputs)).max(), 2e-5)
        assert measure.figure(predict) == measure.figure(here)
        seconds = there.seconds(inputs, [measure.output], 3)
        assert seconds.shape == (3,)
        assert (seconds > 0).all()
        return there.version


def test_onnx_runtime_gives_the_figure_of_the_run(run, tmp_path, largest):
    runtime = pytest.importorskip("onnxruntime")
    folder = bertjax.export_model(run, tmp_path / "out", "onnx")
    assert compared(run, folder, "onnx", largest) == f"onnxruntime {runtime.__version__}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "format"), [("transformers", "huggingface"), ("stablehlo", "stablehlo")]
)
def test_other_runtimes_give_the_figure_of_the_run(run, tmp_path, largest, runtime, format):
    package = pytest.importorskip("transformers" if runtime == "transformers" else "jax")
    folder = bertjax.export_model(run, tmp_path / "out", format)
    version = compared(run, folder, runtime, largest)
    assert version.startswith(f"{package.__name__} {package.__version__}")


@pytest.mark.slow
@pytest.mark.parametrize("heads", [(), ("pooler",)])
def test_an_encoder_of_transformers_gives_its_hidden_states_with_and_without_pooler(
    tmp_path, largest, heads
):
    pytest.importorskip("transformers")
    run = encoder_run(tmp_path, heads=heads)
    folder = bertjax.export_model(run, tmp_path / "out", "huggingface")
    model, _ = load_with_head(run)
    here = model_predict(model.config.model, model.params, "hidden")
    inputs = {name: np.ones((2, 5), np.int32) for name in ("input_ids", "input_mask")}
    inputs["segment_ids"] = np.zeros((2, 5), np.int32)
    with opened(folder, "transformers", threads=1) as there:
        assert there.outputs == (("hidden", "pooled") if heads else ("hidden",))
        hidden = there.predict(inputs, ["hidden"])["hidden"]
    largest("hidden states in transformers", np.abs(hidden - here(inputs)).max(), 2e-5)


def test_what_a_runtime_refuses_and_its_end_are_one_line_each(run, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no model")
    with (
        pytest.raises(UserError, match=r"bad: found a model that its runtime refuses \(.*\), exp"),
        opened(tmp_path / "bad", "onnx"),
    ):
        pass
    folder = bertjax.export_model(run, tmp_path / "out", "onnx")
    rows = {name: np.ones((1, 17), np.int32) for name in ("input_ids", "input_mask")}
    rows["segment_ids"] = np.zeros((1, 17), np.int32)
    with opened(folder, "onnx", threads=1) as model:
        with pytest.raises(UserError, match="outputs: found logits, expected hidden among them"):
            model.predict(rows, ["hidden"])
        with pytest.raises(UserError, match="out: found a model that its runtime refuses"):
            model.predict(rows, ["logits"])
        os.kill(model._process.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"the process of its runtime ended \(status -9\)"):
            model.predict(rows, ["logits"])


def test_a_runtime_that_is_not_installed_is_refused_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(process._PACKAGES, "onnx", {"no_such_runtime": "onnx"})
    message = r"no_such_runtime: found no such package.*pip install 'bertjax\[onnx\]'"
    with pytest.raises(UserError, match=message), opened(tmp_path, "onnx"):
        pass


@pytest.mark.slow
def test_a_pipeline_of_transformers_is_timed_on_texts(run, tmp_path):
    pytest.importorskip("transformers")
    folder = bertjax.export_model(run, tmp_path / "out", "huggingface")
    rows = {name: np.ones((2, 9), np.int32) for name in ("input_ids", "input_mask", "segment_ids")}
    with opened(folder, "pipeline", threads=1) as model:
        assert (model.seconds(rows, ["answers"], 3) > 0).all()


def test_an_opset_that_the_runtime_does_not_know_is_refused_in_one_line(run, tmp_path):
    onnx = pytest.importorskip("onnx")
    folder = Path(bertjax.export_model(run, tmp_path / "out", "onnx"))
    program = onnx.load(str(folder / "model.onnx"))
    program.opset_import[0].version = 99
    (folder / "model.onnx").write_bytes(program.SerializeToString())
    with (
        pytest.raises(UserError, match=r"out: found a model that its runtime refuses \(.*opset"),
        opened(folder, "onnx"),
    ):
        pass


PARENT = """
import sys, time
import numpy as np
from bertjax.compression.runtimes.process import opened
rows = {name: np.ones((1, 9), np.int32) for name in ("input_ids", "input_mask", "segment_ids")}
with opened(sys.argv[1], "onnx", threads=1) as model:
    print(model._process.pid, flush=True)
    model.seconds(rows, ["logits"], 10_000_000)
"""


@pytest.mark.slow
def test_the_process_of_a_runtime_ends_with_its_killed_parent(run, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = bertjax.export_model(run, tmp_path / "out", "onnx")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        child = int(parent.stdout.readline())
        # Its answers would take minutes.
        assert Path(f"/proc/{child}").exists()
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: not Path(f"/proc/{child}").exists())
