import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.model import functional
from tests.factory import SMALL_MODEL, random_batch
from tests.programs import encode, init

DOCUMENT = Path(__file__).parents[2] / "docs" / "parameters.md"


def documented(columns):
    """Names, shapes in letters and logical axes of the table with so many columns.

    Checkpoints depend on them.
    """
    table = {}
    for line in DOCUMENT.read_text().splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if len(cells) != columns - 1 or not name.startswith("`"):
            continue
        axes = tuple(None if a == "–" else a for a in cells[1].split(", "))
        table[name.strip("`")] = (cells[0].split(", "), axes)
    return table


MODEL = dataclasses.replace(
    SMALL_MODEL, hidden_size=24, num_attention_heads=2, intermediate_size=40
)


loss_and_gradient = jax.jit(
    jax.value_and_grad(bertjax.pretraining_loss, argnums=1, has_aux=True), static_argnums=0
)


def sizes_of(model):
    return {
        "N": 1 if model.share_layers else model.num_hidden_layers,
        "D": model.hidden_size,
        "E": model.embedding_width,
        "H": model.num_attention_heads,
        "G": model.key_value_heads,
        "K": model.head_width,
        "A": model.attention_width,
        "F": model.intermediate_size,
        "V": model.vocab_size,
        "L": model.max_position_embeddings,
        "T": model.type_vocab_size,
        "R": model.relative_positions,
        "M": 2 * model.num_hidden_layers,
        "M + 1": 2 * model.num_hidden_layers + 1,
        "W": model.mlm_hidden_size or model.hidden_size,
        "1": 1,
        "2": 2,
    }


def named(tree, is_leaf=None):
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


@pytest.fixture(scope="module")
def params():
    return init(MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    return random_batch(np.random.default_rng(0), 4)


def assert_documented(model, table):
    """Assert that each parameter has the name, shape and logical axes of the table; return the names."""
    sizes, shapes = sizes_of(model), named(functional.shapes(model))
    axes = named(
        functional.logical_axes(model), is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec)
    )
    for name, leaf in shapes.items():
        letters, expected = table[name]
        if model.num_key_value_heads:
            expected = tuple(
                None if letter == "G" else axis
                for letter, axis in zip(letters, expected, strict=True)
            )
        assert leaf.shape == tuple(sizes[letter] for letter in letters), name
        assert tuple(axes[name]) == expected, name
    return set(shapes)


def test_parameters_have_the_documented_names_shapes_and_logical_axes():
    table = documented(columns=3)
    assert assert_documented(MODEL, table) == set(table)


def test_parameters_of_other_encoders_are_documented_too():
    everything = {
        "norm_place": "both",
        "first_norm": False,
        "norm_inside": True,
        "final_norm": True,
        "feed_forward": "gated",
        "value_gate": True,
        "layer_mix": True,
        "pooler_norm": True,
        "mlm_tied": False,
        "embedding_size": 8,
        "mlm_hidden_size": 10,
        "attention_head_size": 8,
    }
    relative = {"relative_positions": 8, "relative_projections": "own", "share_layers": True}
    table, more = documented(columns=3), documented(columns=4)
    names = set()
    for changes in (
        everything,
        relative,
        {"num_key_value_heads": 1, "embedding_size": 8, "mlm_tied": False, "biases": ()},
        {"mlm_tied": False, "mlm_transform": False, "norm_scale": False},
        {"positions": "rotary", "type_vocab_size": 0, "heads": ("rtd",)},
    ):
        names |= assert_documented(dataclasses.replace(MODEL, **changes), table | more)
    assert names == set(table | more)


def test_initial_values_are_the_papers(params):
    for name, leaf in named(params).items():
        assert leaf.dtype == jnp.float32
        if name.endswith("bias"):
            assert (leaf == 0).all(), name
        elif name.endswith("scale"):
            assert (leaf == 1).all(), name
        else:
            assert np.abs(leaf).max() <= 0.04 + 1e-6, name
            assert float(leaf.std()) == pytest.approx(0.0176, rel=0.25), name


@pytest.mark.quick
def test_each_row_is_encoded_alone_and_padding_changes_nothing(params, batch):
    together = encode(MODEL, params, batch).hidden_BxLxD
    for i in range(4):
        real = int(batch["input_mask"][i].sum())
        alone = {name: batch[name][i : i + 1, :real] for name in ("input_ids", "segment_ids")}
        assert np.allclose(
            encode(MODEL, params, alone).hidden_BxLxD[0], together[i, :real], atol=1e-5
        )


