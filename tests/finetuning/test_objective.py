"""What fine-tuning trains: gradients, metrics, and the parameters that it begins with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import FAMILIES, MeshConfig
from bertjax.finetuning.objective import TaskObjective
from bertjax.model import functional
from bertjax.model.functional import DECODER_GROUPS
from bertjax.model.layout import ANYWHERE
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.classification.multi_label import MultiLabel
from bertjax.tasks.classification.regression import Regression
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.linear_head import head_of
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.tasks.question_answering.task import Spans
from bertjax.tasks.registry import kind_of
from bertjax.tasks.seq2seq.task import make_task
from bertjax.tasks.tagging.task import Tagging
from bertjax.training import step as steps
from tests.factory import random_batch
from tests.families.tiny import tiny
from tests.tasks.tiny import MODEL, TOKENIZER, config_of

TEXT = SingleLabel("text", ("a", "b", "c"), class_weights=(1.0, 2.0, 0.5))
TAGS = Tagging("tags", ("O", "B-A", "I-A"), label_smoothing=0.1)
BOTH = TaskObjective(MODEL, (TEXT, TAGS))
FILLERS = [
    0,
    1,
    1,
    1,
    0,
    1,
    1,
    0,
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    0,
]  # 0: a filler; one part of the batch has none but fillers


def batch_of(task):
    """A batch as `train_batches` makes them, but fillers that hold nonsense."""
    rng = np.random.default_rng(3)
    batch = {
        name: random_batch(rng, 16)[name] for name in ("input_ids", "input_mask", "segment_ids")
    }
    labels = rng.integers(0, 3, 16)
    if task is TAGS:
        labels = np.where(
            batch["input_mask"] * (rng.random((16, 16)) < 0.6), rng.integers(0, 3, (16, 16)), -1
        )
    own = {"labels": labels.astype(np.int32), "item_weights": np.array(FILLERS, np.float32)}
    return batch | {f"{task.name}/{name}": values for name, values in own.items()}


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: BOTH.init(jax.random.key(0)))()


def gradients_of(config, params, task, mesh=None, batch=None, objective=BOTH):
    """(gradients, means), on a mesh or on one device; of text with dropout."""
    batch, key = batch or batch_of(task), jax.random.key(5) if task is TEXT else None
    layout = rules.MeshLayout(mesh) if mesh else ANYWHERE
    options = {}
    if mesh:
        shardings = rules.tree_shardings(mesh, BOTH.logical_axes())
        params = jax.tree.map(jax.device_put, params, shardings)
        batch, options = global_batch(mesh, batch, 16), {"out_shardings": (shardings, None)}

    def found(params, batch):
        gradient, sums, _ = steps.gradients(config, params, batch, key, layout, objective)
        return gradient, objective.means(sums)

    return jax.device_get(jax.jit(found, **options)(params, batch))


@pytest.fixture(scope="module")
def on_one_device(params):
    return {task.name: gradients_of(config_of(), params, task) for task in (TEXT, TAGS)}


def assert_close(largest, what, wanted, found, bound):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(found), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert a.shape == b.shape, name
        largest(what, np.abs(a - b).max() / max(np.abs(a).max(), 1e-3), bound)


@pytest.mark.slow
def test_a_batch_of_one_task_gives_no_gradient_at_all_to_the_head_of_another(on_one_device):
    for own, other in (("text", "tags"), ("tags", "text")):
        gradient, _ = on_one_device[own]
        assert not any(leaf.any() for leaf in jax.tree.leaves(head_of(gradient, other)))
        assert all(leaf.any() for leaf in jax.tree.leaves(head_of(gradient, own)))
        assert gradient["embeddings"]["word"]["embedding"].any()
    assert not any(leaf.any() for leaf in jax.tree.leaves(on_one_device["tags"][0]["pooler"]))


def test_accumulated_gradients_are_those_of_the_whole_batch(params, on_one_device, largest):
    config = config_of(train={"gradient_accumulation_steps": 4})
    found = gradients_of(config, params, TAGS)
    assert_close(largest, "accumulated gradients of a task", on_one_device["tags"], found, 1e-5)


def test_accumulated_gradients_have_the_dropout_of_the_whole_batch(params, on_one_device, largest):
    config = config_of(train={"gradient_accumulation_steps": 4})
    found = gradients_of(config, params, TEXT)
    assert_close(largest, "accumulated, with dropout", on_one_device["text"], found, 1e-5)


@pytest.mark.parametrize("task", [TEXT, TAGS], ids=lambda task: task.name)
def test_a_mesh_gives_the_loss_and_the_gradients_of_one_device_however_fillers_lie(
    params, on_one_device, task, largest
):
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    found = gradients_of(config_of(), params, task, mesh)
    assert_close(
        largest,
        f"gradients of a task on a mesh, {task.name}",
        on_one_device[task.name],
        found,
        2e-5,
    )


def test_a_loss_that_rounds_nothing_reads_the_parameters_themselves(params):
    assert BOTH.rounded(params) is params


# Sums of floats differ between meshes in their last digit. An input of a product that lies between
# two steps of int8 may then be rounded to either.
@pytest.mark.slow
@pytest.mark.parametrize("form,bound", [("int8", 5e-2), ("int4", 2e-5)])
def test_a_mesh_gives_the_rounded_loss_and_its_gradients_of_one_device(
    params, form, bound, largest
):
    objective = dataclasses.replace(BOTH, quantization_aware=form)
    alone = gradients_of(config_of(), params, TAGS, objective=objective)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    found = gradients_of(config_of(), params, TAGS, mesh, objective=objective)
    assert_close(largest, f"gradients on a mesh, rounded to {form}", alone, found, bound)
    # Every matrix that the task reads gets a gradient through its rounding.
    assert all(leaf.any() for leaf in jax.tree.leaves(alone[0]["encoder"]))
    assert head_of(alone[0], "tags")["kernel"].any()


def test_what_fillers_hold_changes_nothing(params, on_one_device):
    batch = batch_of(TEXT)
    fillers = np.array(FILLERS) == 0
    batch["text/labels"][fillers] = 2 - batch["text/labels"][fillers]
    batch["input_ids"][fillers] = 9
    gradient, means = gradients_of(config_of(), params, TEXT, batch=batch)
    assert means == on_one_device["text"][1]
    for a, b in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(on_one_device["text"][0]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_metrics_of_one_task_have_plain_names_and_those_of_several_each_ones(on_one_device):
    sums = {"text": {"loss": np.float32(6), "accuracy": np.float32(3), "count": np.float32(4)}}
    assert TaskObjective(MODEL, (TEXT,)).means(sums) == {"loss": 1.5, "accuracy": 0.75}
    assert BOTH.means(sums) == {"loss": 1.5, "loss/text": 1.5, "accuracy/text": 0.75}
    assert set(on_one_device["tags"][1]) == {"loss", "loss/tags", "accuracy/tags"}
    nothing = {"text": {"loss": np.float32(0), "correct": np.float32(0), "count": np.float32(0)}}
    assert TaskObjective(MODEL, (TEXT,)).means(nothing) == {"loss": 0, "accuracy": 0}


def test_a_run_begins_with_what_was_restored_but_its_new_top_layers_and_heads(params):
    restored = jax.tree.map(
        lambda leaf: leaf + 1, {name: params[name] for name in ("embeddings", "encoder", "pooler")}
    )
    begun = dataclasses.replace(BOTH, reinit_layers=1).initial_params(params, restored)
    assert jax.tree.structure(begun) == jax.tree.structure(params)
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))  # noqa: E731
    for name in ("embeddings", "pooler"):
        assert same(begun[name], restored[name]), name
    layer = lambda tree, n: jax.tree.map(lambda leaf: leaf[n], tree["encoder"])  # noqa: E731
    assert same(layer(begun, 0), layer(restored, 0))
    assert same(layer(begun, 1), layer(params, 1))
    assert not same(layer(begun, 1), layer(restored, 1))
    assert same(begun["tasks"], params["tasks"])
    assert same(BOTH.initial_params(params, restored)["encoder"], restored["encoder"])
    # A pooler that is asked to be new is not among what was restored.
    assert same(
        BOTH.initial_params(params, {k: v for k, v in restored.items() if k != "pooler"})["pooler"],
        params["pooler"],
    )


def filled(shapes, value):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), shapes)


def test_no_two_parameters_share_memory_where_a_run_begins():
    """A step gives its state's memory back; a decoder begins with the encoder's values, not with
    its arrays.
    """
    model = dataclasses.replace(MODEL, heads=("mlm",))
    objective = TaskObjective(model, (make_task("turn", TOKENIZER, max_target_length=8), TAGS))
    new = filled(jax.eval_shape(lambda: objective.init(jax.random.key(0))), 0.0)
    restored = filled(functional.shapes(model), 1.0)
    begun = objective.initial_params(new, restored)
    head = head_of(begun, "turn")
    table = "embeddings", "word", "embedding"
    assert np.array_equal(
        head[table[0]][table[1]][table[2]], restored[table[0]][table[1]][table[2]]
    )
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(begun)]
    assert len(set(places)) == len(places)


def test_the_axes_are_those_of_the_parameters(params):
    axes = jax.tree.structure(BOTH.logical_axes(), is_leaf=lambda leaf: not isinstance(leaf, dict))
    assert axes == jax.tree.structure(params)


def test_a_model_of_one_token_type_is_given_no_other():
    one = TaskObjective(dataclasses.replace(MODEL, type_vocab_size=1), (TEXT,))
    batch = batch_of(TEXT)
    assert batch["segment_ids"].any()
    assert not np.asarray(one.prepare(batch)["segment_ids"]).any()
    assert TaskObjective(MODEL, (TEXT,)).prepare(batch) is batch


def test_a_decoder_may_begin_with_another_model_than_the_encoder():
    task = make_task("pairs", TOKENIZER, max_target_length=8)
    objective = TaskObjective(dataclasses.replace(MODEL, heads=("mlm",)), (task,))
    made = jax.jit(lambda key: objective.init(key))
    encoder, donor = (
        {k: v for k, v in made(jax.random.key(n)).items() if k != "tasks"} for n in (1, 2)
    )
    words = lambda params: params["tasks"]["pairs"]["embeddings"]["word"]["embedding"]  # noqa: E731
    new = made(jax.random.key(0))
    own = objective.initial_params(new, encoder)
    other = objective.initial_params(new, {**encoder, DECODER_GROUPS: donor})
    assert np.array_equal(words(own), encoder["embeddings"]["word"]["embedding"])
    assert np.array_equal(words(other), donor["embeddings"]["word"]["embedding"])
    assert np.array_equal(
        other["embeddings"]["word"]["embedding"], encoder["embeddings"]["word"]["embedding"]
    )
    assert DECODER_GROUPS not in other


def test_one_program_serves_runs_that_differ_in_where_they_begin():
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    config = config_of("pairs:seq2seq=x", init_from="a")
    options = dataclasses.replace(config.finetune, decoder_from="b")
    other = dataclasses.replace(config, seed=3, finetune=options)
    assert (
        steps.jit_train_step(config, mesh, BOTH).program
        is steps.jit_train_step(other, mesh, BOTH).program
    )


def test_new_top_layers_are_all_that_is_new_in_an_encoder_of_another_composition():
    model = tiny("gpt_bert", norm_scale=True, heads=("pooler",))
    objective = TaskObjective(model, (TEXT,), reinit_layers=1)
    new, old = (filled(functional.shapes(model), value) for value in (0.0, 1.0))
    head = jax.eval_shape(lambda: TEXT.init_head(model, jax.random.key(0)))
    encoder = objective.initial_params({**new, "tasks": {"text": head}}, old)["encoder"]
    for leaf in jax.tree.leaves(encoder["layers"]):
        np.testing.assert_array_equal(leaf[:3], 1)
        np.testing.assert_array_equal(leaf[3:], 0)
    # Two rows of the mix for each of the four layers.
    np.testing.assert_array_equal(
        encoder["mix"], np.repeat([1.0, 0.0], [6, 2])[:, None] * np.ones(9)
    )
    for name in ("final_norm", "relative", "relative_layer_norm"):
        assert all((leaf == 1).all() for leaf in jax.tree.leaves(encoder[name])), name


KINDS = {
    "text": TEXT,
    "classes": MultiLabel("classes", ("a", "b")),
    "number": Regression("number"),
    "tags": TAGS,
    "spans": Spans("spans", True, 64, 32, 15, 5, 0.0),
    "choice": Choice("choice", 2),
}


def labelled_batch(task, length=24):
    """A batch of 4 items of any kind, with rows of up to `length` ids."""
    rng, rows = np.random.default_rng(3), 8 if task.name == "choice" else 4
    batch = random_batch(rng, rows, length, vocab_size=64)
    batch = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    targets = {
        "text": {"labels": rng.integers(0, 3, 4).astype(np.int32)},
        "classes": {"labels": rng.integers(0, 2, (4, 2)).astype(np.int32)},
        "number": {"labels": rng.random(4).astype(np.float32)},
        "tags": {"labels": np.where(batch["input_mask"][:4] > 0, 1, -1).astype(np.int32)},
        "spans": {"start_positions": np.full(4, 1, np.int32)}
        | {"end_positions": np.full(4, 2, np.int32)},
        "choice": {"labels": rng.integers(0, 2, 4).astype(np.int32)},
    }[task.name]
    if task.name == "choice":
        batch = {name: values.reshape(4, 2, length) for name, values in batch.items()}
    return {**batch, **targets, "item_weights": np.ones(4, np.float32)}


def padded(batch, length):
    """The batch with rows of `length` ids more, all of them padding."""
    rows = {}
    for name, values in batch.items():
        more = [(0, 0)] * (values.ndim - 1) + [(0, length)]
        if name in ("input_ids", "input_mask", "segment_ids"):
            rows[name] = np.pad(values, more)
        elif name == "labels" and values.ndim == 2 and values.shape[1] > 2:
            rows[name] = np.pad(values, more, constant_values=-1)
        else:
            rows[name] = values
    return rows


# Every kind for one of them; for the others one on the sentence vector and one on each token.
CASES = [
    (name, kind)
    for name in FAMILIES
    for kind in KINDS
    if name == "modernbert" or kind in ("text", "tags")
]


@pytest.mark.slow
@pytest.mark.parametrize("name,kind", CASES)
def test_a_model_of_each_family_learns_each_kind_whatever_the_padding(name, kind):
    task = KINDS[kind]
    needs_pooler = "pooler" in kind_of(task).heads or tiny(name).token_pooler
    heads = ("pooler",) if needs_pooler else ()
    model = tiny(name, heads=heads, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    objective = TaskObjective(model, (task,))
    params = jax.jit(lambda: objective.init(jax.random.key(0)))()

    @jax.jit
    def learn(params, batch):
        def loss(params):
            logits = task.logits(model, params, objective.prepare(batch), key=None, layout=ANYWHERE)
            return task.sums(logits, batch)["loss"]

        return jax.value_and_grad(loss)(params)

    batch = labelled_batch(task)
    loss, gradient = learn(params, batch)
    longer, _ = learn(params, padded(batch, 8))
    np.testing.assert_allclose(loss, longer, rtol=1e-5)
    assert 0 < float(loss) < np.inf
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
    changed = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
    assert learn(changed, batch)[0] < loss
