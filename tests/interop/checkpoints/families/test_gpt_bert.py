import dataclasses
import json

import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from tests.interop.checkpoints.families.references import padded_rows
from tests.interop.trees import same

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")
from tests.families.goldens import CONFIG, gpt_bert_goldens  # noqa: E402
from tests.families.gpt_bert_torch import GptBert, GptBertConfig  # noqa: E402
from tests.families.rows import add_noise  # noqa: E402

SIZES = GptBertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
    position_bucket_size=8,
)
EMBEDDING, DECODER = "embedding.word_embedding.weight", "classifier.nonlinearity.5.weight"


@pytest.fixture(scope="module")
def model():
    model = GptBert(SIZES).eval()
    add_noise(model, seed=0)
    return model


def tensors_of(model):
    """The parameters, and the copy of the embeddings that the authors' files have."""
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return {name: array for name, array in tensors.items() if "position_indices" not in name}


def unshifted(config):
    return dataclasses.replace(config, mlm_shifted=False)


def written(folder, tensors, sizes=SIZES, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**dataclasses.asdict(sizes), **changes}))
    safetensors.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.slow
def test_the_names_of_the_training_code_are_read_and_written(model, tmp_path, largest, caplog):
    tensors = tensors_of(model)
    config, params = huggingface.load(written(tmp_path / "saved", tensors))
    assert config.mlm_tied
    ids, mask = padded_rows()
    with torch.no_grad():
        expected = model(torch.tensor(ids), torch.tensor(mask))
    hidden = bertjax.encode(config, params, {"input_ids": ids, "input_mask": mask}).hidden_BxLxD
    # The authors' code leaves it to its reader to look at the state before a masked word.
    assert config.mlm_shifted
    logits = bertjax.mlm_logits(unshifted(config), params, hidden)
    shifted = bertjax.mlm_logits(config, params, hidden)
    assert np.array_equal(shifted[:, 1:], logits[:, :-1])
    reference = expected.logits_BxLxV.numpy()[mask > 0]
    # Norms without scale magnify rounding: logits go up to 14 here, and in PyTorch those of float32
    # are up to 2e-5 from those of float64.
    difference = np.abs(logits[mask > 0] - reference).max() / np.abs(reference).max()
    largest("gpt_bert, imported: logits, by the largest", float(difference), 1e-5)

    huggingface.save(tmp_path / "exported", config, params)
    assert "transformers has no class of gpt_bert" in caplog.text
    after = safetensors.load_file(tmp_path / "exported" / "model.safetensors")
    assert {name: array.tobytes() for name, array in tensors.items()} == {
        name: array.tobytes() for name, array in after.items()
    }
    assert huggingface.load(tmp_path / "exported")[0] == config


@pytest.mark.slow
def test_the_authors_own_numbers_come_out_and_go_back(tmp_path, largest):
    goldens = gpt_bert_goldens()
    tensors = {name: np.ascontiguousarray(array) for name, array in goldens.tensors.items()}
    config, params = huggingface.load(written(tmp_path / "saved", tensors, CONFIG))
    batch = {"input_ids": goldens.input_ids_BxL.astype(np.int32)}
    hidden = bertjax.encode(config, params, batch).hidden_BxLxD
    logits = bertjax.mlm_logits(unshifted(config), params, hidden)
    largest("gpt_bert, goldens", float(np.abs(logits - goldens.logits_BxLxV).max()), 1e-5)
    huggingface.save(tmp_path / "exported", config, params)
    after = safetensors.load_file(tmp_path / "exported" / "model.safetensors")
    for name, array in after.items():
        assert np.array_equal(array, tensors[name])


def test_a_head_that_reads_its_own_state_is_told_from_the_authors(model, tmp_path):
    config, params = huggingface.load(written(tmp_path / "saved", tensors_of(model)))
    for name, own in (("authors", config), ("own", unshifted(config))):
        huggingface.save(tmp_path / name, own, params)
        assert huggingface.load(tmp_path / name)[0] == own
    with pytest.raises(UserError, match="mlm_shifted: found 1, expected true or false"):
        huggingface.load(written(tmp_path / "odd", tensors_of(model), mlm_shifted=1))


def test_other_names_of_the_same_tensors_are_read(model, tmp_path):
    tensors = tensors_of(model)
    expected = huggingface.load(written(tmp_path / "first", tensors))
    renamed = {}
    for name, array in tensors.items():
        name = name.replace("transformer.", "")
        head = name.startswith("classifier.")
        renamed[name.replace("classifier.", "lm_head.") if head else f"model.{name}"] = array
    changes = {"model_type": "gpt-bert", "num_layers": 3}
    config, params = huggingface.load(written(tmp_path / "second", renamed, **changes))
    assert config == expected[0]
    assert same(params, expected[1])
    # A file without the tied copy, and with the buffers, is the same model.
    renamed.pop("lm_head.nonlinearity.5.weight")
    renamed["model.attention_layers.0.position_indices"] = np.zeros((64, 64), np.float32)
    assert same(huggingface.load(written(tmp_path / "third", renamed))[1], expected[1])


def test_a_decoder_that_is_not_tied_is_the_heads_own(model, tmp_path):
    tensors = tensors_of(model)
    tensors[DECODER] = tensors[EMBEDDING] + 1
    config, params = huggingface.load(written(tmp_path / "saved", tensors))
    assert not config.mlm_tied
    assert np.array_equal(params["mlm"]["decoder"], tensors[DECODER])
    huggingface.save(tmp_path / "exported", config, params)
    again, same_params = huggingface.load(tmp_path / "exported")
    assert again == config
    assert same(same_params, params)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"is_decoder": True}, "is_decoder: found True"),
        ({"num_layers": 12}, "num_layers: found 12, expected 3"),
        ({"layer_norm_eps": None}, "layer_norm_eps: found None, expected a value"),
        ({"position_bucket_size": 0}, "relative_positions: found -1"),
        ({"position_bucket_size": 9}, "relative_embedding: found shape [15, 16]"),
    ],
)
def test_what_is_another_model_is_refused(model, tmp_path, changes, expected):
    with pytest.raises(UserError) as error:
        huggingface.load(written(tmp_path / "saved", tensors_of(model), **changes))
    assert expected in str(error.value)


def test_its_ancestor_is_refused_by_its_names(model, tmp_path):
    tensors = {
        name.replace("transformer.attention_layers.", "transformer.layers."): array
        for name, array in tensors_of(model).items()
    }
    with pytest.raises(UserError, match="transformer.attention_layers.0.*no such tensor"):
        huggingface.load(written(tmp_path / "saved", tensors))
