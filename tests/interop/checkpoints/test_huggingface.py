import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from bertjax.model import functional
from tests.factory import SMALL_MODEL
from tests.interop.trees import same

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.numpy")

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 20,
}
MODELS = {
    "BertForPreTraining": {},
    "BertForMaskedLM": {"hidden_act": "relu", "layer_norm_eps": 1e-6},
    "BertModel": {"hidden_act": "gelu_new"},
    "RobertaForMaskedLM": {"type_vocab_size": 1},
    "RobertaModel": {"pad_token_id": 4},
    "ElectraForMaskedLM": {"embedding_size": 8},
    "ElectraForPreTraining": {"embedding_size": 8, "hidden_act": "relu"},
    "ElectraModel": {"embedding_size": 16},
    "AlbertForPreTraining": {"embedding_size": 8},
    "AlbertForMaskedLM": {"embedding_size": 16},
    "AlbertModel": {"embedding_size": 8},
}


def reference(kind, **changes):
    """A model of `transformers`, no parameter at its initial 0 or 1."""
    torch.manual_seed(0)
    family = next(
        name for name in ("Bert", "Roberta", "Electra", "Albert") if kind.startswith(name)
    )
    config = getattr(transformers, f"{family}Config")(**SHAPE | MODELS.get(kind, {}) | changes)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def inputs(pad_id):
    rng = np.random.default_rng(0)
    mask = (np.arange(11)[None] < np.array([[11], [4], [7]])).astype(np.int32)
    return np.where(mask, rng.integers(5, 50, mask.shape), pad_id).astype(np.int32), mask


def run_reference(model, ids, mask):
    with torch.no_grad():
        return model(
            torch.tensor(ids), attention_mask=torch.tensor(mask), output_hidden_states=True
        )


@pytest.mark.parametrize("kind", MODELS)
def test_a_saved_model_gives_the_same_outputs_here_and_comes_back_bit_for_bit(
    kind, tmp_path, largest
):
    model = reference(kind)
    model.save_pretrained(tmp_path / "saved")
    config, params = huggingface.load(tmp_path / "saved")

    ids, mask = inputs(model.config.pad_token_id)
    expected = run_reference(getattr(model, model.base_model_prefix, model), ids, mask)
    encoded = bertjax.encode(
        config, params, {"input_ids": ids, "input_mask": mask}, keep_layers=True
    )
    for layer, reference_layer in zip(
        encoded.layers_NxBxLxD, expected.hidden_states[1:], strict=True
    ):
        difference = np.abs(layer - reference_layer.numpy())[mask > 0].max()
        largest(f"{kind}, imported: hidden states", float(difference), 1e-5)
    if "pooler" in config.heads:
        pooled = bertjax.pool(config, params, encoded.hidden_BxLxD)
        largest(
            f"{kind}, imported: pooled",
            float(np.abs(pooled - expected.pooler_output.numpy()).max()),
            1e-5,
        )
    if "mlm" in config.heads:
        results = run_reference(model, ids, mask)
        # Pretraining's classes name them otherwise.
        expected_logits = getattr(results, "prediction_logits", None)
        if expected_logits is None:
            expected_logits = results.logits
        logits = bertjax.mlm_logits(config, params, encoded.hidden_BxLxD)
        difference = np.abs(logits - expected_logits.numpy())[mask > 0].max()
        largest(f"{kind}, imported: word scores", float(difference), 1e-5)

    if "rtd" in config.heads:
        expected_logits = run_reference(model, ids, mask).logits.numpy()
        logits = functional.rtd_logits(config, params, encoded.hidden_BxLxD)
        difference = np.abs(logits - expected_logits)[mask > 0].max()
        largest(f"{kind}, imported: logits of replaced tokens", float(difference), 1e-5)

    huggingface.save(tmp_path / "exported", config, params)
    before = safetensors.load_file(tmp_path / "saved" / "model.safetensors")
    after = safetensors.load_file(tmp_path / "exported" / "model.safetensors")
    assert {name: (a.dtype, a.tobytes()) for name, a in before.items()} == {
        name: (a.dtype, a.tobytes()) for name, a in after.items()
    }
    written = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert written["architectures"] == [kind]
    again = transformers.AutoModel.from_pretrained(tmp_path / "exported").eval()
    assert torch.equal(
        run_reference(again, ids, mask).last_hidden_state, expected.hidden_states[-1]
    )


