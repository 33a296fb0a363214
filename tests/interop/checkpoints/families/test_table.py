import json

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from hypothesis import given
from hypothesis import strategies as st

import bertjax
from bertjax.config import family
from bertjax.config.families import FAMILIES as PRESETS
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from bertjax.interop.checkpoints.families.table import (
    FAMILIES,
    check_config,
    family_of,
    read_config,
    write_config,
)
from tests.interop.checkpoints.families.references import (
    REFERENCES,
    Reference,
    made,
    padded_rows,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.numpy")


def outputs(model, ids, mask):
    """The last hidden states, and the logits of a model with a head."""
    with torch.no_grad():
        found = model(torch.tensor(ids), torch.tensor(mask), output_hidden_states=True)
    if hasattr(found, "logits"):
        return found.hidden_states[-1].numpy(), found.logits.numpy()
    return found.last_hidden_state.numpy(), None


# The others take as long each, mostly for compiling.
QUICK = ("modernbert_biases",)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REFERENCES],
)
def test_a_model_of_each_family_gives_the_same_outputs_here_and_comes_back(name, tmp_path, largest):
    reference = REFERENCES[name]
    model = made(reference)
    model.save_pretrained(tmp_path / "saved")
    config, params = huggingface.load(tmp_path / "saved")

    ids, mask = padded_rows()
    hidden, logits = outputs(model, ids, mask)
    encoded = bertjax.encode(config, params, {"input_ids": ids, "input_mask": mask}).hidden_BxLxD
    difference = np.abs(encoded - hidden)[mask > 0].max()
    largest(f"{name}, imported: hidden states", float(difference), 1e-5)
    assert ("mlm" in config.heads) == (logits is not None)
    if logits is not None:
        own = bertjax.mlm_logits(config, params, encoded)
        difference = np.abs(own - logits)[mask > 0].max()
        largest(f"{name}, imported: logits", float(difference), 1e-5)

    huggingface.save(tmp_path / "exported", config, params)
    again = transformers.AutoModel.from_pretrained(tmp_path / "exported").eval()
    assert np.array_equal(outputs(again, ids, mask)[0], hidden)
    if logits is not None:
        again, report = transformers.AutoModelForMaskedLM.from_pretrained(
            tmp_path / "exported", output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert np.array_equal(outputs(again.eval(), ids, mask)[1], logits)
    before = safetensors.load_file(tmp_path / "saved" / "model.safetensors")
    after = safetensors.load_file(tmp_path / "exported" / "model.safetensors")
    written = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert sorted(array.tobytes() for array in before.values()) == sorted(
        array.tobytes() for array in after.values()
    )
    if reference.is_written_alike:
        assert {key: array.tobytes() for key, array in before.items()} == {
            key: array.tobytes() for key, array in after.items()
        }
        assert written["architectures"] == [reference.name]


@pytest.mark.slow
def test_a_head_for_masked_words_that_tasks_begin_with_is_the_pooler_too(tmp_path, caplog):
    made(REFERENCES["modernbert"]).save_pretrained(tmp_path / "saved")
    config, params = huggingface.load(tmp_path / "saved")
    assert config.heads == ("pooler", "mlm")
    assert np.array_equal(params["pooler"]["kernel"], params["mlm"]["transform"]["kernel"])
    scales = params["pooler"]["layer_norm"]["scale"], params["mlm"]["layer_norm"]["scale"]
    assert np.array_equal(*scales)
    # The first layer has no norm; its row is not used.
    assert (params["encoder"]["layers"]["attention_layer_norm"]["scale"][0] == 1).all()
    tokenizer = WordPiece("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na", lowercase=True)
    huggingface.save(tmp_path / "exported", config, params, tokenizer)
    assert "model.heads: pooler is left out, modernbert has it only in the classes" in caplog.text
    written = json.loads((tmp_path / "exported" / "config.json").read_text())
    names = ("pad_token_id", "cls_token_id", "bos_token_id", "sep_token_id", "eos_token_id")
    assert [written[name] for name in names] == [0, 2, 2, 3, 3]


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_class_for_a_task_has_no_head_for_masked_words(has_bias, tmp_path):
    fields = {**REFERENCES["modernbert"].fields, "decoder_bias": has_bias}
    made(Reference("ModernBertForTokenClassification", fields)).save_pretrained(tmp_path)
    config, params = huggingface.load(tmp_path, ["classifier"])
    assert config.heads == ("pooler",)
    assert "mlm" not in params
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["architectures"] == ["ModernBertForTokenClassification"]
    # A file without the name of its class still has the last layer of the task.
    without = {name: value for name, value in values.items() if name != "architectures"}
    (tmp_path / "config.json").write_text(json.dumps(without))
    assert huggingface.load(tmp_path, ["classifier"])[0].heads == ("pooler",)
    # A file whose last layer was cut off still has the name of its class.
    (tmp_path / "config.json").write_text(json.dumps(values))
    file = str(tmp_path / "model.safetensors")
    left = {
        name: array
        for name, array in safetensors.load_file(file).items()
        if not name.startswith("classifier")
    }
    safetensors.save_file(left, file, metadata={"format": "pt"})
    assert huggingface.load(tmp_path)[0].heads == ("pooler",)


def test_weights_of_flax_are_read_of_families_that_were_there(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "eurobert"}))
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack_serialize({"a": np.ones(1, "f4")}))
    with pytest.raises(UserError, match="found weights of Flax for eurobert, expected weights of"):
        huggingface.load(tmp_path)


