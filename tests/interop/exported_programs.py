"""Small models of every kind that can be exported, their outputs here, and programs run elsewhere."""

import dataclasses
import functools
import resource
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from bertjax.interop.programs.serving import served_model
from bertjax.model import functional
from tests.factory import SMALL_MODEL

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
SHAPES = [(1, 1), (2, 9), (5, 14)]


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
        "segment_ids": rng.integers(0, config.type_vocab_size, shape).astype(np.int32),
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


def assert_same(outputs, expected, atol=1e-5):
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        output = np.asarray(outputs[name])
        assert output.dtype == np.float32, name
        np.testing.assert_allclose(output, value, rtol=0, atol=atol, err_msg=name)


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