def test_both_segments_are_the_references(tmp_path):
    model = reference("BertModel")
    model.save_pretrained(tmp_path)
    config, params = huggingface.load(tmp_path)
    ids, mask = inputs(0)
    segments = (np.arange(11)[None] > np.array([[5], [2], [0]])).astype(np.int32)
    with torch.no_grad():
        expected = model(
            torch.tensor(ids), torch.tensor(mask), torch.tensor(segments)
        ).last_hidden_state.numpy()
    batch = {"input_ids": ids, "input_mask": mask, "segment_ids": segments}
    assert np.abs(bertjax.encode(config, params, batch).hidden_BxLxD - expected).max() < 1e-5


def test_weights_in_shards_in_half_precision_and_in_pytorch_files_are_the_same_weights(tmp_path):
    model = reference("BertForPreTraining")
    model.save_pretrained(tmp_path / "whole")
    _, params = huggingface.load(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert same(huggingface.load(tmp_path / "shards")[1], params)

    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    for zipped in (True, False):
        torch.save(
            model.state_dict(),
            bin_folder / "pytorch_model.bin",
            _use_new_zipfile_serialization=zipped,
        )
        assert same(huggingface.load(bin_folder)[1], params)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in model.state_dict().items()
    }
    torch.save(
        old | {"bert.embeddings.position_ids": torch.arange(20)[None]},
        bin_folder / "pytorch_model.bin",
    )
    assert same(huggingface.load(bin_folder)[1], params)

    for kind in (torch.float16, torch.bfloat16):
        model.to(kind).save_pretrained(tmp_path / str(kind))
        expected = [
            p.to(kind).float().numpy()
            for p in (torch.tensor(np.asarray(x)) for x in jax.tree.leaves(params))
        ]
        loaded = jax.tree.leaves(huggingface.load(tmp_path / str(kind))[1])
        assert all(
            np.array_equal(a, b) and b.dtype == np.float32
            for a, b in zip(expected, loaded, strict=True)
        )
        model = reference("BertForPreTraining")


def test_what_is_written_in_shards_is_read_there_and_here(tmp_path):
    params = jax.tree.map(np.asarray, bertjax.init(SMALL_MODEL, jax.random.key(0)))
    huggingface.save(tmp_path, SMALL_MODEL, params, max_shard_bytes=4000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    config, loaded = huggingface.load(tmp_path)
    assert same(loaded, params)
    assert config == SMALL_MODEL
    _, report = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"share_layers": True}, "model.embedding_size: found 0"),
        (
            {"share_layers": True, "embedding_size": 8, "position_offset": 2},
            "model.position_offset: found 2, expected 0, as in albert",
        ),
        ({"embedding_size": 8}, "model.heads: found pooler, expected a head of electra"),
        (
            {"embedding_size": 8, "heads": ("mlm",), "hidden_act": "relu"},
            "model.share_layers: found False, expected True, as in albert",
        ),
        (
            {"embedding_size": 16, "heads": ("mlm",)},
            "model.share_layers: found False, expected True, as in albert",
        ),
        (
            {"position_offset": 2, "heads": ("mlm",), "hidden_act": "relu"},
            "model.mlm_act: found relu, expected gelu, as in xlm-roberta",
        ),
        ({"position_offset": 2}, "model.heads: found nsp, expected a head of roberta"),
    ],
    ids=str,
)
def test_a_model_that_transformers_has_not_is_refused_by_its_field(tmp_path, changes, expected):
    config = dataclasses.replace(SMALL_MODEL, **changes)
    with pytest.raises(UserError, match=expected):
        huggingface.save(tmp_path / "new", config, bertjax.init(config, jax.random.key(0)))
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    reference("BertForPreTraining").save_pretrained(folder)
    return json.loads((folder / "config.json").read_text()), safetensors.load_file(
        folder / "model.safetensors"
    )