DEFAULTS_OF = {
    "bert": "BertConfig",
    "roberta": "RobertaConfig",
    "electra": "ElectraConfig",
    "albert": "AlbertConfig",
    "distilbert": "DistilBertConfig",
    "xlm-roberta": "XLMRobertaConfig",
    "modernbert": "ModernBertConfig",
    "eurobert": "EuroBertConfig",
    "nomic_bert": "NomicBertConfig",
    "gte": "GteConfig",
    "ultrabert": "UltrabertConfig",
}
# The least that the class needs in order to be one that bertjax computes.
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": "p2c|c2p",
}


def read(values):
    return read_config(family_of(values, "config.json"), values, "config.json")


@pytest.mark.parametrize("name", DEFAULTS_OF)
def test_what_a_config_leaves_out_is_the_default_of_the_class(name):
    values = getattr(transformers, DEFAULTS_OF[name])().to_dict()
    assert read({"model_type": name}) == read(values)
    # The class writes less than all of its fields.
    for left_out in ("vocab_size", "num_hidden_layers"):
        assert read({key: value for key, value in values.items() if key != left_out}) == read(
            values
        )


def test_what_a_deberta_leaves_out_is_the_default_of_its_class():
    given = {"model_type": "deberta-v2", **DEBERTA}
    config = read(given)
    assert config == read(transformers.DebertaV2Config(**DEBERTA).to_dict())
    assert (config.relative_positions, config.relative_projections) == (512, "own")


def test_every_preset_can_be_read_and_written_and_no_other():
    assert PRESETS.keys() == FAMILIES.keys()


OLD_WINDOWS = {
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 8000.0,
    "local_rope_theta": 90.0,
    "num_hidden_layers": 5,
}


def test_old_names_of_windows_and_bases_mean_what_they_did():
    config = read({"model_type": "modernbert", **OLD_WINDOWS})
    assert config.attends_globally == (True, False, True, False, True)
    assert (config.rotary_base, config.rotary_base_local) == (8000.0, 90.0)
    assert config == read(transformers.ModernBertConfig(**OLD_WINDOWS).to_dict())


WINDOW_OF_EACH, BASE_OF_EACH = [4, 4, 0, 4, 4, None], [90.0, 90.0, 8000.0] * 2
OLD_LISTS = {
    "attention_windows": WINDOW_OF_EACH,
    "rope_theta": BASE_OF_EACH,
    "num_hidden_layers": 6,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_theta": None},
        {"attention_windows": [0] * 6, "rope_theta": [500.0] * 6},
        {"attention_windows": [3] * 6, "rope_theta": [500.0] * 6},
        {"attention_windows": [0, 7, 0, 7, 0, 7], "rope_theta": [5.0, 6.0] * 3},
        {"sliding_window": 4},
    ],
)
def test_a_window_and_a_base_for_each_layer_mean_what_they_did(changes):
    values = {name: value for name, value in (OLD_LISTS | changes).items() if value is not None}
    config = read({"model_type": "ultrabert", **values})
    assert config == read(transformers.UltrabertConfig(**values).to_dict())
    windows = values["attention_windows"]
    assert config.attends_globally == tuple(not window for window in windows)
    assert config.local_attention == 2 * max(window or 0 for window in windows)
    if "rope_theta" in values:
        bases = {config.is_global(i): base for i, base in enumerate(values["rope_theta"])}
        assert bases.get(True, config.rotary_base) == config.rotary_base
        assert bases.get(False, config.rotary_base_local) == config.rotary_base_local


