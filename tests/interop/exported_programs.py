"""Small models of every kind that can be exported, their outputs here, and programs run elsewhere."""

import dataclasses
import functools
import resource
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from bertjax.config import ModelConfig
from bertjax.config.families import FAMILIES, family
from bertjax.config.layers import BIASES
from bertjax.interop.programs.serving import served_model
from bertjax.model import functional
from tests.factory import SMALL_MODEL

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
OUTPUTS = {"hidden": None, "pooled": "pooler", "mlm_logits": "mlm", "nsp_logits": "nsp"}
MODELS = {
    "bert": SMALL_MODEL,
    "gelu_tanh": dataclasses.replace(
        SMALL_MODEL, hidden_act="gelu_tanh", heads=("pooler",), num_attention_heads=4
    ),
    "albert": dataclasses.replace(
        SMALL_MODEL,
        hidden_act="relu",
        embedding_size=8,
        share_layers=True,
        num_hidden_layers=3,
        layer_norm_eps=1e-6,
    ),
    "roberta": dataclasses.replace(
        SMALL_MODEL, position_offset=2, type_vocab_size=1, heads=("mlm",), scan_unroll=2
    ),
    "headless": dataclasses.replace(
        SMALL_MODEL, heads=(), embedding_size=24, num_hidden_layers=1, remat="full"
    ),
}
COMPOSED = {
    "rotary": ModelConfig(
        **SIZES,
        heads=("pooler", "mlm"),
        num_attention_heads=4,
        attention_head_size=6,
        num_key_value_heads=2,
        positions="rotary",
        rotary_base=160_000.0,
        rotary_base_local=10_000.0,
        rotary_scaling=2.0,
        type_vocab_size=0,
        local_attention=4,
        global_attn_every_n_layers=2,
        first_global_layer=1,
        norm_place="before",
        norm_type="rms_norm",
        first_norm=False,
        embedding_norm=False,
        final_norm=True,
        feed_forward="gated",
        hidden_act="silu",
        biases=("mlp", "mlm", "pooler"),
        pooling="mean",
        pooler_act="gelu",
        pooler_norm=True,
        token_pooler=True,
        mlm_transform=False,
        mlm_tied=False,
    ),
    "relative": ModelConfig(
        **SIZES,
        heads=("pooler", "mlm"),
        num_attention_heads=2,
        attention_head_size=6,
        positions="none",
        relative_positions=9,
        relative_max_distance=12,
        relative_projections="own",
        norm_place="both",
        norm_scale=False,
        norm_inside=True,
        value_gate=True,
        layer_mix=True,
        biases=("attention", "mlp_output"),
        pooler="none",
        mlm_hidden_size=12,
        mlm_norm=False,
        mlm_shifted=True,
    ),
    # Pairs of another order than those of "rotary", and positions of both kinds.
    "interleaved": ModelConfig(
        **SIZES,
        heads=("pooler", "mlm"),
        num_attention_heads=2,
        positions="rotary",
        rotary_pairs="interleaved",
        relative_positions=8,
        embedding_size=7,
        share_layers=True,
        norm_type="rms_norm",
        feed_forward="gated",
        biases=("mlp_output", "mlm_transform"),
        mlm_act="relu",
    ),
    "sinusoidal": ModelConfig(
        **SIZES,
        heads=("pooler", "mlm"),
        num_attention_heads=2,
        positions="sinusoidal",
        position_offset=1,
        embedding_size=7,
        local_attention=2,
        global_attn_every_n_layers=0,
        norm_place="before",
        pooler_act="relu",
        mlm_act="silu",
        biases=("norm", "attention"),
    ),
}
"""Models of the fields in which encoders differ, several in each model."""
SHAPES = [(1, 1), (2, 9), (5, 14)]


def small_family(name):
    """A small model of a family, with global and local layers where the family has both."""
    # Rows of 14 are longer than the windows.
    window = {"local_attention": 4} if FAMILIES[name].get("local_attention") else {}
    sizes = {**SIZES, "num_hidden_layers": 4, "num_attention_heads": 2, **window}
    heads = FAMILIES[name].get("heads", ("pooler", "mlm", "nsp"))
    if FAMILIES[name].get("mlm_hidden_size"):
        sizes["mlm_hidden_size"] = 12
    config = family(name, **sizes, heads=("pooler", *(head for head in heads if head != "pooler")))
    # Some tables have more positions than others for the same rows.
    positions = sizes["max_position_embeddings"] + config.position_offset
    return dataclasses.replace(config, max_position_embeddings=positions)


