"""Fine-tuned models in other programs: a task's head goes with them and gives the same logits."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.finetuning.load import load_finetuned
from bertjax.finetuning.objective import TaskObjective
from bertjax.interop.checkpoints.task_head import load_with_head
from bertjax.model.layout import ANYWHERE
from bertjax.tasks import registry
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.seq2seq.task import make_task
from bertjax.tasks.tagging.task import Tagging
from bertjax.training.saved_model import save_model
from tests.factory import SMALL_MODEL, small_config
from tests.interop.exported_programs import run_onnx, run_saved_model, run_stablehlo
from tests.tasks.tiny import MODEL, TOKENIZER
from tests.training.checkpoints import without_digests

TASKS = {
    "class": ("classification", SingleLabel("topics", ("art", "law", "war"))),
    "classes": ("classification", MultiLabel("topics", ("art", "law"))),
    "number": ("classification", Regression("stsb")),
    "choice": ("choice", Choice("swag", 4)),
    "tagging": ("tagging", Tagging("ner", ("O", "B-LOC", "I-LOC"))),
    "spans": ("spans", Spans("squad")),
}
MODELS = {
    "bert": SMALL_MODEL,
    "roberta": dataclasses.replace(
        SMALL_MODEL, position_offset=2, type_vocab_size=1, max_position_embeddings=18
    ),
    "albert": dataclasses.replace(SMALL_MODEL, embedding_size=8, share_layers=True),
    "electra": dataclasses.replace(SMALL_MODEL, embedding_size=8),
}
MODELS["xlm-roberta"] = dataclasses.replace(MODELS["roberta"], exported_as="xlm-roberta")
CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "choice": "AutoModelForMultipleChoice",
    "tagging": "AutoModelForTokenClassification",
    "spans": "AutoModelForQuestionAnswering",
}


def save_run(folder, model, *named, heads=("pooler",)):
    """A run of random parameters as fine-tuning on these (kind, task)s leaves it."""
    tasks = tuple(task for _, task in named)
    config = small_config(model=dataclasses.asdict(dataclasses.replace(model, heads=heads)))
    params = TaskObjective(config.model, tasks).init(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.float32(leaf + 0.2 * rng.standard_normal(leaf.shape)), params
    )
    facts = {"tasks": [registry.to_plain(task) for task in tasks]}
    save_model(folder, config, params, None, facts)
    return folder


def drawn_batch(pad_id, *shape):
    rng = np.random.default_rng(1)
    mask = (np.arange(shape[-1]) < rng.integers(3, shape[-1] + 1, (*shape[:-1], 1))).astype(
        np.int32
    )
    ids = np.where(mask, rng.integers(5, 64, shape), pad_id).astype(np.int32)
    return {"input_ids": ids, "input_mask": mask, "segment_ids": np.zeros(shape, np.int32)}


def task_logits(run, batch):
    """The logits of a run's only task, as evaluation has them."""
    model = load_finetuned(run)
    (task,) = model.objective.tasks
    return np.asarray(
        task.logits(model.config.model, model.params, batch, key=None, layout=ANYWHERE)
    )


# ELECTRA has no pooler; RoBERTa's is inside its classifier of texts.
PAIRS = [("bert", name) for name in TASKS] + [
    ("roberta", name) for name in ("class", "choice", "spans")
]
PAIRS += [("xlm-roberta", name) for name in ("class", "choice", "tagging")]
PAIRS += [("albert", "number"), ("albert", "tagging"), ("electra", "tagging"), ("electra", "spans")]


# Every kind of task of one architecture, and each architecture once.
FIRST = {("roberta", "class"), ("albert", "tagging"), ("electra", "spans")}


def of_one_kind_or_slow(pairs):
    """The pairs, those marked slow that differ from others in the architecture alone."""
    quick = FIRST | {pair for pair in pairs if pair[0] == "bert"}
    return [
        pair if pair in quick else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs
    ]