def write(folder, config, tensors):
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.save_file(tensors, folder / "model.safetensors")


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda t: t.pop(QUERY), f"{QUERY}: found no such tensor, expected one of shape [16, 16]"),
        (lambda t: t.update({QUERY: np.zeros((16, 17), np.float32)}), f"{QUERY}: found shape [16, 17], expected shape [16, 16]"),
        (lambda t: t.update({"bert.more.weight": np.zeros(3, np.float32)}), "bert.more.weight: found a tensor of shape [3]"),
        (lambda t: t.update({QUERY.replace("1", "3"): t[QUERY]}), "layer.3.attention.self.query.weight: found a tensor of shape"),
        (lambda t: t.update({"cls.predictions.decoder.weight": t[WORDS] + 1}), "decoder.weight: found other numbers"),
        (lambda t: t.update({QUERY: np.full((16, 16), np.nan, np.float32)}), f"{QUERY}: found numbers that are not finite"),
        (lambda t: t.update({QUERY: np.zeros((16, 16), np.int8)}), f"{QUERY}: found the type I8"),
        (lambda t: t.pop("cls.seq_relationship.bias"), "cls.seq_relationship.bias: found no such tensor"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named_with_both_shapes(tmp_path, saved, change, expected):
    config, tensors = saved[0], dict(saved[1])
    change(tensors)
    write(tmp_path, config, tensors)
    with pytest.raises(UserError) as error:
        huggingface.load(tmp_path)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("model_type", "gpt2", "config.json: model_type: found 'gpt2', expected one of bert"),
        ("model_type", ["bert"], "model_type: found ['bert']"),
        (
            "position_embedding_type",
            "relative_key",
            "position_embedding_type: found 'relative_key'",
        ),
        ("is_decoder", True, "is_decoder: found True"),
        ("tie_word_embeddings", False, "tie_word_embeddings: found False"),
        (
            "transformers_weights",
            "best.safetensors",
            "transformers_weights: found 'best.safetensors'",
        ),
        ("layer_norm_eps", 10**400, "config.json.layer_norm_eps: found an integer of 1329 bits"),
        ("layer_norm_eps", float("inf"), "config.json.layer_norm_eps: found inf"),
        (
            "num_attention_heads",
            10**400,
            "config.json.num_attention_heads: found an integer of 1329 bits",
        ),
        ("hidden_act", "no_such_act", "hidden_act: found 'no_such_act', expected one of gelu"),
        ("hidden_act", {}, "hidden_act: found {}"),
        ("hidden_size", "16", "config.json.hidden_size: found '16', expected a value of type int"),
        ("hidden_size", 17, "model.hidden_size: found 17, expected a multiple"),
        ("vocab_size", -1, "model.vocab_size: found -1"),
        (
            "vocab_size",
            10**15,
            "config.json: model.vocab_size: found 1000000000000000, expected less than 2**31",
        ),
        (
            "vocab_size",
            2 * 10**9,
            "word_embeddings.weight: found shape [50, 16], expected shape [2000000000, 16]",
        ),
        ("num_hidden_layers", 10**9, "bert.encoder.layer.3.attention.key"),
        ("layer_norm_eps", "small", "layer_norm_eps: found 'small'"),
        ("quantization_config", {"bits": 4}, "quantization_config: found {'bits': 4}"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named_by_its_field(
    tmp_path, saved, field, value, expected
):
    write(tmp_path, saved[0] | {field: value}, saved[1])
    with pytest.raises(UserError) as error:
        huggingface.load(tmp_path)
    assert expected.replace("attention.key", "") in str(error.value)


def test_a_head_that_we_have_not_is_left_out_only_when_asked(tmp_path):
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(transformers.BertConfig(**SHAPE)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="classifier.bias: found a tensor of shape \\[2\\].*--drop"):
        huggingface.load(tmp_path)
    config, params = huggingface.load(tmp_path, drop=["classifier"])
    assert config.heads == ("pooler",)
    assert "mlm" not in params
    assert huggingface.load(tmp_path, drop=["classifier", "bert.pooler"])[0].heads == ()
    with pytest.raises(UserError, match="--drop classifer: found no tensor of such a name"):
        huggingface.load(tmp_path, drop=["classifer"])


OLD_NAMES = {
    "classifier.LayerNorm.gamma": np.ones(3, np.float32),
    "classifier.LayerNorm.beta": np.zeros(3, np.float32),
}


@pytest.mark.parametrize("format_", ["bin", "safetensors", "shards"])
@pytest.mark.parametrize("drop", [
    ["classifier.LayerNorm.gamma", "classifier.LayerNorm.beta"],  # as they stand in the file
    ["classifier.LayerNorm.weight", "classifier.LayerNorm.bias"],
    ["classifier"],
])  # fmt: skip
def test_tensors_are_left_out_by_their_names_in_the_file(tmp_path, saved, format_, drop):
    values, arrays = saved
    old = {}
    for name, array in arrays.items():
        with_gamma = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[with_gamma.replace("LayerNorm.bias", "LayerNorm.beta")] = array
    (tmp_path / "config.json").write_text(json.dumps(values))
    if format_ == "bin":
        tensors = {name: torch.tensor(array) for name, array in (old | OLD_NAMES).items()}
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    elif format_ == "safetensors":
        safetensors.save_file(old | OLD_NAMES, tmp_path / "model.safetensors")
    else:
        safetensors.save_file(old, tmp_path / "one.safetensors")
        safetensors.save_file(OLD_NAMES, tmp_path / "two.safetensors")
        file_of = dict.fromkeys(old, "one.safetensors")
        file_of |= dict.fromkeys(OLD_NAMES, "two.safetensors")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": file_of}))
    with pytest.raises(UserError, match="classifier.LayerNorm"):
        huggingface.load(tmp_path)
    (tmp_path / "today").mkdir()
    write(tmp_path / "today", values, arrays)
    expected = huggingface.load(tmp_path / "today")[1]
    assert same(huggingface.load(tmp_path, drop=drop)[1], expected)
    with pytest.raises(UserError, match=r"found bert\.embeddings\.LayerNorm\.gamma"):
        huggingface.load(tmp_path, drop=["bert.embeddings.LayerNorm.gamma"])


MAKE_FLAX = """
import sys, jax, numpy as np, transformers as t
shape, models, folder = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
for kind, changes in models.items():
    family = next(n for n in ("Bert", "Roberta", "Electra", "Albert") if kind.startswith("Flax" + n))
    model = getattr(t, kind)(getattr(t, family + "Config")(**shape | changes), seed=0)
    keys = iter(jax.random.split(jax.random.key(1), 500))
    model.params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), model.params)
    model.save_pretrained(f"{folder}/{kind}", max_shard_size="8KB" if kind == "FlaxBertModel" else "1GB")
    ids = np.random.default_rng(0).integers(5, 50, (3, 9))
    # ELECTRA's default is 1
    out = model(input_ids=ids, token_type_ids=np.zeros_like(ids), output_hidden_states=True)
    np.savez(f"{folder}/{kind}/expected.npz", ids=ids, hidden=out.hidden_states[-1], first=out[0])
"""


@pytest.mark.slow
def test_flax_checkpoints_of_the_last_transformers_that_wrote_them_are_read(
    tmp_path, transformers_4, largest
):
    models = {f"Flax{kind}": MODELS[kind] for kind in MODELS if kind != "RobertaModel"}
    command = [sys.executable, "-c", MAKE_FLAX, repr(SHAPE), repr(models), str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(transformers_4)}, check=True)
    for kind in models:
        config, params = huggingface.load(tmp_path / kind)
        expected = np.load(tmp_path / kind / "expected.npz")
        hidden = bertjax.encode(config, params, {"input_ids": expected["ids"]}).hidden_BxLxD
        largest(
            f"{kind}, imported: hidden states",
            float(np.abs(hidden - expected["hidden"]).max()),
            1e-5,
        )
        if "rtd" in config.heads:
            first = functional.rtd_logits(config, params, hidden)
        else:
            first = bertjax.mlm_logits(config, params, hidden) if "mlm" in config.heads else hidden
        largest(
            f"{kind}, imported: first output", float(np.abs(first - expected["first"]).max()), 1e-5
        )
    assert len(list(Path(tmp_path / "FlaxBertModel").glob("flax_model-*.msgpack"))) > 1


@pytest.mark.parametrize("kind", ["RobertaForMaskedLM", "ElectraForMaskedLM"])
def test_a_masked_word_head_that_takes_gelu_whatever_is_said_takes_it_here(tmp_path, kind):
    model = reference(kind, hidden_act="relu")
    model.save_pretrained(tmp_path)
    config, params = huggingface.load(tmp_path)
    assert (config.hidden_act, config.mlm_act) == ("relu", "gelu")
    ids, mask = inputs(model.config.pad_token_id)
    expected = run_reference(model, ids, mask).logits.numpy()
    hidden = bertjax.encode(config, params, {"input_ids": ids, "input_mask": mask}).hidden_BxLxD
    logits = bertjax.mlm_logits(config, params, hidden)
    assert np.abs(logits - expected)[mask > 0].max() < 1e-5


@pytest.mark.parametrize(
    "kind, first, copy",
    [
        ("BertForPreTraining", "cls.predictions.bias", "cls.predictions.decoder.bias"),
        (
            "RobertaForMaskedLM",
            "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.weight",
        ),
    ],
)
def test_a_second_copy_stands_in_for_a_tensor_that_is_not_there(tmp_path, kind, first, copy):
    model = reference(kind)
    model.save_pretrained(tmp_path)
    config, params = huggingface.load(tmp_path)
    tensors = safetensors.load_file(tmp_path / "model.safetensors")
    tensors[copy] = tensors.pop(first)
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    assert huggingface.load(tmp_path)[0] == config
    assert same(huggingface.load(tmp_path)[1], params)


def test_the_file_that_transformers_reads_is_read(tmp_path):
    """A file goes before an index of shards beside it."""
    reference("BertModel").save_pretrained(tmp_path, max_shard_size="5KB")
    model = reference("BertModel")
    with torch.no_grad():
        model.embeddings.LayerNorm.bias.add_(1.0)
    model.save_pretrained(tmp_path / "new")
    (tmp_path / "new" / "model.safetensors").rename(tmp_path / "model.safetensors")
    _, params = huggingface.load(tmp_path)
    again = transformers.BertModel.from_pretrained(tmp_path)
    assert np.array_equal(
        params["embeddings"]["layer_norm"]["bias"], again.embeddings.LayerNorm.bias.detach()
    )
    assert torch.equal(again.embeddings.LayerNorm.bias, model.embeddings.LayerNorm.bias)


@pytest.mark.parametrize(
    "heads, kind",
    [
        (("pooler", "mlm", "nsp"), "BertForPreTraining"),
        (("pooler", "mlm"), "BertForMaskedLM"),
        (("pooler", "nsp"), "BertForNextSentencePrediction"),
        (("pooler",), "BertModel"),
    ],
)
def test_an_exported_model_is_of_the_class_that_has_its_heads_and_lacks_nothing(
    tmp_path, heads, kind
):
    config = dataclasses.replace(SMALL_MODEL, heads=heads)
    huggingface.save(tmp_path, config, bertjax.init(config, jax.random.key(0)))
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [kind]
    _, report = getattr(transformers, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
