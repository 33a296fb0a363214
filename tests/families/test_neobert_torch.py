import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from tests.families.neobert_torch import NeoBert, NeoBertConfig  # noqa: E402
from tests.families.rows import add_noise  # noqa: E402


def rms_norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def rotated(x, positions):
    """Pairs of elements of [L, K] as complex numbers, turned."""
    pairs = x[:, 0::2] + 1j * x[:, 1::2]
    pair = np.arange(pairs.shape[1])
    turned = pairs * np.exp(1j * positions[:, None] / 10_000 ** (2 * pair / x.shape[1])[None])
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def attended(x, tensors, layer, heads):
    """Attention within one input, head by head."""
    qkv, wo = tensors[f"{layer}.qkv.weight"], tensors[f"{layer}.wo.weight"]
    width = x.shape[1] // heads
    positions = np.arange(len(x))
    contexts = []
    for head in range(heads):
        start = 3 * width * head
        query = rotated(x @ qkv[start : start + width].T, positions)
        key = rotated(x @ qkv[start + width : start + 2 * width].T, positions)
        value = x @ qkv[start + 2 * width : start + 3 * width].T
        weights = np.exp(query @ key.T / np.sqrt(width))
        contexts.append(weights / weights.sum(-1, keepdims=True) @ value)
    return np.concatenate(contexts, -1) @ wo.T


def logits_of(tensors, config, ids):
    """Return the formulas of the paper for one input, in float64."""
    x = tensors["model.encoder.weight"][ids]
    for number in range(config.num_hidden_layers):
        layer = f"model.transformer_encoder.{number}"
        normed = rms_norm(x, tensors[f"{layer}.attention_norm.weight"], config.norm_eps)
        x = x + attended(normed, tensors, layer, config.num_attention_heads)
        normed = rms_norm(x, tensors[f"{layer}.ffn_norm.weight"], config.norm_eps)
        gate, up = np.split(normed @ tensors[f"{layer}.ffn.w12.weight"].T, 2, -1)
        hidden = gate / (1 + np.exp(-gate)) * up
        x = x + hidden @ tensors[f"{layer}.ffn.w3.weight"].T
    x = rms_norm(x, tensors["model.layer_norm.weight"], config.norm_eps)
    return x @ tensors["decoder.weight"].T + tensors["decoder.bias"]


@st.composite
def small_models(draw):
    """A configuration, a model in float64, and rows of inputs: lists of lists of ids."""
    heads = draw(st.integers(1, 3))
    config = NeoBertConfig(
        vocab_size=draw(st.integers(5, 30)),
        hidden_size=heads * 2 * draw(st.integers(1, 4)),
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(2, 40)),
    )
    model = NeoBert(config).double()
    add_noise(model, draw(st.integers(0, 2**31)))
    an_input = st.lists(st.integers(0, config.vocab_size - 1), min_size=1, max_size=12)
    rows = draw(st.lists(st.lists(an_input, min_size=1, max_size=3), min_size=1, max_size=3))
    return config, model, rows


@settings(max_examples=12)
@given(small_models())
def test_the_logits_are_those_of_the_formulas_in_padded_and_packed_rows(case):
    config, model, rows = case
    length = max(sum(map(len, row)) for row in rows)
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    inputs = torch.zeros_like(input_ids)
    expected, real = [], torch.zeros_like(input_ids, dtype=torch.bool)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for number, row in enumerate(rows):
        start = 0
        for count, ids in enumerate(row, 1):
            end = start + len(ids)
            input_ids[number, start:end] = torch.tensor(ids)
            inputs[number, start:end] = count
            expected.append(logits_of(tensors, config, ids))
            start = end
        real[number, :start] = True
    with torch.no_grad():
        logits = model(input_ids, inputs).logits_BxLxV[real].numpy()
    np.testing.assert_allclose(logits, np.concatenate(expected), rtol=0, atol=1e-11)


def test_the_tensors_have_the_published_names_and_shapes():
    config = NeoBertConfig()
    with torch.device("meta"):
        model = NeoBert(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    first = "model.transformer_encoder.0."
    assert {
        name: shape for name, shape in shapes.items() if ".transformer_encoder." not in name
    } == {
        "decoder.bias": (30522,),
        "decoder.weight": (30522, 768),
        "model.encoder.weight": (30522, 768),
        "model.layer_norm.weight": (768,),
    }
    assert {name: shape for name, shape in shapes.items() if name.startswith(first)} == {
        first + "attention_norm.weight": (768,),
        first + "ffn.w12.weight": (4096, 768),
        first + "ffn.w3.weight": (768, 2048),
        first + "ffn_norm.weight": (768,),
        first + "qkv.weight": (2304, 768),
        first + "wo.weight": (768, 768),
    }
    assert len(shapes) == 4 + 6 * 28
