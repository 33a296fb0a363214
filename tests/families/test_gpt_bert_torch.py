import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from tests.families.goldens import CONFIG, gpt_bert_goldens  # noqa: E402
from tests.families.gpt_bert_torch import GptBert, GptBertConfig, position_indices  # noqa: E402
from tests.families.rows import add_noise  # noqa: E402


@pytest.mark.parametrize("causal", [False, True])
def test_the_logits_are_those_of_the_authors_code(causal, largest):
    goldens = gpt_bert_goldens()
    model = GptBert(CONFIG)
    tensors = {name: torch.from_numpy(array) for name, array in goldens.tensors.items()}
    # Strict: also the names and shapes are those on disk.
    model.load_state_dict(tensors)
    with torch.no_grad():
        logits = model(torch.from_numpy(goldens.input_ids_BxL), causal=causal).logits_BxLxV
    expected = goldens.causal_logits_BxLxV if causal else goldens.logits_BxLxV
    difference = np.abs(logits.numpy() - expected).max()
    largest(f"GPT-BERT in torch, causal {causal}: logits", difference, 1e-5)


def test_the_places_of_relative_positions_are_those_stored():
    goldens = gpt_bert_goldens()
    for layer in range(CONFIG.num_hidden_layers):
        stored = goldens.tensors[f"transformer.attention_layers.{layer}.position_indices"]
        np.testing.assert_array_equal(position_indices(CONFIG), stored)


@given(st.sampled_from([4, 8, 32]), st.sampled_from([64, 128, 512]))
def test_each_side_uses_all_buckets_and_the_far_end_has_the_last(buckets, length):
    config = dataclasses.replace(
        CONFIG, position_bucket_size=buckets, max_position_embeddings=length
    )
    places = position_indices(config)
    assert places.unique().tolist() == list(range(2 * buckets - 1))
    assert (places[-1].diff() <= 0).all()
    assert (places + places.T == 2 * (buckets - 1)).all()


@st.composite
def small_models(draw):
    """A model in float64 with parameters of its own, and the ids of two inputs."""
    heads = draw(st.integers(1, 3))
    config = GptBertConfig(
        vocab_size=draw(st.integers(5, 30)),
        hidden_size=heads * draw(st.integers(2, 6)),
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(2, 12)),
        max_position_embeddings=40,
        position_bucket_size=draw(st.sampled_from([4, 6, 8])),
    )
    model = GptBert(config).double()
    add_noise(model, draw(st.integers(0, 2**31)))
    ids = st.integers(0, config.vocab_size - 1)
    first, second = draw(st.lists(ids, min_size=2, max_size=20)), draw(st.lists(ids, min_size=1))
    return model, first, second[:20]


@settings(max_examples=10)
@given(small_models(), st.booleans(), st.integers(0, 3))
def test_inputs_packed_in_a_row_get_what_they_get_alone(case, causal, padding):
    model, first, second = case
    row = torch.tensor([first + second + [0] * padding])
    inputs = torch.tensor([[1] * len(first) + [2] * len(second) + [0] * padding])
    with torch.no_grad():
        packed = model(row, inputs, causal).logits_BxLxV[0]
        alone = [model(torch.tensor([ids]), causal=causal).logits_BxLxV[0] for ids in case[1:]]
    expected = torch.cat(alone)
    torch.testing.assert_close(packed[: len(expected)], expected, rtol=0, atol=1e-11)


@settings(max_examples=10)
@given(small_models())
def test_with_the_causal_mask_a_token_depends_on_none_after_it(case):
    model, first, second = case
    with torch.no_grad():
        whole = model(torch.tensor([first + second]), causal=True).logits_BxLxV[0]
        begun = model(torch.tensor([first]), causal=True).logits_BxLxV[0]
    torch.testing.assert_close(whole[: len(first)], begun, rtol=0, atol=1e-11)
