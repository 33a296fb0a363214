"""The causal class of a family in `transformers` computes what causal rows train."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

import bertjax
from bertjax.config import family
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from bertjax.interop.checkpoints.families.matching import decoder_family
from bertjax.interop.checkpoints.families.table import DECODERS, FAMILIES
from bertjax.model import functional
from tests.families.tiny import SIZES
from tests.interop.checkpoints.families.references import padded_rows
from tests.tasks.tiny import TOKENIZER

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLASSES = {
    "bert": "BertLMHeadModel",
    "roberta": "RobertaForCausalLM",
    "electra": "ElectraForCausalLM",
    "xlm-roberta": "XLMRobertaForCausalLM",
    "modernbert": "ModernBertDecoderForCausalLM",
    "eurobert": "LlamaForCausalLM",
}
# Rows of 40 are several windows long.
FIELDS = {
    "electra": {"embedding_size": 8},
    "modernbert": {
        "local_attention": 8,
        "biases": ("attention", "mlp", "mlp_output", "norm", "mlm", "mlm_transform"),
        "rotary_scaling": 2.0,
    },
    "eurobert": {
        "num_key_value_heads": 1,
        "attention_head_size": 4,
        # EuroBERT's class would have a bias of words beside those of feed-forward sublayers.
        "biases": ("attention", "mlp", "mlp_output"),
    },
}


def small(name, **fields):
    return family(name, **{**SIZES, "heads": ("mlm",), **FIELDS.get(name, {}), **fields})


def random_params(config):
    """Parameters of which none has its initial 0 or 1."""
    rng = np.random.default_rng(0)

    def numbers(path, leaf):
        around = 1 if path[-1].key == "scale" else 0
        return np.float32(around + 0.2 * rng.standard_normal(leaf.shape))

    return jax.tree_util.tree_map_with_path(numbers, functional.shapes(config))


@functools.partial(jax.jit, static_argnums=0)
def logits_of_states(config, params, batch):
    hidden = bertjax.encode(config, params, batch).hidden_BxLxD
    unshifted = dataclasses.replace(config, mlm_shifted=False)
    return bertjax.mlm_logits(unshifted, params, hidden)


def causal_logits(config, params, ids, mask):
    """The logits of the token after each one, in causal rows."""
    batch = {"input_ids": ids, "input_mask": mask, "causal": np.ones((len(ids), 1), np.int32)}
    return np.asarray(logits_of_states(config, params, batch))


def loaded(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        name if name == "modernbert" else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(DECODERS)
    ],
)
def test_the_causal_class_gives_the_logits_of_causal_rows(name, tmp_path, largest):
    config = small(name, mlm_shifted=name in ("bert", "modernbert"))
    params = random_params(config)
    huggingface.save(tmp_path, config, params, decoder=True)
    model = loaded(tmp_path)
    assert type(model).__name__ == CLASSES[name]
    ids, mask = padded_rows()
    with torch.no_grad():
        logits = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    own = causal_logits(config, params, ids, mask)
    largest(f"{name}, causal logits", float(np.abs(own - logits)[mask > 0].max()), 1e-4)
    # The reference is not one of whole rows.
    others = logits_of_states(config, params, {"input_ids": ids, "input_mask": mask})
    assert np.abs(own - others)[mask > 0].max() > 0.01


@pytest.mark.slow
# `generate` of transformers 5.24 counts RoBERTa's positions from 0, unlike the class itself.
@pytest.mark.parametrize("name", sorted(DECODERS.keys() - {"roberta", "xlm-roberta"}))
def test_generated_tokens_are_those_of_the_largest_logits(name, tmp_path):
    """Generation reads one token at a time and keeps keys and values, windows included."""
    config = small(name)
    params = random_params(config)
    huggingface.save(tmp_path, config, params, decoder=True)
    ids = padded_rows()[0][:1, :12]
    model = loaded(tmp_path)
    with torch.no_grad():
        answer = model.generate(
            torch.tensor(ids), max_new_tokens=12, do_sample=False, eos_token_id=None
        )
    row = np.zeros((1, 24), np.int32)
    row[:, :12] = ids
    for place in range(12, 24):
        # No token sees the zeros after it.
        logits = causal_logits(config, params, row, np.ones_like(row))
        row[0, place] = logits[0, place - 1].argmax()
    assert answer.numpy().tolist() == row.tolist()


def test_rows_of_text_end_where_the_tokenizer_ends_them(tmp_path):
    for name in ("bert", "eurobert"):
        config = small(name, vocab_size=TOKENIZER.vocab_size)
        folder = tmp_path / name
        huggingface.save(folder, config, random_params(config), TOKENIZER, decoder=True)
        values = json.loads((folder / "config.json").read_text())
        assert values["eos_token_id"] == TOKENIZER.sep_id
        assert values["bos_token_id"] == TOKENIZER.cls_id


def test_other_heads_are_left_out_and_say_nothing_of_the_class(tmp_path):
    config = family("bert", **SIZES, heads=("mlm", "nsp", "pooler"))
    huggingface.save(tmp_path, config, random_params(config), decoder=True)
    loaded(tmp_path)


@pytest.mark.parametrize(
    "name, fields, expected",
    [
        ("deberta-v2", {"relative_positions": 16}, "network: found decoder, expected model: .* of deberta-v2"),
        ("albert", {"embedding_size": 8}, "no decoder class of albert, as of bert, roberta"),
        ("distilbert", {}, "no decoder class of distilbert"),
        ("gte", {}, "no decoder class of gte"),
        ("neobert", {}, "no decoder class of neobert"),
        ("gpt_bert", {"relative_positions": 15, "mlm_shifted": True}, "no decoder class of gpt_bert"),
        ("ultrabert", {"local_attention": 8, "mlm_hidden_size": 12}, "no decoder class of ultrabert"),
        ("bert", {"heads": ("pooler",)}, "model.heads: found pooler, expected mlm among them"),
        ("bert", {"heads": ()}, "model.heads: found none, expected mlm among them"),
        ("bert", {"positions": "sinusoidal"}, "model.positions: found sinusoidal, expected learned"),
        # EuroBERT's class has all biases of feed-forward sublayers and of words, or none.
        ("eurobert", {"biases": ("attention", "mlp", "mlp_output", "mlm")}, "model.biases: found .*'mlm'.*as in euro"),
    ],
)  # fmt: skip
def test_a_model_without_a_causal_class_is_refused_and_nothing_is_written(
    name, fields, expected, tmp_path
):
    config = small(name, **fields)
    with pytest.raises(UserError, match=expected) as error:
        huggingface.save(tmp_path / "out", config, {}, decoder=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_each_causal_class_is_of_a_family_that_is_read_and_is_not_read_itself(tmp_path):
    assert DECODERS.keys() <= FAMILIES.keys()
    assert DECODERS.keys() == CLASSES.keys()
    config = family("electra", **SIZES, heads=("mlm",))
    assert decoder_family(config).classes.keys() == {"ElectraForCausalLM"}
    for name, message in (("bert", "is_decoder: found True"), ("eurobert", "model_type: found")):
        config = small(name)
        huggingface.save(tmp_path / name, config, random_params(config), decoder=True)
        with pytest.raises(UserError, match=message):
            huggingface.load(tmp_path / name)