def test_every_layer_is_returned_and_the_last_is_the_result(params, batch):
    encoded = encode(MODEL, params, batch, keep_layers=True)
    assert encoded.layers_NxBxLxD.shape == (2, 4, 16, 24)
    assert np.array_equal(encoded.layers_NxBxLxD[-1], encoded.hidden_BxLxD)
    one_layer = dataclasses.replace(MODEL, num_hidden_layers=1)
    first = dict(
        params, encoder={"layers": jax.tree.map(lambda x: x[:1], params["encoder"]["layers"])}
    )
    assert np.allclose(
        encode(one_layer, first, batch).hidden_BxLxD, encoded.layers_NxBxLxD[0], atol=1e-6
    )
    assert encode(MODEL, params, batch).layers_NxBxLxD is None


def test_mlm_logits_at_positions_are_those_of_all_positions(params, batch):
    hidden = bertjax.encode(MODEL, params, batch).hidden_BxLxD
    all_BxLxV = bertjax.mlm_logits(MODEL, params, hidden)
    at_BxPxV = bertjax.mlm_logits(MODEL, params, hidden, batch["masked_lm_positions"])
    expected = np.take_along_axis(
        np.asarray(all_BxLxV), batch["masked_lm_positions"][..., None], axis=1
    )
    assert np.allclose(at_BxPxV, expected, atol=1e-6)


def test_mlm_output_is_tied_to_the_word_embedding(params, batch):
    def total(params):
        hidden = jax.lax.stop_gradient(encode(MODEL, params, batch).hidden_BxLxD)
        return bertjax.mlm_logits(MODEL, params, hidden)[:, :, 7].sum()

    gradient = jax.jit(jax.grad(total))(params)["embeddings"]["word"]["embedding"]
    assert np.abs(gradient[7]).max() > 0
    assert (np.delete(np.asarray(gradient), 7, axis=0) == 0).all()


def test_functions_work_under_jit_grad_and_vmap(params, batch):
    plain, _ = bertjax.pretraining_loss(MODEL, params, batch)
    jitted, _ = jax.jit(bertjax.pretraining_loss, static_argnums=0)(MODEL, params, batch)
    assert float(jitted) == pytest.approx(float(plain), rel=1e-6)

    _, grads = loss_and_gradient(MODEL, params, batch)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))

    stacked = {name: jnp.stack([x, x[::-1]]) for name, x in batch.items()}
    each = jax.jit(jax.vmap(lambda b: bertjax.encode(MODEL, params, b).hidden_BxLxD))
    many = each(stacked)
    assert np.allclose(many[1][::-1], many[0], atol=1e-5)


