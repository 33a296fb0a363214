import dataclasses
import json
import re
import shlex
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken

import bertjax
from bertjax.cli import main
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.interop.checkpoints import huggingface, tensorflow
from bertjax.interop.import_model import is_external, read_external_model
from bertjax.model import functional
from bertjax.storage.output_record import RECORD
from bertjax.training.saved_model import save_model
from tests.data.tokenizers.family_folders import one_end_token
from tests.factory import SMALL_MODEL, small_config
from tests.interop.trees import same

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "Cat", "##s", "."]


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tokenizer = WordPiece("vocab.txt", "\n".join(VOCABULARY).encode(), lowercase=request.param)
    config = small_config()
    save_model(folder, config, bertjax.init(config.model, jax.random.key(0)), tokenizer, {})
    return folder


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_out_and_in_again_parameters_and_ids_are_the_same(run, tmp_path, format):
    bertjax.export_model(run, tmp_path / "out", format)
    imported = bertjax.import_model(tmp_path / "out", tmp_path / "run")
    assert same(bertjax.load_model(tmp_path / "run").params, bertjax.load_model(run).params)
    assert imported.config.model == SMALL_MODEL
    before, after = (
        load_tokenizer(run / "tokenizer"),
        load_tokenizer(tmp_path / "run" / "tokenizer"),
    )
    assert before.fingerprint == after.fingerprint == imported.tokenizer.fingerprint
    meta = json.loads((imported.checkpoint / "meta" / "metadata").read_text())
    assert meta["imported"] == {"format": format, "source": str(tmp_path / "out"), "dropped": []}
    bertjax.export_model(imported.checkpoint, tmp_path / "again", format)
    for file in (tmp_path / "out").iterdir():
        # The record differs: it is of another source.
        if file.name != RECORD:
            assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


AFTER_PADDING = dataclasses.replace(
    SMALL_MODEL, heads=("mlm",), position_offset=1, type_vocab_size=1
)


def save_ones(folder, config):
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), functional.shapes(config))
    huggingface.save(folder, config, ones)


