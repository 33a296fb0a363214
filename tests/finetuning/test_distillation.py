"""Soft labels and layers of a fine-tuned teacher beside the labels of a task."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.config import DistillConfig, TrainConfig
from bertjax.config.distill import TERMS_OF_LAYERS
from bertjax.errors import UserError
from bertjax.finetuning.distillation import DistilledTasks
from bertjax.finetuning.load import load_finetuned
from bertjax.finetuning.objective import TaskObjective
from bertjax.model import functional
from bertjax.model.functional import TEACHER
from bertjax.model.layout import ANYWHERE
from bertjax.tasks import registry
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.tagging.task import Tagging
from bertjax.training import checkpoint
from bertjax.training.distillation.objective import DistilledPretraining
from bertjax.training.integrity.record import read_saved_arrays
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.pretraining import pretraining
from bertjax.training.saved_model import save_model
from tests.factory import random_batch, small_config
from tests.tasks.tiny import MODEL, TOKENIZER, save_start, sentences, write_table
from tests.tiny_library import write_library
from tests.training.checkpoints import KilledError
from tests.waiting import until

TEXT = SingleLabel("text", ("a", "b", "c"))
SETS = MultiLabel("sets", ("a", "b", "c"))
NUMBER = Regression("number")
TAGS = Tagging("tags", ("O", "B-A", "I-A"))
SPANS = Spans("spans")
BIG = dataclasses.replace(MODEL, num_hidden_layers=3)
ROWS = 6
REAL = np.array([1, 1, 0, 1, 1, 0], np.float32)


def batch_of(task):
    """Rows of a task; those of weight 0 hold nonsense."""
    rng = np.random.default_rng(3)
    rows = random_batch(rng, ROWS)
    batch = {name: rows[name] for name in ("input_ids", "input_mask", "segment_ids")}
    begins = (rows["input_mask"] * (rng.random((ROWS, 16)) < 0.6)).astype(np.int32)
    targets = {
        TEXT: {"labels": rng.integers(0, 3, ROWS).astype(np.int32)},
        SETS: {"labels": rng.integers(0, 2, (ROWS, 3)).astype(np.float32)},
        NUMBER: {"labels": rng.standard_normal(ROWS).astype(np.float32)},
        TAGS: {
            "labels": np.where(begins, rng.integers(0, 3, (ROWS, 16)), -1).astype(np.int32),
            "word_begins": np.where(rows["input_mask"], begins, -1).astype(np.int32),
        },
        SPANS: {
            "start_positions": np.ones(ROWS, np.int32),
            "end_positions": np.full(ROWS, 2, np.int32),
        },
    }[task]
    own = {**targets, "item_weights": REAL}
    return batch | {f"{task.name}/{name}": values for name, values in own.items()}


def softmax(x, axis=-1):
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def divergence(own, taught, t, axis=-1):
    """T^2 KL(teacher || student) along an axis."""
    p, q = softmax(taught / t, axis), softmax(own / t, axis)
    return t**2 * (p * np.log(p / q)).sum(axis)


def expected_soft(task, own, taught, batch, t):
    """The mean soft loss over what counts, row by row, in float64."""
    own, taught = np.asarray(own, np.float64), np.asarray(taught, np.float64)
    losses = []
    for row in np.flatnonzero(REAL):
        if task is NUMBER:
            losses.append((own[row, 0] - taught[row, 0]) ** 2)
        elif task is SETS:
            pairs = [np.stack([x[row], np.zeros(3)], -1) for x in (own, taught)]
            losses.append(divergence(*pairs, t).mean())
        elif task is TAGS:
            words = batch["tags/word_begins"][row] == 1
            losses += list(divergence(own[row][words], taught[row][words], t))
        elif task is SPANS:
            length = batch["input_mask"][row].sum()
            losses.append(divergence(own[row, :length], taught[row, :length], t, 0).mean())
        else:
            losses.append(divergence(own[row], taught[row], t))
    return np.mean(losses)


@pytest.mark.parametrize(
    "task",
    [
        TEXT,
        NUMBER,
        TAGS,
        pytest.param(SETS, marks=pytest.mark.slow),
        pytest.param(SPANS, marks=pytest.mark.slow),
    ],
    ids=lambda task: task.name,
)
def test_the_loss_is_that_of_the_labels_and_of_the_teachers(task, largest):
    settings = DistillConfig(objective_weight=0.5, soft_weight=2.0, temperature=3.0)
    plain, teacher = TaskObjective(MODEL, (task,)), TaskObjective(BIG, (task,))
    objective = DistilledTasks(MODEL, (task,), 0, teacher, settings)
    scale = lambda leaf: leaf * 3  # noqa: E731
    params = jax.tree.map(scale, plain.init(jax.random.key(0)))
    taught = jax.tree.map(scale, teacher.init(jax.random.key(1)))
    batch = batch_of(task)
    own_names = {name.partition("/")[2] or name: values for name, values in batch.items()}

    def found(params, taught):
        both = {**params, TEACHER: taught}
        sums = objective.sums(both, batch, key=None, layout=ANYWHERE)
        hard = plain.sums(params, batch, key=None, layout=ANYWHERE)
        logits = [
            task.logits(model, own, own_names, key=None, layout=ANYWHERE)
            for model, own in ((MODEL, params), (BIG, taught))
        ]
        loss = objective.loss(sums, objective.counts(batch))
        return loss, objective.means(sums), plain.means(hard)["loss"], logits

    loss, means, hard, logits = jax.jit(found)(params, taught)
    soft = expected_soft(task, *logits, batch, 3.0)
    largest("soft labels of tasks", abs(float(means["soft_loss"]) - soft) / max(soft, 1), 1e-5)
    assert float(means["label_loss"]) == pytest.approx(float(hard), rel=1e-6)
    total = 0.5 * float(hard) + 2 * soft
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert float(means["loss"]) == pytest.approx(total, rel=1e-5)


LAYER_TERMS = {
    "objective_weight": 0.0, "soft_weight": 0.0, "cosine_weight": 2.0, "embedding_weight": 3.0,
    "hidden_weight": 0.5, "attention_weight": 0.25, "relation_weight": 4.0,
    "teacher_layers": (1, 3),
}  # fmt: skip
CHOICE = Choice("choice", 2)


@pytest.mark.parametrize("task", [TAGS, CHOICE], ids=lambda task: task.name)
def test_the_terms_of_layers_are_those_of_pretraining_on_the_same_rows(task, largest):
    settings = DistillConfig(**LAYER_TERMS)
    objective = DistilledTasks(MODEL, (task,), 0, TaskObjective(BIG, (task,)), settings)
    rows = random_batch(np.random.default_rng(3), ROWS)
    rows = {name: rows[name] for name in ("input_ids", "input_mask", "segment_ids")}
    # Rows that fill up a batch are padding alone.
    rows["input_mask"] *= REAL.astype(np.int32)[:, None] if task is TAGS else 1
    if task is TAGS:
        batch = batch_of(TAGS) | rows
    else:
        own = {"item_weights": np.ones(3, np.float32), "labels": np.array([0, 1, 1], np.int32)}
        batch = {name: values.reshape(3, 2, -1) for name, values in rows.items()}
        batch |= {f"choice/{name}": values for name, values in own.items()}
    config = small_config(model=MODEL, data={"sentence_objective": "none"})
    of_text = DistilledPretraining(pretraining(config), BIG, settings)
    taught = functional.init(BIG, jax.random.key(1))

    @jax.jit
    def found(key):
        params = {**objective.init(key), TEACHER: taught}
        sums = objective.sums(params, batch, key=None, layout=ANYWHERE)
        expected = of_text.means(of_text.sums(params, rows, key=None, layout=ANYWHERE))
        return objective.means(sums), objective.loss(sums, objective.counts(batch)), expected

    means, loss, expected = found(jax.random.key(0))
    named = [name for name in expected if name != "loss"]
    assert sorted(named) == sorted(f"{term}_loss" for term in TERMS_OF_LAYERS)
    for name in named:
        assert float(means[name]) > 0
        largest(f"terms of layers, {name}", abs(float(means[name] - expected[name])), 1e-6)
    assert float(loss) == pytest.approx(float(expected["loss"]), rel=1e-5)
    assert float(means["loss"]) == pytest.approx(float(loss), rel=1e-6)
    # The labels have no weight, and their loss is said all the same.
    assert float(means["label_loss"]) > 0


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with a task and a teacher that has its head, as current folder."""
    folder = write_library(tmp_path_factory.mktemp("library"))
    with contextlib.chdir(folder):
        save_start(folder / "start", model=LAYERS)
        save_teacher("runs/teacher", seed=0)
        yield folder