def test_dropout_needs_a_key_repeats_with_it_and_differs_between_layers(batch):
    config = dataclasses.replace(MODEL, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    params = init(config, jax.random.key(0))

    def run(key):
        return np.asarray(encode(config, params, batch, key=key, keep_layers=True).layers_NxBxLxD)

    assert np.array_equal(run(None), run(None))
    assert np.array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert not np.array_equal(run(jax.random.key(1)), run(jax.random.key(2)))


@pytest.mark.parametrize("changes", [{"scan_unroll": 2}, {"remat": "full"}], ids=str)
def test_ways_to_run_the_layers_give_the_same_loss_and_gradient(params, batch, changes):
    other = dataclasses.replace(MODEL, **changes)
    (a, _), grad_a = loss_and_gradient(MODEL, params, batch)
    (b, _), grad_b = loss_and_gradient(other, params, batch)
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    for x, y in zip(jax.tree.leaves(grad_a), jax.tree.leaves(grad_b), strict=True):
        assert np.allclose(x, y, atol=1e-6)


def test_bfloat16_stays_near_float32_and_gives_a_float32_loss(params, batch):
    low = dataclasses.replace(MODEL, dtype="bfloat16")
    a, _ = bertjax.pretraining_loss(MODEL, params, batch)
    b, _ = bertjax.pretraining_loss(low, params, batch)
    assert b.dtype == jnp.float32
    assert float(a) == pytest.approx(float(b), rel=5e-3)


def test_a_model_has_the_heads_it_lists_and_says_which_one_it_lacks(batch):
    for heads in ((), ("mlm",), ("pooler",), ("pooler", "nsp")):
        config = dataclasses.replace(MODEL, heads=heads)
        params = bertjax.init(config, jax.random.key(0))
        assert params.keys() == {"embeddings", "encoder", *heads}
        hidden = bertjax.encode(config, params, batch).hidden_BxLxD
        for head, function in (("pooler", bertjax.pool), ("mlm", bertjax.mlm_logits)):
            if head in heads:
                assert np.isfinite(function(config, params, hidden)).all()
            else:
                with pytest.raises(UserError, match=f"model.heads: found .*, expected {head}"):
                    function(config, params, hidden)
    with pytest.raises(UserError, match="model.heads: found none, expected nsp"):
        bertjax.nsp_logits(dataclasses.replace(MODEL, heads=()), {}, hidden[:, 0])


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param({"scan_unroll": 3, "remat": "full"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_shared_layer_is_that_layer_applied_n_times(batch, changes):
    shared = dataclasses.replace(MODEL, share_layers=True, num_hidden_layers=3, **changes)
    params = init(shared, jax.random.key(0))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["encoder"]["layers"])} == {1}
    layers = jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), params["encoder"]["layers"])
    plain = dataclasses.replace(shared, share_layers=False)
    (a, _), shared_gradient = loss_and_gradient(shared, params, batch)
    (b, _), gradient = loss_and_gradient(plain, dict(params, encoder={"layers": layers}), batch)
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    summed = jax.tree.map(lambda x: x.sum(axis=0, keepdims=True), gradient["encoder"])
    for x, y in zip(
        jax.tree.leaves(shared_gradient["encoder"]), jax.tree.leaves(summed), strict=True
    ):
        assert np.allclose(x, y, atol=1e-6)
    keep = {"key": None, "keep_layers": True}
    assert np.allclose(
        encode(shared, params, batch, **keep).layers_NxBxLxD,
        encode(plain, dict(params, encoder={"layers": layers}), batch, **keep).layers_NxBxLxD,
        atol=1e-6,
    )


def test_dropout_differs_between_the_uses_of_a_shared_layer(batch):
    config = dataclasses.replace(
        MODEL, share_layers=True, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0
    )
    params = jax.tree.map(jnp.zeros_like, init(config, jax.random.key(0)))
    norms = (
        params["encoder"]["layers"]["mlp_layer_norm"],
        params["encoder"]["layers"]["attention_layer_norm"],
    )
    for norm in norms:
        norm["scale"] = jnp.ones_like(norm["scale"])
    params["encoder"]["layers"]["mlp"]["down"]["bias"] = jnp.arange(24.0)[
        None
    ]  # all that a layer adds
    layers = encode(config, params, batch, key=jax.random.key(0), keep_layers=True).layers_NxBxLxD
    assert not np.allclose(layers[0], layers[1])


def test_narrow_embeddings_are_projected(batch):
    config = dataclasses.replace(MODEL, embedding_size=8)
    params = bertjax.init(config, jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in named(params).items() if "encoder" not in name}
    assert shapes["embeddings/word/embedding"] == (64, 8)
    assert (
        shapes["embeddings/layer_norm/scale"]
        == shapes["mlm/transform/bias"]
        == shapes["mlm/layer_norm/bias"]
        == (8,)
    )
    assert shapes["embeddings/projection/kernel"] == (8, 24)
    assert shapes["mlm/transform/kernel"] == (24, 8)
    axes = named(
        functional.logical_axes(config), is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec)
    )
    assert tuple(axes["embeddings/projection/kernel"]) == (None, "embed")
    # A projection by the identity is none.
    wide = dataclasses.replace(MODEL, embedding_size=24)
    plain = init(MODEL, jax.random.key(0))
    projection = {"kernel": jnp.eye(24), "bias": jnp.zeros(24)}
    widened = dict(plain, embeddings=dict(plain["embeddings"], projection=projection))
    a, _ = bertjax.pretraining_loss(MODEL, plain, batch)
    b, _ = bertjax.pretraining_loss(wide, widened, batch)
    assert float(a) == pytest.approx(float(b), rel=1e-6)


def test_positions_begin_at_their_offset(params, batch):
    late = dataclasses.replace(MODEL, position_offset=2, max_position_embeddings=18)
    table = params["embeddings"]["position"]["embedding"]
    moved = {
        "embedding": jnp.concatenate([jnp.full((2, 24), jnp.nan), table])
    }  # rows that nothing may read
    shifted = dict(params, embeddings=dict(params["embeddings"], position=moved))
    assert late.max_length == 16
    for positions in ({}, {"position_ids": np.arange(16)[None, ::-1] % 7}):
        there = encode(late, shifted, batch | positions).hidden_BxLxD
        assert np.array_equal(there, encode(MODEL, params, batch | positions).hidden_BxLxD)


