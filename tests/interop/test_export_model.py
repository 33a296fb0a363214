import sys

import jax
import pytest

import bertjax
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.training.saved_model import save_model
from tests.factory import small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tokenizer = WordPiece("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n", lowercase=True)
    config = small_config()
    save_model(folder, config, bertjax.init(config.model, jax.random.key(0)), tokenizer, {})
    return folder


@pytest.mark.parametrize(
    "format, files",
    [
        ("huggingface", {"config.json", "model.safetensors"}),
        (
            "tensorflow",
            {"bert_config.json", "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"},
        ),
        ("stablehlo", {"model.stablehlo", "params.npz", "signature.json"}),
        ("saved-model", {"saved_model.pb", "fingerprint.pb", "variables"}),
        ("onnx", {"model.onnx"}),
    ],
)
def test_each_format_is_written_with_the_tokenizer_beside_it(run, tmp_path, format, files):
    if format == "onnx":
        pytest.importorskip("onnx")
    bertjax.export_model(run, tmp_path / "out", format)
    tokenizer = {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | tokenizer


def test_what_cannot_be_exported_is_named(run, tmp_path):
    with pytest.raises(
        UserError, match="format: found 'tflite', expected one of huggingface, tensorflow"
    ):
        bertjax.export_model(run, tmp_path / "out", "tflite")
    with pytest.raises(
        UserError, match="outputs: found hidden, expected none, or one of stablehlo"
    ):
        bertjax.export_model(run, tmp_path / "out", "huggingface", outputs=["hidden"])
    with pytest.raises(UserError, match="outputs: found 'logits', expected one of hidden"):
        bertjax.export_model(run, tmp_path / "out", "stablehlo", outputs=["logits"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="found files there"):
        bertjax.export_model(run, run, "huggingface")
    assert (run / "config.json").exists()


def test_without_its_package_a_format_is_refused_and_nothing_is_left(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"onnx: found no such package.*bertjax\[onnx\]"):
        bertjax.export_model(run, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