def save_teacher(folder, seed):
    """A run as fine-tuning leaves it, with random parameters."""
    config = config_of(distill={"teacher": ""}).replace(model={**LAYERS, "heads": ("pooler",)})
    task = SingleLabel("good", ("no", "yes"))
    params = jax.jit(TaskObjective(config.model, (task,)).init)(jax.random.key(seed))
    save_model(folder, config, params, TOKENIZER, {"tasks": [registry.to_plain(task)]})


LAYERS = {"num_hidden_layers": 4}
SET_BY_EPOCHS = ("steps", "eval_every_steps", "save_every_steps")


def config_of(**changes):
    base = small_config(mesh={"data": -1}, train={"batch_size": 8}).replace(
        train={name: getattr(TrainConfig, name) for name in SET_BY_EPOCHS},
        optimizer={"warmup_steps": 0, "peak_learning_rate": 1e-3},
        finetune={
            "tasks": ("good:classification=tasks/good",),
            "epochs": 1.0,
            "max_seq_length": 16,
            "length_buckets": (),
        },
        distill={"teacher": "runs/teacher"},
    )
    return base.replace(**changes)


@pytest.mark.slow
def test_a_student_starts_from_layers_and_head_and_learns_from_both(library):
    result = bertjax.finetune(config_of(), "runs/student")
    student = load_finetuned("runs/student")
    assert student.config.model.num_hidden_layers == 2
    frozen = config_of(optimizer={"freeze": "encoder"}, train={"log_every_steps": 1})
    bertjax.finetune(frozen, "runs/frozen")
    own, taught = load_finetuned("runs/frozen").params, load_finetuned("runs/teacher").params
    layers = zip(
        jax.tree.leaves(own["encoder"]["layers"]),
        jax.tree.leaves(taught["encoder"]["layers"]),
        strict=True,
    )
    for mine, theirs in layers:
        assert np.array_equal(mine, np.asarray(theirs)[[1, 3]])
    names = read_saved_arrays(result.checkpoint)
    assert all("teacher" not in name for name in names)
    assert "accuracy" in result.metrics


