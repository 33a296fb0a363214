import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, family
from bertjax.errors import UserError
from bertjax.interop.checkpoints.families.matching import class_of, matching_family
from bertjax.interop.checkpoints.families.table import FAMILIES

NAMES = sorted(FAMILIES)


@st.composite
def sizes(draw):
    heads = draw(st.integers(1, 4))
    return {
        "num_attention_heads": heads,
        "hidden_size": 8 * heads,
        "num_hidden_layers": draw(st.integers(1, 7)),
        # A multiple of 8, as NeoBERT's are.
        "intermediate_size": 8 * draw(st.integers(1, 9)),
        "vocab_size": draw(st.integers(5, 99)),
        "max_position_embeddings": draw(st.integers(8, 99)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-7, 1e-5])),
        # What the choice does not depend on.
        "hidden_dropout_prob": draw(st.sampled_from([0.0, 0.1])),
        "z_loss": draw(st.sampled_from([0.0, 1e-4])),
        "remat": draw(st.sampled_from(["none", "full"])),
    }


@given(st.sampled_from(NAMES), sizes(), st.booleans())
def test_a_model_of_a_family_is_found_whatever_its_sizes(name, fields, has_mlm):
    if name == "distilbert":
        fields["layer_norm_eps"] = 1e-12  # a constant of its class
    config = family(name, **fields, **({} if has_mlm else {"heads": ()}))
    found = matching_family(config)
    assert found.name == name
    assert (class_of(found, config) != list(found.classes)[-1]) == has_mlm or name == "gpt_bert"


@pytest.mark.parametrize(
    "name, changes, first",
    [
        ("xlm-roberta", {}, "roberta"),
        ("electra", {}, "bert"),
        ("ultrabert", {"local_attention": 0, "heads": ()}, "eurobert"),
    ],
)
def test_of_several_families_with_the_model_it_is_the_one_that_it_came_from(name, changes, first):
    config = dataclasses.replace(family(name), **changes)
    assert matching_family(config).name == name
    # A model that came from none of them.
    assert matching_family(dataclasses.replace(config, exported_as="")).name == first


def test_a_head_that_the_family_lacks_is_looked_for_in_the_next():
    config = dataclasses.replace(family("electra"), heads=("pooler",))
    assert matching_family(config).name == "bert"
    projected = dataclasses.replace(config, embedding_size=4)
    with pytest.raises(UserError, match="model.heads: found pooler, expected a head of electra"):
        matching_family(projected)


def test_a_family_that_is_none_is_refused():
    with pytest.raises(UserError, match="model.exported_as: found 'berta', expected one of bert, "):
        matching_family(dataclasses.replace(family("bert"), exported_as="berta"))
    with pytest.raises(UserError, match="model.exported_as: found 'berta', .*; the nearest is"):
        Config(model=family("bert", exported_as="berta"))


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("modernbert", {"first_norm": True}, "model.first_norm: found True, expected False, as in mod"),
        ("modernbert", {"norm_type": "rms_norm"}, "model.norm_type: found rms_norm, expected layer_norm"),
        ("modernbert", {"pooling": "mean"}, ""),
        ("modernbert", {"rotary_pairs": "interleaved"}, "model.rotary_pairs: found interleaved"),
        ("eurobert", {"biases": ("pooler", "mlp")}, r"model.biases: found \('mlp',\), expected \(\), as in eurobert"),
        ("eurobert", {"num_key_value_heads": 4}, ""),
        ("gte", {"num_key_value_heads": 4}, "model.num_key_value_heads: found 4, expected 12, as in gte"),
        ("neobert", {"intermediate_size": 100}, "model.intermediate_size: found 100, expected 104"),
        ("neobert", {"local_attention": 8}, "model.local_attention: found 8, expected 0, as in neobert"),
        ("deberta-v2", {"relative_positions": 511}, "model.relative_positions: found 511, expected 510"),
        ("deberta-v2", {"mlm_tied": False}, "model.mlm_tied: found False, expected True"),
        ("gpt_bert", {"relative_positions": 64}, "model.relative_positions: found 64, expected 63"),
        ("gpt_bert", {"mlm_tied": False}, ""),
        ("nomic_bert", {"type_vocab_size": 0}, "as in"),
        ("bert", {"positions": "sinusoidal"}, "model.positions: found sinusoidal, expected learned"),
        ("bert", {"final_norm": True, "norm_place": "before"}, "model.norm_place: found before"),
        ("bert", {"mlm_shifted": True}, r"expected False, as in bert: of its classes BertLMHeadModel alone \(--network decoder\)"),
        ("gte", {"mlm_shifted": True}, "model.mlm_shifted: found True, expected False, as in gte: no family"),
        ("gpt_bert", {"mlm_shifted": True}, ""),
        ("bert", {"mlm_shifted": True, "heads": ("pooler",)}, ""),
        ("bert", {"embedding_noise": 5.0, "embedding_noise_kind": "gaussian"}, ""),
    ],
)  # fmt: skip
def test_a_field_with_which_no_family_is_left_is_named(name, changes, expected):
    config = dataclasses.replace(family(name), **changes)
    if not expected:
        assert matching_family(config).name == name
        return
    with pytest.raises(UserError, match=expected):
        matching_family(config)
