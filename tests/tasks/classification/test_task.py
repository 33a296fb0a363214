import dataclasses
import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.config import MeshConfig
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import batch_parts
from bertjax.tasks.classification.kind import TASK_CLASSES
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
)
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import TextExample
from bertjax.tasks.task import EncodedExamples
from tests.factory import SMALL_MODEL, random_batch
from tests.tasks.classification.test_labels import examples_of

WORDS = ["the", "cat", "dog", "sees", "##s", "no", "one", "."]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TEXT = st.lists(st.sampled_from([*WORDS, "cats"]), max_size=9).map(" ".join)
LABELS = ("a", "b", "c")
CLASS = SingleLabel("t", LABELS)
CLASSES = MultiLabel("t", LABELS)
NUMBER = Regression("t")


TOKENIZER = WordPiece(
    "vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True
)


def batch_of(labels, weights=None):
    weights = (
        np.ones(len(labels), np.float32) if weights is None else np.asarray(weights, np.float32)
    )
    return {"labels": np.asarray(labels), "item_weights": weights}


def predictions_of(*labels):
    return [
        LabelSetPrediction(label) if isinstance(label, tuple) else ClassPrediction(label)
        for label in labels
    ]


# Rows


def test_rows_say_how_many_were_cut_and_hold_the_targets(caplog):
    examples = [TextExample("x", "cat " * 20, label="c"), TextExample("y", "cat", "dog", "a")]
    with caplog.at_level(logging.INFO, "bertjax"):
        rows = CLASS.encode(examples, TOKENIZER, 8, targets=True)
    assert caplog.messages == ["t: texts cut to 8 ids: 1 of 2"]
    assert rows.example_indices.tolist() == [0, 1]
    assert rows.items == 2
    assert rows.targets["labels"].tolist() == [2, 0]
    assert rows.targets["labels"].dtype == np.int32
    assert not CLASS.encode(examples_of(None), TOKENIZER, 8, targets=False).targets


def test_targets_of_several_classes_and_of_numbers():
    several = CLASSES.targets(examples_of(("a", "c"), (), ("b",)))
    assert several.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    numbers = NUMBER.targets(examples_of(1.5, 0))
    assert numbers.tolist() == [1.5, 0]
    assert several.dtype == numbers.dtype == np.float32


@pytest.mark.parametrize("task,label,message", [
    (CLASS, None, "task t, example 0: found no label, expected one"),
    (NUMBER, "4", "task t, example 0: found the label '4', expected a number"),
])  # fmt: skip
def test_a_label_that_is_no_target_is_named(task, label, message):
    with pytest.raises(UserError) as caught:
        task.targets(examples_of(label))
    assert str(caught.value) == message


@pytest.mark.parametrize("options,message", [
    ({"labels": ("a",)}, "task t: labels: found a, expected 2 or more"),
    ({"labels": ("a", "a")}, "task t: labels: found a, a, expected each once"),
    ({"labels": (), "label_type": "classes"}, "task t: labels: found none, expected 1 or more"),
    ({"label_type": "number"}, "task t: labels: found a, b, c, expected 0"),
    ({"metrics": ("pearson",)}, "task t: metrics: found pearson, expected one of accuracy, matthews_correlation, "),
    ({"metrics": ("f1",)}, "task t: metrics: found f1, expected one of"),
    ({"label_smoothing": 1.0}, "task t: label_smoothing: found 1.0, expected a number from 0 to below 1"),
    ({"labels": (), "label_type": "number", "label_smoothing": 0.1}, "task t: label_smoothing: found 0.1, expected 0 where"),
    ({"class_weights": (1.0, 2.0)}, "task t: class_weights: found (1.0, 2.0), expected 3 numbers above 0"),
    ({"class_weights": (1.0, 2.0, 0.0)}, "task t: class_weights: found (1.0, 2.0, 0.0), expected 3 numbers"),
])  # fmt: skip
def test_a_task_that_makes_no_sense_is_an_error(options, message):
    options = dict(options)
    with pytest.raises(UserError) as caught:
        TASK_CLASSES[options.pop("label_type", "class")]("t", **{"labels": LABELS, **options})
    assert str(caught.value).startswith(message)


# Losses


@partial(jax.jit, static_argnums=0)
def sums_and_gradient(task, scores, batch):
    """(sums, count, gradient of the loss); in one program, since each small one takes its time to
    compile.
    """
    gradient, sums = jax.grad(
        lambda x: (task.sums(x, batch)["loss"], task.sums(x, batch)), has_aux=True
    )(scores)
    return sums, task.count(batch), gradient


def mean_loss(task, scores, batch):
    result, count, _ = sums_and_gradient(task, scores, batch)
    np.testing.assert_allclose(result["count"], count, rtol=1e-6)
    return result["loss"] / result["count"]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 7.0)])
