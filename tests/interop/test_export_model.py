import sys

import jax
import numpy as np
import pytest

import bertjax
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.storage.output_record import RECORD
from bertjax.training.saved_model import save_model
from tests.data.tokenizers.family_folders import (
    both_ends,
    deberta,
    eurobert,
    gte,
    mmbert,
    modernbert,
    xlm_roberta,
)
from tests.data.tokenizers.models import content as sentencepiece_model
from tests.factory import small_config
from tests.interop.checkpoints.families.references import REFERENCES, made


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
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | tokenizer | {RECORD}


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


def test_a_run_becomes_a_decoder_beside_its_tokenizer(run, tmp_path, caplog):
    transformers = pytest.importorskip("transformers")
    out = bertjax.export_model(run, tmp_path / "out", "huggingface", network="decoder")
    assert "data.causal_share is 0 in this run" in caplog.text
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert type(model).__name__ == "BertLMHeadModel"
    assert model.generation_config.eos_token_id == 3
    assert transformers.AutoTokenizer.from_pretrained(out)("the")["input_ids"] == [2, 5, 3]
    # The model itself is another output.
    with pytest.raises(UserError, match="out: found"):
        bertjax.export_model(run, out, "huggingface")
    for options, message in (
        ({"format": "onnx"}, "format: found onnx, expected huggingface, for network decoder"),
        ({"format": "huggingface", "task": "a"}, "task: found a, expected none, for network dec"),
    ):
        with pytest.raises(UserError, match=message):
            bertjax.export_model(run, tmp_path / "new", network="decoder", **options)
        assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_an_onnx_program_has_the_words_for_masks_that_fill_mask_has(tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sees a dog".replace(" ", "\n") + "\n"
    tokenizer = WordPiece("vocab.txt", words.encode(), lowercase=True)
    config = small_config(model={"mlm_shifted": True, "initializer_range": 0.5})
    params = bertjax.init(config.model, jax.random.key(0))
    save_model(tmp_path / "run", config, params, tokenizer, {})
    out = bertjax.export_model(tmp_path / "run", tmp_path / "out", "onnx", outputs=["mlm_logits"])
    ids = np.array([[2, 5, 4, 7, 8, 9, 3]], np.int32)
    ones = np.ones_like(ids)
    inputs = {"input_ids": ids, "input_mask": ones, "segment_ids": 0 * ones}
    session = onnxruntime.InferenceSession(out / "model.onnx")
    logits = session.run(None, inputs)[0][0, 2, 5:10]
    expected = np.exp(logits) / np.exp(logits).sum()
    (candidates,) = bertjax.fill_mask(tmp_path / "run", "the [MASK] sees a dog")
    found = {candidate.text: candidate.probability for candidate in candidates}
    for word, probability in zip(["the", "cat", "sees", "a", "dog"], expected, strict=True):
        assert abs(found[word] - probability) < 1e-5
    assert max(expected) > 2 * min(expected)


def test_without_its_package_a_format_is_refused_and_nothing_is_left(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"onnx: found no such package.*bertjax\[onnx\]"):
        bertjax.export_model(run, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["huggingface", "stablehlo"])
def test_a_tokenizer_that_other_programs_would_read_otherwise_is_refused(tmp_path, format):
    words = SentencePiece("m", sentencepiece_model("word"), "unigram", True)
    config = small_config()
    params = bertjax.init(config.model, jax.random.key(0))
    save_model(tmp_path / "run", config, params, words, {})
    with pytest.raises(UserError, match="found a SentencePiece model of .* algorithm word, which"):
        bertjax.export_model(tmp_path / "run", tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_the_configuration_of_a_model_does_not_change_the_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = small_config()
    params = bertjax.init(config.model, jax.random.key(0))
    for kind in ("unigram", "bpe"):
        tokenizer = SentencePiece("m", sentencepiece_model(kind), kind, True)
        save_model(tmp_path / kind / "run", config, params, tokenizer, {})
        bertjax.export_model(tmp_path / kind / "run", tmp_path / kind / "out", "huggingface")
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / kind / "out")
        text = "The quick e\u0301 <USER> fox"
        expected = tokenizer.encode_batch([text])[0].tolist()
        assert theirs(text, add_special_tokens=False)["input_ids"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("make", [eurobert, both_ends])
def test_what_is_imported_reads_text_as_transformers_does_with_the_published_tokenizer(
    make, tmp_path
):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, imported, exported = tmp_path / "x", tmp_path / "run", tmp_path / "out"
    make(folder)
    reference = REFERENCES["eurobert"]
    ends = {"bos_token_id": 420, "eos_token_id": 421, "pad_token_id": 421}
    model = made(reference._replace(fields={**reference.fields, "vocab_size": 425, **ends}))
    model.save_pretrained(folder)
    bertjax.import_model(folder, imported)
    bertjax.export_model(imported, exported, "huggingface")
    text, texts = "the quick [MASK] jumps", ["the quick brown fox", "Der Hund", ""]
    (found,) = bertjax.fill_mask(imported, text, top_k=5)
    vectors = {}
    for pooling in ("cls", "mean"):
        vectors[pooling] = bertjax.embed(imported, texts, pooling=pooling)
    for place in (folder, exported):
        theirs = transformers.AutoTokenizer.from_pretrained(place)
        batch = theirs(text.replace("[MASK]", theirs.mask_token), return_tensors="pt")
        at = batch["input_ids"][0].tolist().index(theirs.mask_token_id)
        encoder = transformers.AutoModel.from_pretrained(place).eval()
        with torch.no_grad():
            logits = model(**batch).logits[0, at]
            hidden = [encoder(**theirs(each, return_tensors="pt"))[0][0] for each in texts]
        logits[list({theirs.bos_token_id, theirs.eos_token_id, theirs.mask_token_id})] = -torch.inf
        best = torch.topk(torch.softmax(logits, -1), 5)
        assert [theirs.decode([i]) for i in best.indices.tolist()] == [c.text for c in found]
        expected = pytest.approx([c.probability for c in found], abs=1e-5)
        assert best.values.tolist() == expected
        for row, cls, mean in zip(hidden, vectors["cls"], vectors["mean"], strict=True):
            np.testing.assert_allclose(cls, row[0], atol=2e-5)
            np.testing.assert_allclose(mean, row.mean(0), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name,make", [
    ("modernbert", modernbert), ("modernbert", mmbert), ("eurobert", eurobert), ("gte", gte),
    ("deberta_v3", deberta), ("xlm_roberta", xlm_roberta),
])  # fmt: skip
def test_a_family_with_its_tokenizer_fills_a_mask_as_transformers_does_there_and_back(
    name, make, tmp_path
):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, imported, exported = tmp_path / "x", tmp_path / "run", tmp_path / "out"
    make(folder)
    tokenizer = read_tokenizer_folder(folder)
    reference = REFERENCES[name]
    fields = {**reference.fields, "vocab_size": 640, "pad_token_id": tokenizer.pad_id}
    model = made(reference._replace(fields=fields))
    model.save_pretrained(folder)
    bertjax.import_model(folder, imported)
    (found,) = bertjax.fill_mask(imported, "the quick [MASK] jumps over", top_k=5)
    bertjax.export_model(imported, exported, "huggingface")
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    batch = theirs(f"the quick {theirs.mask_token} jumps over", return_tensors="pt")
    place = batch["input_ids"][0].tolist().index(tokenizer.mask_id)
    loaded = getattr(transformers, reference.name).from_pretrained(exported).eval()
    for each in (model, loaded):
        with torch.no_grad():
            logits = each(**batch).logits[0, place]
        logits[tokenizer.vocab_size :] = -torch.inf
        logits[tokenizer.special_ids.tolist()] = -torch.inf
        best = torch.topk(torch.softmax(logits, -1), 5)
        assert [theirs.decode([i]) for i in best.indices.tolist()] == [c.text for c in found]
        expected = pytest.approx([c.probability for c in found], abs=1e-5)
        assert best.values.tolist() == expected