def test_rows_longer_than_the_positions_are_refused_unless_they_bring_their_own(params):
    long = np.full((1, MODEL.max_length + 1), 5, np.int32)
    message = "input_ids: found rows of 17 ids, expected at most 16, the model's positions"
    with pytest.raises(UserError, match=message):
        functional.encode(MODEL, params, {"input_ids": long})
    with pytest.raises(UserError, match=message):
        jax.jit(lambda ids: functional.encode(MODEL, params, {"input_ids": ids}))(long)
    positions = np.arange(long.shape[1])[None, :] % MODEL.max_length
    encoded = functional.encode(MODEL, params, {"input_ids": long, "position_ids": positions})
    assert np.isfinite(encoded.hidden_BxLxD).all()


CAUSAL = {
    "global": {},
    "windows": {"local_attention": 6, "global_attn_every_n_layers": 2, "positions": "rotary"},
    "relative": {"relative_positions": 15, "positions": "none"},
}


@pytest.mark.parametrize(
    "kind",
    ["windows", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("global", "relative"))],
)
def test_states_of_a_causal_row_do_not_depend_on_later_ids_and_other_rows_are_as_ever(kind):
    config = dataclasses.replace(SMALL_MODEL, **CAUSAL[kind])
    params = init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 64, (3, 16)).astype(np.int32)
    packs = np.repeat([[1, 2]], 8, axis=1).astype(np.int32) * np.ones((3, 1), np.int32)
    causal = np.array([[1], [0], [1]], np.int32)
    others = {"pack_ids": packs, "causal": causal}
    found = np.asarray(encode(config, params, {"input_ids": ids, **others}).hidden_BxLxD)
    plain = np.asarray(encode(config, params, {"input_ids": ids, "pack_ids": packs}).hidden_BxLxD)
    assert np.allclose(found[1], plain[1], atol=1e-6)
    assert not np.allclose(found[0], plain[0], atol=1e-3)
    # The last id of an input sees as much as ever, of states that saw less.
    changed = ids.copy()
    changed[:, 4] = 1 + changed[:, 4] % 60
    again = np.asarray(encode(config, params, {"input_ids": changed, **others}).hidden_BxLxD)
    differs = (np.abs(found - again) > 1e-6).any(-1)
    assert not differs[[0, 2], :4].any()
    assert differs[[0, 2], 4:8].any(axis=1).all()
    assert differs[1, :4].any()
    # The second input of the row sees nothing of the first.
    assert not differs[:, 8:].any()


def test_kernels_for_whole_rows_refuse_causal_ones():
    config = dataclasses.replace(SMALL_MODEL, kernels="pallas")
    batch = {"input_ids": np.ones((2, 16), np.int32), "causal": np.ones((2, 1), np.int32)}
    params = jax.eval_shape(lambda: functional.init(config, jax.random.key(0)))
    message = "model.kernels: found pallas, expected xla, for causal rows"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda p: functional.encode(config, p, batch), params)


def test_shifted_predictions_read_the_state_before_each_word(params, batch):
    shifted = dataclasses.replace(MODEL, mlm_shifted=True)
    hidden = np.random.default_rng(0).standard_normal((2, 16, 24)).astype(np.float32)
    plain = functional.mlm_logits(MODEL, params, hidden)
    everywhere = functional.mlm_logits(shifted, params, hidden)
    assert np.allclose(everywhere[:, 1:], plain[:, :-1], atol=1e-6)
    positions = np.array([[1, 5, 15], [2, 3, 4]], np.int32)
    some = functional.mlm_logits(shifted, params, hidden, positions)
    wanted = functional.mlm_logits(MODEL, params, hidden, positions - 1)
    assert np.allclose(some, wanted, atol=1e-6)
    labels, weights = positions + 5, np.ones((2, 3), np.float32)
    loss = functional.mlm_cross_entropy(shifted, params, hidden, positions, labels, weights).loss
    log_probabilities = jax.nn.log_softmax(wanted)
    picked = np.take_along_axis(np.asarray(log_probabilities), labels[:, :, None], 2)
    assert float(loss) == pytest.approx(-picked.sum(), rel=1e-5)