@pytest.mark.slow
def test_layers_are_learnt_first_and_labels_from_there_as_tinybert_does(library):
    terms = {name: value for name, value in LAYER_TERMS.items() if name != "teacher_layers"}
    # Otherwise this student, whose teacher is random and small, has hardly anything to learn.
    layers = config_of(
        distill={**terms, "start": "random"},
        train={"log_every_steps": 1},
        finetune={"restore_best": False},
    )
    first = bertjax.finetune(layers, "runs/layers")
    lines = [line for line in read_entries(first.run_dir) if line["split"] == "train"]
    assert lines[-1]["hidden_loss"] < lines[0]["hidden_loss"]
    names = read_saved_arrays(first.checkpoint)
    assert "params/distillation/hidden/kernel" in names
    # What only the terms read is not in a model that is used, nor in the next run.
    assert "distillation" not in load_finetuned("runs/layers").params
    assert bertjax.evaluate("runs/layers").metrics["accuracy"] == first.metrics["accuracy"]
    second = bertjax.finetune(config_of(init_from="runs/layers"), "runs/labels")
    assert not any("distillation" in name for name in read_saved_arrays(second.checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize("terms", [{}, {"hidden_weight": 1.0}], ids=["labels", "layers too"])
def test_a_student_that_was_killed_goes_on_bit_for_bit_and_not_with_another_teacher(
    library, monkeypatch, tmp_path, terms
):
    monkeypatch.chdir(tmp_path)
    for name in ("start", "tasks"):
        (tmp_path / name).symlink_to(library / name)
    save_teacher("runs/teacher", seed=0)
    config = config_of(finetune={"epochs": 2.0}, distill=terms)
    whole = bertjax.finetune(config, "runs/whole")

    def die(stage, done, total):
        if stage == "train" and done == 5:
            until(lambda: checkpoint.steps_of(epath.Path("runs/killed")) == [3])
            raise KilledError

    with pytest.raises(KilledError):
        bertjax.finetune(config, "runs/killed", progress=die)
    save_teacher("runs/other", seed=1)
    with pytest.raises(UserError, match="distill.teacher: found teacher .*with which .*was train"):
        bertjax.finetune(config.replace(distill={"teacher": "runs/other"}), "runs/killed")
    resumed = bertjax.finetune(config, "runs/killed")
    steps = [int(folder.name) for folder in (result.checkpoint for result in (whole, resumed))]
    assert steps[0] == steps[1]
    last = [run.run_dir / checkpoint.FOLDER / "6" for run in (whole, resumed)]
    assert read_saved_arrays(last[0]) == read_saved_arrays(last[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"distill": {"relation_weight": 1.0, "relation_heads": 7}},
            "distill.relation_heads: found 7, expected a divisor of 16, a width of the student",
        ),
        (
            {"finetune": {"tasks": ("fine:classification=tasks/good",)}},
            "distill.teacher: task fine: found good alone, expected a teacher that was fine-tuned",
        ),
        (
            {"finetune": {"tasks": ("good:classification=tasks/letters",)}},
            "distill.teacher: task good: labels: found no, yes, expected A, B in this order",
        ),
        ({"distill": {"teacher": "start"}}, "found a model without a task, expected one that"),
        ({"distill": {"teacher_layers": (1, 2, 5)}}, "distill.teacher_layers: found 5, expected"),
    ],
    ids=["terms of layers", "another task", "other labels", "no task", "layers"],
)
def test_a_teacher_that_does_not_fit_is_refused_and_leaves_nothing(library, changes, message):
    rows = [(text, "AB"[number % 2]) for number, text in enumerate(sentences(24))]
    for name in ("train.tsv", "dev.tsv"):
        write_table(library / "tasks" / "letters" / name, rows)
    with pytest.raises(UserError) as error:
        bertjax.finetune(config_of(**changes), "runs/refused")
    assert message in str(error.value)
    assert not (library / "runs" / "refused").exists()


def test_a_student_with_another_tokenizer_is_refused(library):
    entries = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\n"
    strange = type(TOKENIZER)("vocab.txt", entries.encode(), lowercase=True)
    params = jax.jit(lambda: functional.init(MODEL, jax.random.key(7)))()
    save_model("strange", small_config(model=MODEL), params, strange, {})
    with pytest.raises(UserError, match="the student's tokenizer: found tokenizer .*, expected"):
        bertjax.finetune(config_of(init_from="strange"), "runs/refused")