def test_positions_that_begin_after_another_id_than_that_of_padding_are_refused(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"]
    tokenizer = WordPiece("vocab.txt", "\n".join(pieces).encode(), lowercase=True)
    save_ones(tmp_path, AFTER_PADDING)
    tokenizer.save(tmp_path)
    assert read_external_model(tmp_path).tokenizer.pad_id == 0
    values = json.loads((tmp_path / "config.json").read_text())
    # Then `transformers` gives unknown words the position of padding.
    (tmp_path / "config.json").write_text(json.dumps(values | {"pad_token_id": 1}))
    with pytest.raises(UserError, match="pad_token_id: found 1, expected 0, the tokenizer's, as"):
        read_external_model(tmp_path)
    alone = read_external_model(tmp_path, take_tokenizer=False)
    assert alone.config.model.position_offset == 2


def test_padding_that_is_the_end_token_too_has_no_positions_of_its_own(tmp_path):
    one_end_token(tmp_path)
    save_ones(tmp_path, dataclasses.replace(AFTER_PADDING, vocab_size=440))
    with pytest.raises(UserError, match="pad_token_id: found 0, which the tokenizer has for other"):
        read_external_model(tmp_path)


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
@pytest.mark.parametrize("lowercase,strips", [(True, False), (False, True)])
def test_a_tokenizer_that_treats_accents_apart_from_case_goes_out_and_in(
    run, tmp_path, format, lowercase, strips, caplog
):
    model = bertjax.load_model(run)
    content = "\n".join([*VOCABULARY, "café", "cafe"]).encode()
    tokenizer = WordPiece("vocab.txt", content, lowercase, strips)
    save_model(tmp_path / "run", model.config, model.params, tokenizer, {})
    bertjax.export_model(tmp_path / "run", tmp_path / "out", format)
    # The original's own tokenizer cannot do it.
    warned = "its script gives other ids" in caplog.text
    assert warned == (format == "tensorflow")
    imported = bertjax.import_model(tmp_path / "out", tmp_path / "again")
    assert imported.tokenizer.fingerprint == tokenizer.fingerprint
    assert imported.tokenizer.pieces(imported.tokenizer.encode_batch(["café"])[0]) == [
        "cafe" if strips else "café"
    ]
    assert imported.config.tokenizer.strip_accents is strips


def test_registered_tokens_come_back_from_the_originals_format_which_divides_them(
    run, tmp_path, caplog
):
    model = bertjax.load_model(run)
    content = "\n".join([*VOCABULARY, "<cat>"]).encode()
    marks = [AddedToken("<cat>", special=True)]
    tokenizer = WordPiece("vocab.txt", content, model.tokenizer.lowercase, registered=marks)
    save_model(tmp_path / "run", model.config, model.params, tokenizer, {})
    bertjax.export_model(tmp_path / "run", tmp_path / "out", "tensorflow")
    assert "no registered tokens: its script divides '<cat>'" in caplog.text
    imported = bertjax.import_model(tmp_path / "out", tmp_path / "again")
    assert imported.tokenizer.fingerprint == tokenizer.fingerprint
    assert imported.tokenizer.pieces(imported.tokenizer.encode_batch(["a<cat>"])[0])[1:] == [
        "<cat>"
    ]


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_a_tokenizer_json_with_rules_of_its_own_goes_out_and_in(run, tmp_path, format, caplog):
    bertjax.export_model(run, tmp_path / "source", "huggingface")
    source = tmp_path / "source"
    (source / "vocab.txt").unlink()
    engine = json.loads((source / "tokenizer.json").read_text())
    engine["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    engine["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}  # fmt: skip
    (source / "tokenizer.json").write_text(json.dumps(engine))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    imported = bertjax.import_model(source, tmp_path / "run")
    bertjax.export_model(tmp_path / "run", tmp_path / "out", format)
    assert ("the rules of tokenizer.json" in caplog.text) == (format == "tensorflow")
    again = bertjax.import_model(tmp_path / "out", tmp_path / "again")
    assert again.tokenizer.fingerprint == imported.tokenizer.fingerprint
    texts = ["the cats.", "Cat cats the . the the the", "[MASK] cat"]
    auto_tokenizer = pytest.importorskip("transformers").AutoTokenizer
    before, after = (auto_tokenizer.from_pretrained(f) for f in (source, tmp_path / "out"))
    assert before(texts, texts)["input_ids"] == after(texts, texts)["input_ids"]
    # Version 5 leaves them out, unless they are asked for.
    segments = before("the", "cat", return_token_type_ids=True)["token_type_ids"]
    assert after("the", "cat")["token_type_ids"] == segments == [0, 0, 0, 1, 1]
    # BERT's words would be "cats" and ".".
    ids, _ = again.tokenizer.encode_batch(texts[:1])
    assert again.tokenizer.pieces(ids) == ["the", "[UNK]"]


def test_a_lone_vocabulary_is_read_as_it_is_said_to_be(run, tmp_path):
    bertjax.export_model(run, tmp_path / "out", "tensorflow")
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (tmp_path / "out" / name).unlink()
    for lowercase, expected in ((None, True), (True, True), (False, False)):
        made = bertjax.import_model(
            tmp_path / "out", tmp_path / str(lowercase), lowercase=lowercase
        )
        assert made.tokenizer.lowercase is expected
        assert made.config.tokenizer.lowercase is expected


def test_a_model_without_a_tokenizer_is_a_run_without_one(run, tmp_path):
    bertjax.export_model(run, tmp_path / "out", "huggingface")
    for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt"):
        (tmp_path / "out" / name).unlink()
    made = bertjax.import_model(tmp_path / "out", tmp_path / "new")
    assert made.tokenizer is None
    assert not (tmp_path / "new" / "tokenizer").exists()
    bertjax.export_model(tmp_path / "new", tmp_path / "again", "huggingface")


def test_what_cannot_be_imported_is_named_and_nothing_is_left(run, tmp_path):
    with pytest.raises(
        UserError,
        match="bert-base-uncased: found no such folder, expected a folder with config.json",
    ):
        bertjax.import_model("bert-base-uncased", tmp_path / "new")
    with pytest.raises(
        UserError,
        match="found neither in it, expected a folder with config.json or bert_config.json",
    ):
        bertjax.import_model(run / "tokenizer", tmp_path / "new")
    bertjax.export_model(run, tmp_path / "out", "huggingface")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UserError, match="full: found files there"):
        bertjax.import_model(tmp_path / "out", tmp_path / "full")
    (tmp_path / "out" / "vocab.txt").write_text(
        "\n".join([*VOCABULARY, *(f"w{i}" for i in range(60))])
    )
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(
        UserError, match="vocab_size: found 64, expected at least the tokenizer's 70 entries"
    ):
        bertjax.import_model(tmp_path / "out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_of_other_heads_is_set_up_for_the_training_that_it_can_have(tmp_path):
    config = dataclasses.replace(SMALL_MODEL, heads=("mlm",))
    save_model(
        tmp_path / "run",
        small_config(model=config),
        bertjax.init(config, jax.random.key(0)),
        None,
        {},
    )
    bertjax.export_model(tmp_path / "run", tmp_path / "out", "huggingface")
    made = bertjax.import_model(tmp_path / "out", tmp_path / "new").config
    assert (made.data.sentence_objective, made.data.max_seq_length) == ("none", 16)


@pytest.fixture(scope="module")
def params():
    return bertjax.init(SMALL_MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def exported(params, tmp_path_factory):
    """A folder of `transformers`, without a tokenizer, that no test changes."""
    folder = tmp_path_factory.mktemp("exported")
    huggingface.save(folder, SMALL_MODEL, params)
    return folder


def to_torch(folder):
    """Turn the weights of an exported folder into `pytorch_model.bin`, as the first BERTs had."""
    torch = pytest.importorskip("torch")
    tensors = load_file(folder / "model.safetensors")
    torch.save({name: torch.tensor(a) for name, a in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_weights_beside_the_originals_configuration_are_read_or_said_not_to_be(
    exported, params, tmp_path, caplog
):
    folder = tmp_path / "out"
    shutil.copytree(exported, folder)
    (folder / "config.json").unlink()
    tensorflow.save(tmp_path / "tf", SMALL_MODEL, params)
    shutil.copy(tmp_path / "tf" / "bert_config.json", folder)
    for change in (None, to_torch):
        if change is not None:
            change(folder)
        model = read_external_model(folder)
        assert model.config.model == SMALL_MODEL
        assert model.facts["imported"]["format"] == "huggingface"
        assert same(model.params, params)
    assert not caplog.text
    # Of two sets of weights the one that is read is said.
    shutil.copytree(tmp_path / "tf", folder, dirs_exist_ok=True)
    assert read_external_model(folder).facts["imported"]["format"] == "tensorflow"
    assert "has weights of TensorFlow and others; TensorFlow's are imported" in caplog.text


def test_a_folder_of_any_weights_and_a_checkpoints_prefix_are_models_of_other_programs(tmp_path):
    for name in ("flax_model.msgpack", "model.safetensors.index.json", "bert_config.json"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(b"")
        assert is_external(folder)
    (tmp_path / "bert_model.ckpt.index").write_bytes(b"")
    assert is_external(tmp_path / "bert_model.ckpt")
    assert not is_external(tmp_path / "other")


EXTRA = {
    "a head": ["classifier.weight", "classifier.bias"],
    "adapters": [f"bert.encoder.layer.{i}.adapter.{n}.weight" for i in range(2) for n in "ab"],
    "masks": ["bert.encoder.layer.1.output.dense.weight_mask"],
    "heads and adapters": ["bert.encoder.layer.0.more", "qa_outputs.bias", "cls.more.bias"],
}


@pytest.mark.parametrize("what", EXTRA)
def test_the_printed_advice_taken_word_for_word_imports_the_model(
    exported, params, tmp_path, what, capsys
):
    tensors = load_file(exported / "model.safetensors")
    tensors |= {name: np.ones(3, np.float32) for name in EXTRA[what]}
    shutil.copy(exported / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    command = ["import", str(tmp_path), "--to", str(tmp_path / "run")]
    assert main.main(command) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    words = shlex.split(re.search(r"--drop .*", message)[0])
    if what == "adapters":
        # Saved and read again: a run takes its time to write.
        assert main.main([*command, *words]) == 0
        read = bertjax.load_model(tmp_path / "run").params
    else:
        read = read_external_model(tmp_path, drop=words[1:]).params
    assert same(read, params)


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("*", "--drop *: found bert.embeddings.LayerNorm."),
        ("bert.encoder.layer.1", "found bert.encoder.layer.1."),
        ("weight", "found bert.embeddings.LayerNorm.weight (it selects"),
        ("pooler", "found no tensor of such a name, expected"),
        ("pooler", "; '*pooler*' selects 2, such as bert.pooler"),
        ("encoder", "no tensor of such a name, expected the beginning or the ending of one, or a"),
        ("", "--drop : found no tensor of such a name"),
        ("bert.pooler", "bert.pooler.dense.weight: found no such tensor, expected one, for the"),
    ],
)
def test_a_pattern_that_selects_nothing_or_the_encoder_is_named(exported, pattern, expected):
    with pytest.raises(UserError) as error:
        read_external_model(exported, drop=[pattern])
    assert expected in str(error.value)


def test_endings_and_patterns_leave_out_what_they_select(exported, params):
    patterns = ["cls.seq*", "transform.dense.weight", "cls.predictions.*", "*.pooler.*"]
    model = read_external_model(exported, drop=patterns)
    assert model.config.model.heads == ()
    assert model.facts["imported"]["dropped"] == patterns
    assert same(model.params, {name: params[name] for name in ("embeddings", "encoder")})
