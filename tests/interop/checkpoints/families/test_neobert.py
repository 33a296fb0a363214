import dataclasses
import json

import numpy as np
import pytest

import bertjax
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface
from tests.interop.checkpoints.families.references import padded_rows

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")
from tests.families.neobert_torch import NeoBert, NeoBertConfig  # noqa: E402
from tests.families.rows import add_noise  # noqa: E402

SIZES = NeoBertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=60,
    max_length=64,
)
VALUES = {
    "architectures": ["NeoBERTLMHead"],
    "model_type": "neobert",
    "dim_head": 8,
    "embedding_init_range": 0.02,
    "decoder_init_range": 0.02,
    "classifier_init_range": 0.02,
    **dataclasses.asdict(SIZES),
}


@pytest.fixture(scope="module")
def model():
    model = NeoBert(SIZES).eval()
    add_noise(model, seed=0)
    return model


def written(folder, model, **changes):
    """A folder as the authors' model has it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**VALUES, **changes}))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    safetensors.save_file(tensors, folder / "model.safetensors")
    return folder, tensors


@pytest.mark.slow
def test_the_authors_names_are_read_and_written(model, tmp_path, largest, caplog):
    folder, tensors = written(tmp_path / "saved", model)
    config, params = huggingface.load(folder)
    assert config.intermediate_size == SIZES.gated_size == 40
    ids, mask = padded_rows()
    with torch.no_grad():
        expected = model(torch.tensor(ids), torch.tensor(mask))
    hidden = bertjax.encode(config, params, {"input_ids": ids, "input_mask": mask}).hidden_BxLxD
    difference = np.abs(hidden - expected.hidden_BxLxD.numpy())[mask > 0].max()
    largest("neobert, imported: hidden states", float(difference), 1e-5)
    logits = bertjax.mlm_logits(config, params, hidden)
    difference = np.abs(logits - expected.logits_BxLxV.numpy())[mask > 0].max()
    largest("neobert, imported: logits", float(difference), 1e-5)

    huggingface.save(tmp_path / "exported", config, params)
    assert "transformers has no class of neobert" in caplog.text
    after = safetensors.load_file(tmp_path / "exported" / "model.safetensors")
    assert {name: array.tobytes() for name, array in tensors.items()} == {
        name: array.tobytes() for name, array in after.items()
    }
    values = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert values == {**VALUES, "dtype": "float32"}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"encoder_init_range": 0.02}, "encoder_init_range: found 0.02"),
        ({"rms_norm": True}, "rms_norm: found True"),
        ({"hidden_act": "swiglu"}, "hidden_act: found 'swiglu'"),
        ({"rope_theta": 10000.0}, "rope_theta: found 10000.0"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: found True, expected False"),
        ({"dim_head": 4}, "dim_head: found 4, expected 8"),
        # Of code that takes the size as it is, the matrices show it.
        ({"intermediate_size": 40}, "w3.weight: found shape [16, 40], expected shape [16, 32]"),
        ({"norm_eps": None}, "norm_eps: found None, expected a value"),
    ],
)
def test_variants_of_the_code_are_refused_by_what_they_leave_behind(
    model, tmp_path, changes, expected
):
    folder, _ = written(tmp_path / "saved", model, **changes)
    with pytest.raises(UserError) as error:
        huggingface.load(folder)
    assert expected in str(error.value)