def test_the_field_names_of_the_authors_of_nomic_bert_are_read():
    authors = {
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 3,
        "n_inner": 40,
        "n_positions": 99,
        "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 500,
        "activation_function": "swiglu",
    }
    config = read({"model_type": "nomic_bert", **authors})
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (32, 4, 3)
    assert (config.intermediate_size, config.max_position_embeddings) == (40, 99)
    assert (config.layer_norm_eps, config.rotary_base) == (1e-6, 500.0)
    # The published models have both names of this one.
    both = read({"model_type": "nomic_bert", **authors, "max_position_embeddings": 64})
    assert both.max_position_embeddings == 64


ODD = (
    True,
    0,
    -1,
    10**400,
    10**9,
    "x",
    "c2p|p2c",
    "",
    [],
    {},
    [1],
    [[]],
    {"a": 1},
    1.5,
    float("nan"),
)
ODD_ROTATIONS = (
    {"full_attention": 3, "sliding_attention": "x"},
    {"full_attention": {"rope_theta": {}}},
    {"rope_type": ["linear"]},
    {"rope_type": "linear", "factor": 10**400},
    {"rope_theta": []},
    ["full_attention", None],
)
OTHER_FIELDS = (
    *("rope_scaling", "rope_theta", "rope_parameters", "layer_types", "global_rope_theta"),
    *("partial_rotary_factor", "global_attn_every_n_layers", "mlp_dropout", "embedding_dropout"),
    *("tie_word_embeddings", "share_att_key", "model_type", "attention_windows"),
)


@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_any_value_of_any_field_is_read_or_refused_in_one_line(name, data):
    values = {**write_config(FAMILIES[name], family(name)), "model_type": name}
    fields = sorted({*values, *OTHER_FIELDS})
    changes = st.dictionaries(
        st.sampled_from(fields), st.sampled_from(ODD + ODD_ROTATIONS), min_size=1, max_size=2
    )
    values |= data.draw(changes)
    message = ""
    try:
        config = read(values)
        check_config(family_of(values, "config.json"), values, "config.json", config)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 600


