"""The decoder beside that of `transformers`, and what it sees."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.tasks.seq2seq import decoder
from tests.tasks.seq2seq.cases import (
    CLS,
    MODEL,
    PAD,
    SEEDS,
    SEP,
    TASK,
    TINY,
    decoder_of,
    encoded,
    encoder_of,
    generated,
    loss_and_gradient,
    pairs_batch,
    params_of_task,
    scores_of,
    teacher,
)


def reference(config, seed):
    """An encoder-decoder of `transformers`, every parameter random, and our parameters with its
    numbers.
    """
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from bertjax.interop.checkpoints.model_config import huggingface_config

    torch.manual_seed(seed)
    values = {
        name: value
        for name, value in huggingface_config("bert", config, 0).items()
        if name != "model_type"
    }
    make = functools.partial(transformers.BertConfig, **values, attn_implementation="eager")
    encoder = transformers.BertModel(make(), add_pooling_layer=False)
    decoder_model = transformers.BertLMHeadModel(make(is_decoder=True, add_cross_attention=True))
    model = transformers.EncoderDecoderModel(encoder=encoder, decoder=decoder_model).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * config.initializer_range)
    return model


def ours(config, model, gradients=False):
    """Our tree of the reference's parameters, or of their gradients, with a head for the task
    `reverse`.
    """
    from bertjax.interop.checkpoints.tensor_mapping import Tensors, import_params
    from bertjax.interop.checkpoints.tensor_names import torch_dialect

    of = {
        name: (p.grad if gradients else p.detach()).numpy() for name, p in model.named_parameters()
    }

    def taken(config, prefix, base=""):
        result = {
            base + name.removeprefix(prefix): x
            for name, x in of.items()
            if name.startswith(prefix) and "crossattention" not in name
        }
        return import_params(
            config,
            torch_dialect("bert"),
            Tensors(
                "the reference", {name: x.shape for name, x in result.items()}, result.__getitem__
            ),
        )

    encoder = taken(dataclasses.replace(config, heads=()), "encoder.", "bert.")
    whole = taken(dataclasses.replace(config, heads=("mlm",)), "decoder.")

    def stacked(name, leaf):
        layers = range(config.num_hidden_layers)
        return np.stack(
            [of[f"decoder.bert.encoder.layer.{i}.crossattention.{name}.{leaf}"] for i in layers]
        )

    width, heads = (
        config.hidden_size,
        (config.num_attention_heads, config.hidden_size // config.num_attention_heads),
    )
    cross = {
        part: {
            "kernel": stacked(f"self.{part}", "weight")
            .transpose(0, 2, 1)
            .reshape(-1, width, *heads),
            "bias": stacked(f"self.{part}", "bias").reshape(-1, *heads),
        }
        for part in ("query", "key", "value")
    }
    cross["output"] = {
        "kernel": stacked("output.dense", "weight").transpose(0, 2, 1).reshape(-1, *heads, width),
        "bias": stacked("output.dense", "bias"),
    }
    norm = {
        "scale": stacked("output.LayerNorm", "weight"),
        "bias": stacked("output.LayerNorm", "bias"),
    }
    layers = {
        **whole["encoder"]["layers"],
        "cross_attention": cross,
        "cross_attention_layer_norm": norm,
    }
    head = {"embeddings": whole["embeddings"], "layers": layers, "mlm": whole["mlm"]}
    return jax.tree.map(jnp.asarray, {**encoder, "tasks": {"reverse": head}})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {"hidden_act": "relu", "num_attention_heads": 4, "num_hidden_layers": 3},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_scores_loss_gradients_and_greedy_targets_are_those_of_transformers(changes, largest):
    torch = pytest.importorskip("torch")
    config = dataclasses.replace(MODEL, **changes)
    model = reference(config, 3)
    params, batch = ours(config, model), pairs_batch(np.random.default_rng(1))
    as_long = lambda x: torch.tensor(x, dtype=torch.long)  # noqa: E731
    ids, mask, target = (as_long(batch[name]) for name in ("input_ids", "input_mask", "target_ids"))
    theirs = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target[:, :-1]).logits
    labels = target[:, 1:].masked_fill(target[:, 1:] == PAD, -100)
    loss = torch.nn.functional.cross_entropy(
        theirs.flatten(0, 1), labels.flatten(), label_smoothing=0.1
    )
    loss.backward()

    task = TASK
    scores = scores_of(task, config, params, batch)
    assert scores.shape == (4, 8, config.vocab_size)
    largest(
        "seq2seq scores, and transformers'",
        np.abs(scores[:, :-1] - theirs.detach().numpy()).max(),
        2e-4,
    )
    (own_loss, sums), gradient = loss_and_gradient(task, config, params, batch)
    largest("seq2seq loss, and PyTorch's with label smoothing", abs(own_loss - loss.item()), 1e-5)
    best = (theirs.argmax(-1) == labels).sum().item()
    assert (float(sums["correct"]), float(sums["count"])) == (best, (labels >= 0).sum().item())
    wanted = ours(config, model, gradients=True)
    assert jax.tree.structure(wanted) == jax.tree.structure(gradient)
    for result, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        bound = 1e-3 * max(1.0, float(jnp.abs(expected).max()))
        largest("seq2seq gradients, and PyTorch's", jnp.abs(result - expected).max(), bound)

    options = {
        "do_sample": False,
        "num_beams": 1,
        "max_length": 8,
        "suppress_tokens": [PAD, CLS, 31],
    }
    special = {"decoder_start_token_id": CLS, "eos_token_id": SEP, "pad_token_id": PAD}
    texts = model.generate(input_ids=ids, attention_mask=mask, **options, **special).numpy()
    texts = np.pad(texts, ((0, 0), (0, 8 - texts.shape[1])), constant_values=PAD)
    np.testing.assert_array_equal(generated(task, config, params, batch), texts)


@given(SEEDS, st.integers(1, 7))
def test_no_score_depends_on_a_later_id_or_on_padding_of_the_source(seed, place):
    batch = pairs_batch(np.random.default_rng(seed))
    params, task = params_of_task(), TASK
    scores = scores_of(task, MODEL, params, batch)
    changed = {
        **batch,
        "target_ids": batch["target_ids"].copy(),
        "input_ids": batch["input_ids"] + 7 * (1 - batch["input_mask"]),
    }
    changed["target_ids"][:, place:] = (changed["target_ids"][:, place:] + 5) % 31
    other = scores_of(task, MODEL, params, changed)
    np.testing.assert_array_equal(other[:, :place], scores[:, :place])
    assert (
        np.abs(other[:, place] - scores[:, place]).max(-1).min() > 1e-4
    )  # but the id itself counts
    source = {**batch, "input_ids": batch["input_ids"].copy()}
    source["input_ids"][:, 1] = (source["input_ids"][:, 1] + 9) % 31
    assert (
        np.abs(scores_of(task, MODEL, params, source) - scores).max((1, 2)).min() > 1e-4
    )  # so do the source's


def test_steps_with_the_cache_give_the_scores_of_whole_targets():
    config = dataclasses.replace(TINY, share_layers=True, embedding_size=4)
    head, memory, mask = encoded(config, 5)
    targets = np.random.default_rng(0).integers(0, 8, (4, 3, 5)).astype(np.int32)
    source, cache = jax.jit(functools.partial(decoder.start, beams=3, length=5), static_argnums=0)(
        config, head, memory, mask
    )
    step = jax.jit(decoder.step, static_argnums=0)
    result = []
    for place in range(5):
        scores, cache = step(config, head, source, cache, targets[:, :, place], jnp.int32(place))
        result.append(scores)
    for beam in range(3):
        whole = teacher(config, head, memory, mask, targets[:, beam])
        np.testing.assert_allclose(np.stack(result, 2)[:, beam], whole, atol=3e-5)


@pytest.mark.slow
def test_remat_changes_nothing_and_dropout_comes_with_a_key():
    config = dataclasses.replace(MODEL, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    params, batch, task = params_of_task(config), pairs_batch(np.random.default_rng(2)), TASK
    keys = jax.random.split(jax.random.key(1))
    (loss, _), gradient = loss_and_gradient(task, config, params, batch, keys[0])
    for remat in ("full", "dots"):
        (other, _), same = loss_and_gradient(
            task, dataclasses.replace(config, remat=remat), params, batch, keys[0]
        )
        np.testing.assert_allclose(other, loss, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), same, gradient)
    losses = {
        float(loss_and_gradient(task, config, params, batch, key)[0][0]) for key in (*keys, None)
    }
    assert len(losses) == 3


def test_a_warm_decoder_is_the_donor_but_for_cross_attention_and_shares_no_array_with_it():
    donor, new = encoder_of(MODEL, 1), decoder_of(MODEL, 2)
    warm = decoder.warm_start(MODEL, new, donor)
    expected = {
        "embeddings": donor["embeddings"],
        "layers": {**new["layers"], **donor["encoder"]["layers"]},
        "mlm": donor["mlm"],
    }
    jax.tree.map(np.testing.assert_array_equal, warm, expected)
    assert not np.array_equal(
        warm["layers"]["attention"]["query"]["kernel"],
        new["layers"]["attention"]["query"]["kernel"],
    )
    # A train step gives its state's memory back: each array once.
    jax.jit(lambda both: jax.tree.map(lambda x: x + 1, both), donate_argnums=0)((donor, warm))


def test_a_warm_decoder_needs_no_masked_word_head_and_refuses_other_sizes():
    donor, new = encoder_of(MODEL, 1), decoder_of(MODEL, 2)
    bare = {name: part for name, part in donor.items() if name != "mlm"}
    warm = decoder.warm_start(MODEL, new, bare)
    jax.tree.map(np.testing.assert_array_equal, warm["mlm"], new["mlm"])
    np.testing.assert_array_equal(
        warm["embeddings"]["word"]["embedding"], donor["embeddings"]["word"]["embedding"]
    )
    larger = encoder_of(dataclasses.replace(MODEL, vocab_size=40), 1)
    with pytest.raises(
        UserError,
        match=r"embeddings/word/embedding: found shape \(40, 16\) in the checkpoint, expected the decoder's \(32, 16\)",
    ):
        decoder.warm_start(MODEL, new, larger)
    factored = decoder_of(dataclasses.replace(MODEL, embedding_size=16), 1)
    with pytest.raises(
        UserError, match="embeddings/projection/bias: found no such tensor in the checkpoint"
    ):
        decoder.warm_start(MODEL, factored, donor)
    assert TASK.initial_params(MODEL, new, {}) is new
    jax.tree.map(np.testing.assert_array_equal, TASK.initial_params(MODEL, new, bare), warm)


@pytest.mark.parametrize("changes", [{}, {"share_layers": True, "embedding_size": 8}])
def test_every_parameter_has_its_axes_and_the_encoders_where_it_is_the_encoders(changes):
    config = dataclasses.replace(MODEL, **changes)
    axes, shapes = (
        decoder.logical_axes(config),
        jax.eval_shape(lambda: decoder.init(config, jax.random.key(0))),
    )
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    jax.tree.map(
        lambda spec, leaf: np.testing.assert_equal(len(spec), leaf.ndim),
        axes,
        shapes,
        is_leaf=is_spec,
    )
    encoder = functional.logical_axes(config)
    assert axes["embeddings"] == encoder["embeddings"]
    assert axes["mlm"] == encoder["mlm"]
    layers = encoder["encoder"]["layers"]
    assert {name: axes["layers"][name] for name in layers} == layers
    assert axes["layers"]["cross_attention"] == layers["attention"]
    assert axes["layers"]["cross_attention_layer_norm"] == layers["attention_layer_norm"]
    assert set(axes["layers"]) == {*layers, "cross_attention", "cross_attention_layer_norm"}