@pytest.mark.parametrize("architecture, name", of_one_kind_or_slow(PAIRS))
def test_transformers_gives_the_scores_that_the_task_has_here(tmp_path, architecture, name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    (kind, task), model = TASKS[name], MODELS[architecture]
    # Pretraining's head, and on tokens the pooler, stay behind.
    run = save_run(
        tmp_path / "run",
        model,
        TASKS[name],
        heads=("mlm",) if architecture == "electra" else ("pooler", "mlm"),
    )
    bertjax.export_model(run, tmp_path / "out", "huggingface")

    loader = getattr(transformers, CLASSES[kind])
    reference, report = loader.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    batch = drawn_batch(
        max(model.position_offset - 1, 0), *((3, 4, 11) if kind == "choice" else (3, 11))
    )
    ids, mask = torch.tensor(batch["input_ids"]), torch.tensor(batch["input_mask"])
    with torch.no_grad():
        outputs = reference.eval()(input_ids=ids, attention_mask=mask)
    outputs = (
        torch.stack([outputs.start_logits, outputs.end_logits], -1)
        if kind == "spans"
        else outputs.logits
    )
    real = batch["input_mask"][:, :, None] if kind in ("tagging", "spans") else 1
    np.testing.assert_allclose(
        outputs.numpy() * real, task_logits(run, batch) * real, rtol=0, atol=1e-5
    )

    if kind in ("classification", "tagging"):
        assert reference.config.id2label == dict(enumerate(task.labels or ["LABEL_0"]))
        assert reference.config.label2id == {
            label: i for i, label in reference.config.id2label.items()
        }
    problems = {
        "class": "single_label_classification",
        "classes": "multi_label_classification",
        "number": "regression",
    }
    assert reference.config.problem_type == problems.get(name)
    assert (
        transformers.AutoModel.from_pretrained(tmp_path / "out").config.model_type == architecture
    )


RUNTIMES = {"stablehlo": run_stablehlo, "saved-model": run_saved_model, "onnx": run_onnx}


@pytest.mark.parametrize("name", ["class", "tagging"])
@pytest.mark.parametrize("format", RUNTIMES)
def test_a_program_gives_the_tasks_scores_and_says_what_they_are_of(tmp_path, format, name):
    if format == "onnx":
        pytest.importorskip("onnx")
    run = save_run(tmp_path / "run", SMALL_MODEL, TASKS[name])
    bertjax.export_model(run, tmp_path / "out", format)
    batch = drawn_batch(0, 3, 11)
    outputs = RUNTIMES[format](tmp_path / "out", batch)
    assert set(outputs) == {"logits"}
    np.testing.assert_allclose(
        np.asarray(outputs["logits"]), task_logits(run, batch), rtol=0, atol=1e-5
    )
    kind, task = TASKS[name]
    description = json.loads((tmp_path / "out" / "task.json").read_text())
    assert description == {
        "task": task.name,
        "kind": kind,
        "labels": list(task.labels),
        "label_type": "class",
    }


@pytest.mark.slow
@pytest.mark.parametrize("format", RUNTIMES)
def test_a_head_on_tokens_may_read_the_pooler_in_a_program_too(tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnx")
    fields = {"pooler_act": "gelu", "pooler_norm": True, "pooling": "mean", "heads": ("pooler",)}
    model = dataclasses.replace(SMALL_MODEL, token_pooler=True, **fields)
    run = save_run(tmp_path / "run", model, TASKS["tagging"])
    batch = drawn_batch(0, 3, 11)
    for folder, outputs in (("both", ["pooled", "logits"]), ("logits", [])):
        bertjax.export_model(run, tmp_path / folder, format, outputs=outputs)
        logits = np.asarray(RUNTIMES[format](tmp_path / folder, batch)["logits"])
        np.testing.assert_allclose(logits, task_logits(run, batch), rtol=0, atol=1e-5)


def test_a_run_that_is_older_than_the_pooler_on_tokens_is_opened_as_it_was(tmp_path):
    run = save_run(tmp_path / "run", SMALL_MODEL, TASKS["tagging"], heads=())
    batch = drawn_batch(0, 3, 11)
    logits = task_logits(run, batch)
    without_digests(run, 0)
    for path in (run / "config.json", run / "checkpoints" / "0" / "meta" / "metadata"):
        text, count = re.subn(r'"token_pooler": false,\s*', "", path.read_text())
        assert count == 1
        path.write_text(text)
    np.testing.assert_array_equal(task_logits(run, batch), logits)


def test_other_outputs_are_there_beside_those_of_the_head(tmp_path):
    run = save_run(tmp_path / "run", SMALL_MODEL, TASKS["class"])
    bertjax.export_model(run, tmp_path / "out", "stablehlo", outputs=["hidden", "logits"])
    batch = drawn_batch(0, 3, 11)
    outputs = run_stablehlo(tmp_path / "out", batch)
    model = bertjax.load_model(run)
    hidden = bertjax.encode(model.config.model, model.params, batch).hidden_BxLxD
    np.testing.assert_allclose(outputs["hidden"], hidden, rtol=0, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], task_logits(run, batch), rtol=0, atol=1e-5)


def test_of_several_tasks_one_is_named(tmp_path):
    run = save_run(tmp_path / "run", SMALL_MODEL, TASKS["class"], TASKS["tagging"])
    _, head = load_with_head(run, "ner")
    assert (head.labels, head.outputs, head.on_tokens) == (("O", "B-LOC", "I-LOC"), 3, True)
    with pytest.raises(UserError, match="task: found none, expected one of topics, ner"):
        bertjax.export_model(run, tmp_path / "out", "huggingface")
    with pytest.raises(UserError, match="task: found pos, expected one of topics, ner"):
        bertjax.export_model(run, tmp_path / "out", "huggingface", task="pos")
    assert not (tmp_path / "out").exists()


def test_a_model_without_tasks_has_no_head(tmp_path):
    config = small_config()
    save_model(tmp_path / "run", config, bertjax.init(config.model, jax.random.key(0)), None, {})
    model, head = load_with_head(tmp_path / "run")
    assert head is None
    assert set(model.params) == {"embeddings", "encoder", "pooler", "mlm", "nsp"}
    with pytest.raises(
        UserError, match="task: found ner, expected none: the model was not fine-tuned"
    ):
        load_with_head(tmp_path / "run", "ner")


def test_a_head_that_their_architecture_has_not_is_refused(tmp_path):
    run = save_run(tmp_path / "run", MODELS["electra"], TASKS["class"])
    with pytest.raises(UserError, match="model.heads: found pooler, expected a head of electra"):
        bertjax.export_model(run, tmp_path / "out", "huggingface")


def test_the_pooler_of_another_task_does_not_matter_to_a_task_on_tokens(tmp_path):
    transformers = pytest.importorskip("transformers")
    run = save_run(tmp_path / "run", MODELS["electra"], TASKS["class"], TASKS["tagging"])
    bertjax.export_model(run, tmp_path / "out", "huggingface", task="ner")
    loaded, report = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert (type(loaded).__name__, any(report.values())) == ("ElectraForTokenClassification", False)
    head = loaded.classifier.weight.detach().numpy().T
    np.testing.assert_array_equal(head, load_with_head(run, "ner")[0].params["task_head"]["kernel"])
    # The other task's head reads it, and the class has none.
    with pytest.raises(UserError, match="model.heads: found pooler, expected a head of electra"):
        bertjax.export_model(run, tmp_path / "texts", "huggingface", task="topics")


def test_what_is_left_behind_is_said(tmp_path, caplog):
    pairs = make_task("pairs", TOKENIZER, max_target_length=8, beam_size=1)
    run = save_run(tmp_path / "pairs", MODEL, ("seq2seq", pairs))
    assert load_with_head(run)[1] is None
    assert "task pairs: its decoder is left out, the encoder alone is exported" in caplog.text
    run = save_run(tmp_path / "run", SMALL_MODEL, TASKS["class"])
    bertjax.export_model(run, tmp_path / "out", "tensorflow")
    assert (
        "task topics: its head is left out, format tensorflow has the encoder alone" in caplog.text
    )


def test_what_went_out_comes_in_again_without_the_head(tmp_path):
    run = save_run(tmp_path / "run", SMALL_MODEL, TASKS["class"])
    bertjax.export_model(run, tmp_path / "out", "huggingface")
    with pytest.raises(UserError, match=r"classifier\.(weight|bias): found a tensor .* --drop"):
        bertjax.import_model(tmp_path / "out", tmp_path / "again", take_tokenizer=False)
    bertjax.import_model(
        tmp_path / "out", tmp_path / "again", drop=["classifier"], take_tokenizer=False
    )
    again, before = bertjax.load_model(tmp_path / "again").params, bertjax.load_model(run).params
    assert jax.tree.all(jax.tree.map(np.array_equal, again, before))
