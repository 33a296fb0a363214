import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout, batch_sharding, replicated, tree_shardings
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.multiple_choice.task import Choice, ChoicePrediction
from tests.factory import SMALL_MODEL, random_batch
from tests.interop.exported_programs import random_params

MODEL = dataclasses.replace(
    SMALL_MODEL, heads=("pooler",), initializer_range=0.2, num_hidden_layers=1
)
TASK = Choice("swag", 3)
WORDS = ["the", "cat", "dog", "sees", "##s", "no", "one", "."]
TOKENIZER = WordPiece(
    "vocab.txt",
    "".join(f"{w}\n" for w in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]).encode(),
    True,
)


def random_items(items, choices=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = {
        name: random_batch(rng, items * choices)[name]
        for name in ("input_ids", "input_mask", "segment_ids")
    }
    return {
        **{name: values.reshape(items, choices, -1) for name, values in rows.items()},
        "labels": rng.integers(0, choices, items).astype(np.int32),
        "item_weights": np.ones(items, np.float32),
    }


@functools.cache
def params():
    return {**random_params(MODEL), "tasks": {"swag": TASK.init_head(MODEL, jax.random.key(0))}}


def test_scores_and_loss_are_those_of_transformers(largest):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.reference import params_of, reference_model

    model = reference_model(MODEL, 0, "BertForMultipleChoice")
    head = {
        "kernel": model.classifier.weight.detach().numpy().T,
        "bias": model.classifier.bias.detach().numpy(),
    }
    ours = {**params_of(MODEL, model.bert), "tasks": {"swag": jax.tree.map(jnp.asarray, head)}}
    batch = random_items(5)
    names = {
        "input_ids": "input_ids",
        "input_mask": "attention_mask",
        "segment_ids": "token_type_ids",
    }
    theirs = {there: torch.tensor(batch[here], dtype=torch.long) for here, there in names.items()}
    with torch.no_grad():
        expected = model(**theirs, labels=torch.tensor(batch["labels"], dtype=torch.long))
    scores = jax.jit(lambda params: TASK.logits(MODEL, params, batch, key=None, layout=ANYWHERE))(
        ours
    )
    largest("multiple choice: scores", np.abs(scores - expected.logits.numpy()).max(), 2e-6)
    sums = TASK.sums(scores, batch)
    assert float(sums["count"]) == float(TASK.count(batch)) == 5
    largest("multiple choice: loss", abs(float(sums["loss"]) / 5 - float(expected.loss)), 2e-6)
    accuracy = (expected.logits.argmax(1).numpy() == batch["labels"]).sum()
    assert float(sums["accuracy"]) == accuracy


@pytest.mark.parametrize("items,choices,smoothing", [(5, 4, 0.0), (3, 3, 0.3)])
def test_the_loss_is_its_definition_and_items_of_weight_0_add_nothing(items, choices, smoothing):
    rng = np.random.default_rng(items)
    task = Choice("swag", choices, smoothing)
    scores = rng.normal(0, 3, (items, choices)).astype(np.float32)
    labels = rng.integers(0, choices, items).astype(np.int32)
    log_probs = scores - np.log(np.exp(scores.astype(np.float64)).sum(1, keepdims=True))
    expected = np.full((items, choices), smoothing / choices)
    expected[np.arange(items), labels] += 1 - smoothing
    batch = {"labels": labels, "item_weights": np.ones(items, np.float32)}
    summed = jax.jit(task.sums)
    sums = summed(scores, batch)
    np.testing.assert_allclose(sums["loss"], -(expected * log_probs).sum(), rtol=1e-5)
    assert float(sums["accuracy"]) == (scores.argmax(1) == labels).sum()

    # Padding: whatever its label and scores are.
    scores = np.concatenate([scores, np.full((2, choices), [[np.nan], [0]], np.float32)])
    batch = {
        "labels": np.concatenate([labels, [-1, 0]]).astype(np.int32),
        "item_weights": np.concatenate([np.ones(items), [0, 0]]).astype(np.float32),
    }
    padded = summed(scores, batch)
    assert {name: float(value) for name, value in padded.items()} == {
        name: float(v) for name, v in sums.items()
    }
    assert float(task.count(batch)) == float(padded["count"]) == items


def test_on_a_mesh_loss_and_gradients_are_one_devices_and_no_item_leaves_its_device():
    batch = random_items(8)
    batch["item_weights"][-3:] = 0  # two devices with nothing but padding, and one with half

    def loss(params, batch, layout):
        sums = TASK.sums(TASK.logits(MODEL, params, batch, key=None, layout=layout), batch)
        return sums["loss"] / sums["count"]

    mesh = make_mesh(MeshConfig(data=4), jax.devices()[:4])
    axes = {**functional.logical_axes(MODEL), "tasks": {"swag": TASK.head_axes(MODEL)}}
    laid = jax.device_put(params(), tree_shardings(mesh, axes))
    cut = {name: jax.device_put(values, batch_sharding(mesh)) for name, values in batch.items()}
    step = functools.partial(jax.value_and_grad(loss), layout=MeshLayout(mesh))
    program = jax.jit(step, out_shardings=replicated(mesh)).lower(laid, cut).compile()
    assert not re.findall(
        r"(?:all-gather|all-to-all|collective-permute)(?:-start)?\(", program.as_text()
    )
    here, there = (
        jax.jit(jax.value_and_grad(functools.partial(loss, layout=ANYWHERE)))(params(), batch),
        program(laid, cut),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), here, there)


