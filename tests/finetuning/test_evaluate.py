"""Predictions and figures: every item once and in its place, on one device as on eight."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import MeshConfig
from bertjax.finetuning import evaluate as evaluation
from bertjax.finetuning.evaluate import Split, evaluate_split, named_figures
from bertjax.finetuning.objective import TaskObjective
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import TaggedExample, TextExample
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.tagging.task import WORD_BEGINS, Tagging
from tests.tasks.tiny import MODEL, TOKENIZER, config_of, hidden_in_numpy, row_of, sentences

LABELS = ("no", "maybe", "yes")
TEXT = SingleLabel("text", LABELS, class_weights=(1.0, 2.0, 0.5))
TAGS = Tagging("tags", ("O", "B-A", "I-A", "B-B"))
OBJECTIVE = TaskObjective(MODEL, (TEXT, TAGS))
CONFIG = config_of(train={"batch_size": 8})  # 13 items: a last batch with three fillers


@pytest.fixture(scope="module")
def params():
    """Far from their first values, so that what is predicted differs from item to item."""
    shapes = jax.eval_shape(lambda: OBJECTIVE.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    first, spread = {"scale": 1.0}, {"bias": 0.1}

    def drawn(path, leaf):
        name = path[-1].key
        usual = 0.15 if path[0].key == "encoder" else 0.4
        values = first.get(name, 0.0) + spread.get(name, usual) * rng.standard_normal(leaf.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(1)
    pairs = list(zip(sentences(13), [*sentences(13, seed=2)[:7], *[None] * 6], strict=True))
    examples = [
        TextExample(str(n), a, b, str(rng.choice(LABELS))) for n, (a, b) in enumerate(pairs)
    ]
    return Split("text", "", examples, TEXT.encode(examples, TOKENIZER, 16, targets=True))


@pytest.fixture(scope="module")
def tagged():
    """Sentences of which some are too long for one row."""
    rng = np.random.default_rng(2)
    words = [text.split() for text in sentences(9, seed=3)] + [
        " ".join(sentences(3, seed=4)).split() * 2
    ]
    examples = [
        TaggedExample(f"{n}", tuple(w), tuple(rng.choice(TAGS.labels, len(w))))
        for n, w in enumerate(words)
    ]
    return Split("tags", "", examples, TAGS.encode(examples, TOKENIZER, 16, targets=True))


def evaluated(params, split, mesh=None, labelled=True):
    mesh = make_mesh(MeshConfig(), mesh) if mesh else make_mesh(MeshConfig(data=4, fsdp=2))
    params = jax.tree.map(
        jax.device_put, params, rules.tree_shardings(mesh, OBJECTIVE.logical_axes())
    )
    return evaluate_split(
        CONFIG, OBJECTIVE, mesh, params, split, TOKENIZER.pad_id, labelled=labelled
    )


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(head, x):
    return x @ head["kernel"].astype(np.float64) + head["bias"]


def test_text_is_predicted_as_a_plain_forward_says_each_example_in_its_place(
    params, texts, largest
):
    found = evaluated(params, texts)
    pooler, head = params["pooler"], params["tasks"]["text"]
    wanted = []
    for number in range(13):
        first = hidden_in_numpy(MODEL, params, *row_of(texts.encoded, number))[0]
        wanted.append(softmax(linear(head, np.tanh(linear(pooler, first)))))
    wanted = np.array(wanted)
    assert (
        len({tuple(row) for row in wanted.round(3).tolist()}) == 13
    )  # so that a wrong place would show
    given = np.array([prediction.probabilities for prediction in found.predictions])
    largest("probabilities of a task, beside numpy's", np.abs(given - wanted).max(), 1e-5)
    true = np.array([LABELS.index(example.label) for example in texts.examples])
    assert [prediction.label for prediction in found.predictions] == [
        LABELS[n] for n in wanted.argmax(1)
    ]
    weights = np.array(TEXT.class_weights)[true]
    loss = -np.sum(weights * np.log(wanted[np.arange(13), true])) / weights.sum()
    largest("loss of a task, beside numpy's", abs(found.figures["loss"] - loss), 1e-5)
    assert found.figures["accuracy"] == pytest.approx(np.mean(wanted.argmax(1) == true))


def test_tags_are_those_of_a_plain_forward_of_the_words_own_pieces(params, tagged):
    found = evaluated(params, tagged)
    rows, tags, losses = tagged.encoded, [], []
    assert rows.items > len(tagged.examples)
    gold = iter([TAGS.labels.index(tag) for example in tagged.examples for tag in example.tags])
    for number in range(rows.items):
        begin, end = rows.offsets[number : number + 2]
        scores = linear(
            params["tasks"]["tags"], hidden_in_numpy(MODEL, params, *row_of(rows, number))
        )
        scores = scores[rows.token_targets[WORD_BEGINS][begin:end] == 1]
        tags += [TAGS.labels[n] for n in scores.argmax(1)]
        losses += [-np.log(softmax(row)[next(gold)]) for row in scores]
    assert [tag for prediction in found.predictions for tag in prediction] == tags
    assert [len(prediction) for prediction in found.predictions] == [
        len(one.words) for one in tagged.examples
    ]
    assert len(set(tags)) > 2
    assert found.figures["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_eight_devices_give_the_predictions_and_figures_of_one(params, texts):
    many, one = evaluated(params, texts), evaluated(params, texts, jax.devices()[:1])
    assert many.figures == pytest.approx(one.figures, rel=1e-6)
    for a, b in zip(many.predictions, one.predictions, strict=True):
        assert a.label == b.label
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)


class Echo(Tagging):
    """A task whose outputs are the ids and how often each item came, not a model's."""

    def logits(self, config, params, batch, *, key, layout):
        return batch["input_ids"]

    def outputs(self, logits):
        return logits

    def sums(self, logits, batch):
        count = batch["item_weights"].sum()
        return {"loss": 2 * count, "count": count}

    def predict(self, outputs, encoded, examples):
        return [output.tolist() for output in outputs]

    def figures(self, predictions, examples):
        return {"f1": 0.5}


