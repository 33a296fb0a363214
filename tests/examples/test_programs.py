"""The programs of `examples/`, each run on a folder that was exported from a small model."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import bertjax
from bertjax.config import FinetuneConfig
from bertjax.finetuning.objective import TaskObjective
from bertjax.tasks import registry
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.training.saved_model import save_model
from tests.factory import small_config
from tests.tasks.tiny import MODEL, TOKENIZER

EXAMPLES = Path(__file__).parents[2] / "examples"
# Of different lengths, so that rows have padding; the last is longer than the model's 16 positions.
TEXTS = ["the good dog sees rome.", "no", "one bird hears the bad cat.", "the cat sees " * 9]
PROGRAMS = {
    "run_onnx": "onnx",
    "run_stablehlo": "stablehlo",
    "run_saved_model": "saved-model",
    "run_transformers": "huggingface",
}
NEEDS = {"run_onnx": "onnxruntime", "run_transformers": "transformers"}
LABELS = ("art", "law", "war")


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A run of random parameters, as fine-tuning on a task leaves it."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    task = SingleLabel("topics", LABELS)
    params = TaskObjective(MODEL, (task,)).init(jax.random.key(5))
    rng = np.random.default_rng(6)
    # Larger ones, drawn such that the texts have all three labels.
    params = jax.tree.map(lambda p: np.float32(p + 0.3 * rng.standard_normal(p.shape)), params)
    options = FinetuneConfig(tasks=("topics:classification=topics",), max_seq_length=16)
    config = small_config(model=MODEL, finetune=options)
    save_model(folder, config, params, TOKENIZER, {"tasks": [registry.to_plain(task)]})
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    params = bertjax.init(MODEL, jax.random.key(7))
    save_model(folder, small_config(model=MODEL), params, TOKENIZER, {})
    return folder


def run(name, *words):
    """The lines that a program prints, each cut at its tab."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    drop = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in drop}
    command = [sys.executable, EXAMPLES / f"{name}.py", *words]
    # In another folder: nothing of bertjax is found there.
    ended = subprocess.run(command, cwd=words[0], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [line.split("\t") for line in ended.stdout.splitlines()]


# Each program imports its runtime anew, which takes seconds.
@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_labels_that_bertjax_predicts(name, finetuned, tmp_path):
    bertjax.export_model(finetuned, tmp_path / "out", PROGRAMS[name])
    lines = run(name, tmp_path / "out", *TEXTS)
    assert [text for _, text in lines] == TEXTS
    predictions = bertjax.predict_texts(finetuned, TEXTS)
    labels = [prediction.label for prediction in predictions]
    assert set(labels) == set(LABELS)
    assert [answer.split()[0] for answer, _ in lines] == labels
    for (answer, _), prediction in zip(lines, predictions, strict=True):
        probability = prediction.probabilities[LABELS.index(prediction.label)]
        assert float(answer.split()[1]) == pytest.approx(probability, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_vectors_of_embed_without_a_task(name, pretrained, tmp_path):
    bertjax.export_model(pretrained, tmp_path / "out", PROGRAMS[name])
    answers = [answer for answer, _ in run(name, tmp_path / "out", *TEXTS)]
    found = np.array([answer.split() for answer in answers], float)
    np.testing.assert_allclose(found, bertjax.embed(pretrained, TEXTS)[:, :4], atol=2e-4)


@pytest.mark.slow
def test_the_request_to_tensorflow_serving_has_the_inputs_of_the_signature(finetuned, tmp_path):
    import tensorflow as tf

    bertjax.export_model(finetuned, tmp_path / "out", "saved-model")
    ((body,),) = run("run_saved_model", tmp_path / "out", "--request", *TEXTS)
    request = json.loads(body)
    assert request["signature_name"] == "serving_default"
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    _, inputs = serve.structured_input_signature
    assert set(request["inputs"]) == set(inputs)
    arrays = {name: tf.constant(rows, tf.int32) for name, rows in request["inputs"].items()}
    labels = [LABELS[i] for i in serve(**arrays)["logits"].numpy().argmax(-1)]
    assert labels == [p.label for p in bertjax.predict_texts(finetuned, TEXTS)]


def shared_functions():
    spec = importlib.util.spec_from_file_location(
        "exported_folder", EXAMPLES / "exported_folder.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "label_type, logits, answer",
    [
        ("class", [0.0, 1000.0, 0.0], "law 1.0000"),
        ("class", [np.log(2), 0.0, 0.0], "art 0.5000"),
        ("classes", [1.0, -1.0, 2.0], "art, war"),
        ("classes", [-1.0, -1.0, -1.0], "none"),
        ("number", [2.5], "2.5000"),
        ("class", [[0, 1, 0], [0, 0, 2], [3, 0, 0]], "law war art"),
    ],
)
def test_an_answer_is_in_words_for_each_kind_of_labels(label_type, logits, answer):
    task = {"labels": list(LABELS), "label_type": label_type}
    assert shared_functions().task_answer(task, np.array(logits)) == answer


def test_each_format_of_programs_has_its_example():
    named = {path.stem for path in EXAMPLES.glob("run_*.py")}
    assert named == set(PROGRAMS)
    from bertjax.interop.export_model import PROGRAMS as FORMATS

    assert set(FORMATS) < set(PROGRAMS.values())