@st.composite
def composed_models(draw):
    """A small model with drawn fields; combinations that the configuration refuses are dropped."""
    before = draw(st.sampled_from(["after", "before", "both"]))
    rms = draw(st.booleans())
    fields = {
        "positions": draw(st.sampled_from(["learned", "sinusoidal", "rotary", "none"])),
        "rotary_pairs": draw(st.sampled_from(["half", "interleaved"])),
        "rotary_base_local": draw(st.sampled_from([0.0, 100.0])),
        "rotary_scaling": draw(st.sampled_from([1.0, 2.0])),
        "type_vocab_size": draw(st.sampled_from([0, 1, 2])),
        "embedding_size": draw(st.sampled_from([0, 6, 7])),
        "share_layers": draw(st.booleans()),
        "value_gate": draw(st.booleans()),
        "norm_place": before,
        "norm_type": "rms_norm" if rms else "layer_norm",
        "norm_scale": draw(st.booleans()),
        "norm_inside": draw(st.booleans()),
        "first_norm": before == "after" or draw(st.booleans()),
        "final_norm": before != "after" and draw(st.booleans()),
        "embedding_norm": draw(st.booleans()),
        "feed_forward": draw(st.sampled_from(["plain", "gated"])),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        "layer_mix": draw(st.booleans()),
        "pooling": draw(st.sampled_from(["first", "mean"])),
        "pooler": draw(st.sampled_from(["dense", "none"])),
        "pooler_act": draw(st.sampled_from(["tanh", "silu"])),
        "pooler_norm": draw(st.booleans()),
        "mlm_norm": draw(st.booleans()),
        "mlm_tied": draw(st.booleans()),
    }
    fields["mlm_transform"] = bool(fields["embedding_size"]) or draw(st.booleans())
    if fields["mlm_transform"]:
        fields["mlm_hidden_size"] = draw(st.sampled_from([0, 5]))
    biases = draw(st.sets(st.sampled_from(sorted(set(BIASES) - ({"norm"} if rms else set())))))
    if draw(st.booleans()):
        fields["relative_positions"] = draw(st.sampled_from([7, 8, 12]))
        fields["relative_projections"] = draw(st.sampled_from(["shared", "own"]))
        fields["relative_max_distance"] = draw(st.sampled_from([0, 11]))
    else:
        fields["num_key_value_heads"] = draw(st.sampled_from([0, 1, 2]))
        fields["local_attention"] = draw(st.sampled_from([0, 2, 6]))
        fields["global_attn_every_n_layers"] = draw(st.sampled_from([0, 1, 2]))
    return ModelConfig(
        **SIZES, num_attention_heads=4, heads=("pooler", "mlm"), biases=tuple(biases), **fields
    )


LONG = family("modernbert", **{**SIZES, "max_position_embeddings": 4096}, num_attention_heads=2)
"""A model whose rows may be many windows of 128 long."""


def random_params(config, seed=0):
    """Parameters of which none is zero or one, biases and layer norms neither."""
    rng = np.random.default_rng(seed)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.float32(
            (path[-1].key == "scale") + 0.2 * rng.standard_normal(leaf.shape)
        ),
        functional.shapes(config),
    )


def random_inputs(config, rows, length, seed=0):
    """Rows padded by uneven amounts, one of padding alone, of every segment."""
    rng = np.random.default_rng(seed)
    real = rng.integers(0, length + 1, (rows, 1))
    real[0] = length
    shape = (rows, length)
    return {
        "input_ids": rng.integers(0, config.vocab_size, shape).astype(np.int32),
        "input_mask": (np.arange(length)[None, :] < real).astype(np.int32),
        # Programs of models without token types take the segments too, and do not read them.
        "segment_ids": rng.integers(0, config.type_vocab_size or 2, shape).astype(np.int32),
    }


def all_outputs(config):
    return tuple(name for name, head in OUTPUTS.items() if head is None or head in config.heads)


def served(config, params, outputs=None):
    """The model as programs serve it, by default with every output that it has."""
    return served_model(config, params, all_outputs(config) if outputs is None else outputs)


def expected(config, params, inputs):
    """Every output that the model has."""
    return {
        name: np.asarray(value, np.float32)
        for name, value in _outputs(config, params, inputs).items()
    }


@functools.partial(jax.jit, static_argnums=0)
def _outputs(config, params, inputs):
    hidden = functional.encode(config, params, inputs).hidden_BxLxD
    computed = {"hidden": hidden}
    if "pooler" in config.heads:
        computed["pooled"] = functional.pool(
            config, params, hidden, input_mask=inputs["input_mask"]
        )
    if "mlm" in config.heads:
        computed["mlm_logits"] = functional.mlm_logits(config, params, hidden)
    if "nsp" in config.heads:
        computed["nsp_logits"] = functional.nsp_logits(config, params, computed["pooled"])
    return computed


def assert_same(outputs, expected, atol=1e-5, mask=None):
    """Compare all outputs; with an `input_mask`, only those of tokens that are no padding.

    With local attention padding may see no key at all. What is computed there is finite, but it
    depends on the implementation.
    """
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        output = np.asarray(outputs[name])
        assert output.dtype == np.float32, name
        if mask is not None:
            assert np.isfinite(output).all(), name
            real = np.asarray(mask, bool)
            # The vector of a row needs a token in the row.
            real = real if output.ndim == 3 else real[:, 0]
            output, value = output[real], value[real]
        np.testing.assert_allclose(output, value, rtol=0, atol=atol, err_msg=name)


def assert_computed(outputs, config, params, inputs):
    """Compare the outputs of a program with those of the model here."""
    mask = inputs["input_mask"] if config.local_attention else None
    assert_same(outputs, expected(config, params, inputs), mask=mask)


def load_stablehlo(folder):
    """The program and its parameters."""
    exported = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    return exported, dict(np.load(folder / "params.npz"))


def run_stablehlo(folder, inputs):
    exported, params = load_stablehlo(folder)
    return exported.call(params, *inputs.values())


def serve_saved_model(loaded, inputs):
    """The outputs of a SavedModel that TensorFlow has loaded."""
    import tensorflow as tf

    outputs = loaded.signatures["serving_default"](
        **{name: tf.constant(value) for name, value in inputs.items()}
    )
    return {name: value.numpy() for name, value in outputs.items()}


def run_saved_model(folder, inputs):
    tensorflow = pytest.importorskip("tensorflow")
    return serve_saved_model(tensorflow.saved_model.load(str(folder)), inputs)


def onnx_session(folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options)


def serve_onnx(session, inputs):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_onnx(folder, inputs):
    return serve_onnx(onnx_session(folder), inputs)


@contextmanager
def files_of_at_most(size):
    """A limit on the bytes of each file that is written, as a full disk sets one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