def test_dropout_needs_a_key_and_reaches_the_pooled_vector():
    config = dataclasses.replace(MODEL, hidden_dropout_prob=0.5)
    batch = random_items(2)
    scores = jax.jit(lambda key: TASK.logits(config, params(), batch, key=key, layout=ANYWHERE))
    np.testing.assert_array_equal(scores(None), scores(None))
    assert np.abs(scores(jax.random.key(0)) - scores(jax.random.key(1))).min() > 0


def plain_rows(example, longest):
    """(ids, place of the second part) of each ending, cut an id at a time."""
    for ending in example.endings:
        text = f"{example.start} {ending}" if example.start else ending
        first, second = (
            TOKENIZER.encode_batch([part])[0].tolist() for part in (example.context, text)
        )
        while len(first) + len(second) > longest - 3:
            (first if len(first) > len(second) else second).pop()
        yield (
            [TOKENIZER.cls_id, *first, TOKENIZER.sep_id, *second, TOKENIZER.sep_id],
            len(first) + 2,
        )


TEXT = st.lists(st.sampled_from([*WORDS, "cats", "unheard"]), max_size=12).map(" ".join)
EXAMPLES = st.lists(
    st.builds(
        ChoiceExample,
        id=st.just("x"),
        context=TEXT,
        endings=st.tuples(TEXT, TEXT, TEXT),
        start=st.sampled_from(["", "the cat"]),
        label=st.integers(0, 2),
    ),
    max_size=6,
)


@given(EXAMPLES, st.integers(8, 20))
def test_rows_are_each_ending_after_the_context_cut_from_the_longer(examples, longest):
    rows = TASK.encode(examples, TOKENIZER, longest, targets=True)
    expected = [row for example in examples for row in plain_rows(example, longest)]
    assert (rows.choices, rows.items) == (3, len(examples))
    result = [
        rows.ids[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
    ]
    assert list(zip(result, rows.second_begins.tolist(), strict=True)) == expected
    assert rows.example_indices.tolist() == list(range(len(examples)))
    assert rows.targets["labels"].tolist() == [example.label for example in examples]
    assert (rows.ids.dtype, rows.offsets.dtype, rows.second_begins.dtype, rows.targets["labels"].dtype) == (
        np.int32, np.int64, np.int32, np.int32
    )  # fmt: skip
    assert TASK.encode(examples, TOKENIZER, longest, targets=False).targets == {}


def test_predictions_are_the_likeliest_endings_and_accuracy_their_share():
    examples = [
        ChoiceExample(str(i), "the cat", ("sees", "no", "one"), label=label)
        for i, label in enumerate((2, 0))
    ]
    rows = TASK.encode(examples, TOKENIZER, 16, targets=True)
    result = TASK.predict([np.array([0, 100, 200.0]), np.log([0.2, 0.3, 0.5])], rows, examples)
    assert [prediction.choice for prediction in result] == [2, 2]
    np.testing.assert_allclose(result[1].probabilities, [0.2, 0.3, 0.5], rtol=1e-6)
    assert TASK.figures(result, examples) == {"accuracy": 0.5}
    assert TASK.metric in TASK.figures([ChoicePrediction(0, np.ones(3))] * 2, examples)


@pytest.mark.parametrize("example,message", [
    (ChoiceExample("7", "the", ("a", "b"), label=0), "swag: example 7: found 2 endings, expected 3"),
    (ChoiceExample("7", "the", ("a", "b", "c")), "swag: example 7: found the label None, expected 0 to 2"),
    (ChoiceExample("7", "the", ("a", "b", "c"), label=3), "swag: example 7: found the label 3, expected 0 to 2"),
])  # fmt: skip
def test_an_example_that_does_not_fit_is_named(example, message):
    with pytest.raises(UserError, match=message):
        TASK.encode([example], TOKENIZER, 16, targets=True)