def test_cross_entropy_and_its_gradient_are_pytorchs(smoothing, weights):
    torch = pytest.importorskip("torch")
    task = dataclasses.replace(CLASS, label_smoothing=smoothing, class_weights=weights)
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(0, 3, (7, 3)).astype(np.float32), rng.integers(0, 3, 7)
    given = torch.tensor(scores, requires_grad=True)
    module = torch.nn.CrossEntropyLoss(
        torch.tensor(weights) if weights else None, label_smoothing=smoothing
    )
    expected = module(given, torch.tensor(labels))
    expected.backward()
    sums, count, gradient = sums_and_gradient(task, scores, batch_of(labels))
    np.testing.assert_allclose(sums["loss"] / count, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient / count, given.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_cross_entropy_is_pytorchs(smoothing):
    torch = pytest.importorskip("torch")
    task = dataclasses.replace(CLASSES, label_smoothing=smoothing)
    rng = np.random.default_rng(3)
    scores, labels = (
        rng.normal(0, 30, (7, 3)).astype(np.float32),
        rng.integers(0, 2, (7, 3)).astype(np.float32),
    )
    targets = torch.tensor(labels * (1 - smoothing) + smoothing / 2)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(scores), targets)
    np.testing.assert_allclose(
        mean_loss(task, scores, batch_of(labels)), expected.item(), rtol=1e-5
    )


def test_class_weights_of_several_classes_weigh_their_mean():
    task = dataclasses.replace(CLASSES, class_weights=(1.0, 2.0, 5.0))
    scores = jnp.asarray([[0.3, -1.0, 2.0]])
    p = 1 / (1 + np.exp(-np.asarray(scores[0], np.float64)))
    each = [-np.log(p[0]), -np.log(1 - p[1]), -np.log(p[2])]
    result = mean_loss(task, scores, batch_of([[1.0, 0.0, 1.0]]))
    np.testing.assert_allclose(result, (each[0] + 2 * each[1] + 5 * each[2]) / 8, rtol=1e-6)


def test_a_number_has_the_squared_error():
    result, _, _ = sums_and_gradient(
        NUMBER, np.array([[1.0], [3.0]], np.float32), batch_of([0.5, 5.0])
    )
    assert float(result["loss"]) == 0.25 + 4
    assert float(result["count"]) == 2


def test_accuracy_is_divided_by_the_count():
    task = dataclasses.replace(CLASS, class_weights=(1.0, 2.0, 4.0))
    result, _, _ = sums_and_gradient(task, np.eye(3, dtype=np.float32), batch_of([0, 2, 2]))
    assert (float(result["accuracy"]), float(result["count"])) == (5, 9)


@pytest.mark.parametrize("task,labels,rubbish", [
    (dataclasses.replace(CLASS, label_smoothing=0.1, class_weights=(1.0, 2.0, 3.0)), [0, 2], [-1, 99]),
    (CLASSES, [[1, 0, 1], [0, 0, 0]], [[np.nan] * 3, [7] * 3]),
    (NUMBER, [1.0, 4.0], [np.nan, np.inf]),
])  # fmt: skip
def test_items_of_weight_0_add_exactly_nothing_and_no_gradient(task, labels, rubbish):
    outputs = max(1, len(task.labels))
    scores = np.linspace(-2, 2, 2 * outputs).reshape(2, outputs).astype(np.float32)
    filled = np.concatenate([scores, [[np.nan] * outputs, [np.inf] * outputs]]).astype(np.float32)
    alone, padded = batch_of(labels), batch_of(labels + rubbish, [1, 1, 0, 0])
    result, count, gradient = sums_and_gradient(task, filled, padded)
    expected, count_alone, gradient_alone = sums_and_gradient(task, scores, alone)
    for name in expected:
        assert np.asarray(result[name]) == np.asarray(expected[name]), name
        assert result[name].dtype == jnp.float32
    assert np.asarray(count) == np.asarray(count_alone)
    np.testing.assert_array_equal(gradient[:2], gradient_alone)
    np.testing.assert_array_equal(gradient[2:], 0)


@pytest.mark.parametrize("task", [CLASS, CLASSES, NUMBER])
def test_sums_are_alike_on_eight_devices(task, largest):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(8, max(1, len(task.labels)))).astype(np.float32)
    labels = {
        "class": rng.integers(0, 3, 8),
        "classes": rng.integers(0, 2, (8, 3)),
        "number": rng.random(8),
    }
    batch = batch_of(labels[task.label_type], [1] * 7 + [0])
    mesh = make_mesh(MeshConfig(data=8))
    assert batch_parts(mesh) == 8
    spread = jax.device_put((scores, batch), NamedSharding(mesh, PartitionSpec("data")))
    sums = jax.jit(task.sums)
    result, expected = sums(*spread), sums(scores, batch)
    for name in expected:
        largest(
            "a task's sums on eight devices",
            abs(np.asarray(result[name]) - np.asarray(expected[name])),
            1e-5,
        )