@pytest.mark.parametrize("count", [1, 8, 13, 16])
def test_every_item_is_predicted_once_and_cut_to_its_own_length(count):
    echo = Echo("tags", TAGS.labels)
    objective = TaskObjective(MODEL, (echo,))
    examples = [TextExample(str(n), text, label="no") for n, text in enumerate(sentences(count))]
    rows = dataclasses.replace(TEXT.encode(examples, TOKENIZER, 16, targets=True), targets={})
    mesh = make_mesh(MeshConfig(data=8))
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    layouts = rules.tree_shardings(mesh, objective.logical_axes())
    zeros = jax.tree.map(
        lambda leaf, layout: jax.device_put(np.zeros(leaf.shape, leaf.dtype), layout),
        shapes,
        layouts,
    )
    split = Split("tags", "", examples, rows)
    found = evaluate_split(CONFIG, objective, mesh, zeros, split, TOKENIZER.pad_id, labelled=True)
    wanted = [row_of(rows, n)[0].tolist() for n in range(count)]
    assert found.predictions == wanted
    assert found.figures == {"f1": 0.5, "loss": 2.0}
    plain = evaluate_split(CONFIG, objective, mesh, zeros, split, TOKENIZER.pad_id, labelled=False)
    assert (plain.predictions, plain.figures) == (wanted, {})


def test_without_labels_the_predictions_are_the_same_and_there_are_no_figures(params, texts):
    rows = TEXT.encode(
        [dataclasses.replace(e, label=None) for e in texts.examples], TOKENIZER, 16, targets=False
    )
    found = evaluated(params, dataclasses.replace(texts, encoded=rows), labelled=False)
    assert found.figures == {}
    labels = [prediction.label for prediction in evaluated(params, texts).predictions]
    assert [prediction.label for prediction in found.predictions] == labels


def test_figures_of_one_task_have_plain_names_other_splits_theirs_and_the_score_is_its_own_splits():
    mnli = SingleLabel("mnli", LABELS)
    found = named_figures(
        {
            ("mnli", ""): {"accuracy": 0.5, "loss": 1.0},
            ("mnli", "mismatched"): {"accuracy": 0.75, "loss": 2.0},
        },
        [mnli],
    )
    assert found == {
        "accuracy": 0.5, "loss": 1.0, "accuracy/mismatched": 0.75, "loss/mismatched": 2.0, "score": 0.5,
    }  # fmt: skip


def test_the_score_of_several_tasks_is_the_mean_of_each_ones_metric_percentages_as_shares():
    tasks = [SingleLabel("rte", ("a", "b")), Spans("squad"), Choice("swag", 4)]
    found = named_figures({
        ("rte", ""): {"accuracy": 0.5, "loss": 1.0},
        ("squad", ""): {"exact_match": 80.0, "f1": 90.0, "loss": 2.0},
        ("swag", ""): {"accuracy": 0.25, "loss": 6.0},
        ("swag", "other"): {"accuracy": 0.0, "loss": 9.0},
    }, tasks)  # fmt: skip
    assert found["score"] == pytest.approx((0.5 + 0.9 + 0.25) / 3)
    assert found["loss"] == 3.0
    assert (found["f1/squad"], found["accuracy/swag-other"]) == (90.0, 0.0)
    assert named_figures({("squad", ""): {"f1": 90.0}}, tasks[1:2]) == {"f1": 90.0, "score": 0.9}


def test_the_score_is_of_the_chosen_metric_and_of_an_error_its_negative_value():
    rare = SingleLabel("rare", LABELS, metrics=("f1:no", "accuracy"))
    figures = {("rare", ""): {"f1:no": 0.25, "accuracy": 0.9}}
    assert named_figures(figures, [rare])["score"] == 0.25
    error = Regression("error", metrics=("mse", "pearson"))
    figures[("error", "")] = {"mse": 2.0, "pearson": 0.5}
    found = named_figures(figures, [rare, error])
    assert found["score"] == (0.25 - 2.0) / 2
    assert (found["f1:no/rare"], found["mse/error"]) == (0.25, 2.0)


def test_one_program_serves_all_batches_of_a_split(params, texts):
    evaluated(params, texts)
    before = evaluation._eval_step.cache_info().misses
    evaluated(params, texts)
    assert evaluation._eval_step.cache_info().misses == before