PARTS = ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("modernbert", {"layer_types": [PARTS[i] for i in (0, 1, 1, 0, 0)], "num_hidden_layers": 5}, "layer_types: found ['full_attention', "),
        ("modernbert", {"layer_types": PARTS, "num_hidden_layers": 3}, "layer_types: found ['full_attention', 'sliding_attention'], expected full_attention or sliding_attention of 3 layers"),
        ("modernbert", {"layer_types": ["chunked_attention"], "num_hidden_layers": 1}, "layer_types: found ['chunked_attention']"),
        ("modernbert", {"layer_types": "full_attention"}, "layer_types: found 'full_attention'"),
        ("modernbert", {"layer_types": PARTS, "num_hidden_layers": "x" * 999}, f"sliding_attention of '{'x' * 199} layers"),
        ("modernbert", {"global_attn_every_n_layers": 0}, "global_attn_every_n_layers: found 0"),
        ("modernbert", {"global_rope_theta": "far"}, "rotary_base: found 'far'"),
        ("modernbert", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_parameters: found {'type': 'yarn', 'factor': 4.0}, expected rope_type default or linear"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, "expected the same factor in all layers"),
        ("modernbert", {"rope_parameters": {"rope_theta": 3.0}}, "expected an object with full_attention and sliding_attention"),
        ("modernbert", {"mlp_dropout": 0.1}, "mlp_dropout: found 0.1, expected 0"),
        ("modernbert", {"attention_dropout": 0.1, "embedding_dropout": 0.2}, "embedding_dropout: found 0.2"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling: found 'max', expected one of cls, mean"),
        ("modernbert", {"norm_bias": "no"}, "norm_bias: found 'no', expected true or false"),
        ("modernbert", {"hidden_activation": "mish"}, "hidden_activation: found 'mish'"),
        ("modernbert", {"local_attention": -2}, "local_attention: found -2, expected a whole number"),
        ("eurobert", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type default or linear"),
        ("eurobert", {"rope_parameters": [1]}, "rope_parameters: found [1], expected an object"),
        ("eurobert", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: found 0.5, expected 1"),
        ("eurobert", {"num_key_value_heads": 5}, "num_key_value_heads: found 5, expected a divisor"),
        ("eurobert", {"num_key_value_heads": True}, "num_key_value_heads: found True"),
        ("ultrabert", {**OLD_LISTS, "attention_windows": [4, 2, 0, 4, 4, 0]}, "attention_windows: found [2, 4], expected one width"),
        ("ultrabert", {**OLD_LISTS, "attention_windows": 4}, "attention_windows: found 4, expected a list"),
        ("ultrabert", {**OLD_LISTS, "attention_windows": [4, -1] * 3}, "attention_windows: found [4, -1, 4, -1, 4, -1], expected a list of whole numbers"),
        ("ultrabert", {**OLD_LISTS, "rope_theta": 500.0}, "rope_theta: found 500.0, expected a list of 6 numbers"),
        ("ultrabert", {**OLD_LISTS, "rope_theta": [500.0]}, "rope_theta: found [500.0], expected a list of 6 numbers"),
        ("ultrabert", {**OLD_LISTS, "rope_theta": [1.0, 2.0] * 3}, "expected the same in all layers of sliding_attention"),
        ("ultrabert", {**OLD_LISTS, "rope_theta": ["far"] * 6}, "found 'far'"),
        ("ultrabert", {**OLD_LISTS, "rope_theta": [None] * 6}, "expected a list of 6 numbers"),
        ("ultrabert", {**OLD_LISTS, "rope_theta": [0, 0, 500.0] * 2}, "rope_parameters: found 0, expected a base of 1 or more"),
        ("modernbert", {"local_rope_theta": 0}, "rope_parameters: found 0, expected a base of 1 or more"),
        ("ultrabert", {"rope_theta": [500.0] * 32}, "expected no such field, or attention_windows beside it"),
        ("ultrabert", {**OLD_LISTS, "sliding_window": 8}, "sliding_window: found 8, expected 4, as the lists of all layers say"),
        ("ultrabert", {**OLD_LISTS, "layer_types": [PARTS[0]] * 6}, "layer_types: found ['full_attention',"),
        ("ultrabert", {**OLD_LISTS, "num_hidden_layers": 5}, "expected full_attention or sliding_attention of 5 layers"),
        ("eurobert", {"rope_parameters": {"rope_theta": 0}}, "rope_parameters: found 0, expected a base"),
        ("nomic_bert", {"activation_function": "gelu"}, "activation_function: found 'gelu', expected 'swiglu'"),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction: found 0.5"),
        ("nomic_bert", {"rotary_scaling_factor": 2}, "rotary_scaling_factor: found 2, expected no such field"),
        ("deberta-v2", {}, "relative_attention: found None, expected True"),
        ("deberta-v2", {**DEBERTA, "pos_att_type": ["c2p"]}, "pos_att_type: found ['c2p'], expected p2c and c2p"),
        ("deberta-v2", {**DEBERTA, "position_buckets": -1}, "position_buckets: found -1"),
        ("deberta-v2", {**DEBERTA, "norm_rel_ebd": "none"}, "norm_rel_ebd: found 'none'"),
        ("deberta-v2", {**DEBERTA, "conv_kernel_size": 3}, "conv_kernel_size: found 3, expected 0"),
        ("deberta-v2", {**DEBERTA, "z_steps": 2}, "z_steps: found 2"),
        ("distilbert", {"hidden_size": 768}, "hidden_size: found 768, expected no such field"),
        ("neobert", {}, "vocab_size: found None, expected a value"),
        ("roberta", {"pad_token_id": True}, "pad_token_id: found True"),
    ],
)  # fmt: skip
def test_a_field_with_which_something_else_is_computed_is_named(name, changes, expected):
    with pytest.raises(UserError) as error:
        read({"model_type": name, **changes})
    assert expected in str(error.value)
    assert "config.json" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("modernbert", {"head_dim": 4}, "head_dim: found 4, expected 8, the hidden size by"),
        ("modernbert", {"tie_word_embeddings": False}, "tie_word_embeddings: found False"),
        ("eurobert", {"tie_word_embeddings": True}, "tie_word_embeddings: found True"),
        ("deberta_v3", {"embedding_size": 8}, "embedding_size: found 8, expected 16"),
        ("deberta_v3", {"num_hidden_layers": 10**9}, "layer.4."),
        ("modernbert", {"num_hidden_layers": 10**9, "layer_types": None}, "layers.4."),
        ("modernbert", {"intermediate_size": 12}, "Wo.weight: found shape [16, 24], expected shape [16, 12]"),
        ("gte", {"type_vocab_size": 0}, "token_type_embeddings.weight: found a tensor of shape"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_the_weights_or_the_others_is_named(
    name, changes, expected, tmp_path
):
    made(REFERENCES[name]).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | changes))
    with pytest.raises(UserError) as error:
        huggingface.load(tmp_path)
    assert expected in str(error.value)