def test_the_head_scores_the_pooled_vector():
    @jax.jit
    def run(key, batch):
        head = CLASS.init_head(SMALL_MODEL, key)
        params = {
            **functional.init(SMALL_MODEL, key),
            "tasks": {"t": head | {"bias": head["bias"] + 0.5}},
        }
        hidden = functional.encode(SMALL_MODEL, params, batch).hidden_BxLxD
        scores = CLASS.logits(SMALL_MODEL, params, batch, key=None, layout=ANYWHERE)
        return head, functional.pool(SMALL_MODEL, params, hidden), scores

    every = random_batch(np.random.default_rng(0), 4)
    batch = {name: every[name] for name in ("input_ids", "input_mask", "segment_ids")}
    head, pooled, scores = jax.tree.map(np.asarray, run(jax.random.key(0), batch))
    np.testing.assert_allclose(scores, pooled @ head["kernel"] + 0.5, atol=1e-6)
    assert head["kernel"].shape == (16, 3)
    assert np.ptp(scores) > 0
    axes = CLASS.head_axes(SMALL_MODEL)
    assert {name: len(axes[name]) for name in axes} == {name: head[name].ndim for name in head}
    number = jax.eval_shape(lambda key: NUMBER.init_head(SMALL_MODEL, key), jax.random.key(0))
    assert number["kernel"].shape == (16, 1)


# Predictions and figures


def test_outputs_become_predictions():
    outputs = CLASS.outputs(jnp.log(jnp.asarray([[0.2, 0.5, 0.3]])))
    rows = EncodedExamples(
        np.zeros(0, np.int32), np.zeros(2, np.int64), np.zeros(1, np.int32), np.zeros(1, np.int64)
    )
    (prediction,) = CLASS.predict(list(np.asarray(outputs)), rows, examples_of("a"))
    assert prediction.label == "b"
    assert prediction.probabilities == pytest.approx((0.2, 0.5, 0.3))
    (prediction,) = CLASSES.predict(
        list(np.asarray(CLASSES.outputs(jnp.asarray([[0.0, -1.0, 9.0]])))), rows, []
    )
    assert prediction.labels == ("a", "c")
    assert prediction.probabilities == pytest.approx((0.5, 0.26894143, 0.99987662))
    (prediction,) = NUMBER.predict(list(np.asarray(NUMBER.outputs(jnp.asarray([[2.5]])))), rows, [])
    assert prediction == NumberPrediction(2.5)


def test_figures_are_the_named_ones_and_accuracy():
    two = SingleLabel("t", ("no", "yes"), metrics=("matthews_correlation", "f1"))
    true, predicted = ("yes", "yes", "yes", "no"), ("yes", "yes", "no", "no")
    figures = two.figures(predictions_of(*predicted), examples_of(*true))
    assert list(figures) == ["matthews_correlation", "f1", "accuracy"]
    assert two.metric == "matthews_correlation"
    assert figures["accuracy"] == 0.75
    assert figures["f1"] == pytest.approx(0.8)
    assert figures["matthews_correlation"] == pytest.approx(1 / np.sqrt(3))
    assert two.confusion(predictions_of(*predicted), examples_of(*true)).tolist() == [
        [1, 0],
        [1, 2],
    ]
    three = SingleLabel("t", LABELS, metrics=("f1_macro",))
    assert three.figures(predictions_of("a", "b"), examples_of("a", "a"))[
        "f1_macro"
    ] == pytest.approx(1 / 3)  # c occurs nowhere, and scikit-learn's mean is without it


def test_figures_of_several_classes_and_of_numbers():
    figures = CLASSES.figures(
        predictions_of(("a",), (), ("b", "a")), examples_of(("a", "b"), (), ("a", "b"))
    )
    assert figures == {
        "f1_micro": pytest.approx(6 / 7),
        "f1_macro": pytest.approx((1 + 2 / 3) / 3),
        "exact_match": pytest.approx(2 / 3),
    }
    assert CLASSES.metric == "f1_micro"
    predictions = [NumberPrediction(value) for value in (1.0, 2.0, 4.0)]
    figures = NUMBER.figures(predictions, examples_of(1.0, 2.0, 3.0))
    assert figures == {"pearson": pytest.approx(0.98198051), "spearman": pytest.approx(1)}
    assert NUMBER.metric == "pearson"


def test_calibration_is_of_the_predicted_class():
    predictions = [ClassPrediction("a", (0.75, 0.15, 0.1)), ClassPrediction("c", (0.0, 0.05, 0.95))]
    table = CLASS.calibration(predictions, examples_of("b", "c"))
    assert [
        (row.predictions, row.confidence, row.accuracy) for row in table if row.predictions
    ] == [
        (1, 0.75, 0),
        (1, 0.95, 1),
    ]
    several = CLASSES.calibration(
        [LabelSetPrediction(("a",), (0.75, 0.15, 0.1))], examples_of(("a", "c"))
    )
    assert [(row.predictions, row.accuracy) for row in several if row.predictions] == [
        (1, 1),
        (1, 0),
        (1, 1),
    ]
