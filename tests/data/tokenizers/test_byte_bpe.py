import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.byte_bpe import ByteBPE
from bertjax.data.tokenizers.tokenizer import load_tokenizer, open_vocabulary, train_tokenizer
from bertjax.data.tokenizers.vocabulary import ROBERTA_TOKENS
from bertjax.errors import UserError
from tests.data.tokenizers.test_tokenizer import TEXTS, ids_of

CONFIG = TokenizerConfig(kind="byte_bpe", lowercase=False, vocab_size=400)
TRAINED = train_tokenizer(CONFIG, TEXTS)
HARD = ("e\u0301", "天气", "🙂🏽", "\x00", "\t", "\n", "  ", "\u00a0", "\u3000", "\x1c", "don't", "12345", "...", " the",
        "<s>", "</s>", "<pad>", "<unk>", "Ġ", "[CLS]")  # fmt: skip
TEXT = st.lists(st.sampled_from(HARD) | st.text(max_size=6), max_size=10).map("".join)


def test_any_text_comes_back_from_its_ids():
    text = "Return the “quick” fox, 今天, 🙂\x00"
    assert TRAINED.decode(ids_of(TRAINED, text)) == text
    assert TRAINED.unk_id not in ids_of(TRAINED, text)


def test_special_tokens_have_their_roles_and_never_come_out_of_text():
    named = [TRAINED.pad_id, TRAINED.unk_id, TRAINED.cls_id, TRAINED.sep_id, TRAINED.mask_id]
    assert TRAINED.pieces(named) == list(ROBERTA_TOKENS)
    assert sorted(named) == sorted(TRAINED.special_ids.tolist())
    assert not set(named) & set(ids_of(TRAINED, "a <s> b</s> <mask> <pad><unk> [MASK]"))


def test_a_space_starts_a_word():
    ids = ids_of(TRAINED, "unbelievable words are cut")
    assert TRAINED.starts_word[ids].sum() == 3  # the first word has no space
    assert not TRAINED.starts_word[TRAINED.special_ids].any()
    assert TRAINED.starts_word.shape == (TRAINED.vocab_size,)


@given(st.lists(TEXT, max_size=6))
def test_a_batch_is_its_texts_one_by_one_and_each_token_begins_in_its_text(texts):
    ids, offsets = TRAINED.encode_batch(texts)
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    for i, (text, begins) in enumerate(zip(texts, TRAINED.encode_begins(texts), strict=True)):
        row = ids[offsets[i] : offsets[i + 1]].tolist()
        assert row == ids_of(TRAINED, text)
        assert len(begins) == len(row)
        assert begins == sorted(begins)
        assert all(0 <= b <= len(text) for b in begins)


def test_tokens_begin_after_their_space():
    text = "the fox jumps"
    begins = TRAINED.encode_begins([text])[0]
    assert {0, 4, 8} <= set(begins)
    assert not {3, 7} & set(begins)


def test_both_names_of_the_mask_take_the_space_before():
    for text in ("the [MASK] fox", "the <mask> fox", "the<mask> fox"):
        ids = TRAINED.encode_with_masks(text).tolist()
        assert ids == [*ids_of(TRAINED, "the"), TRAINED.mask_id, *ids_of(TRAINED, " fox")]
    assert TRAINED.encode_with_masks("[MASK]<mask>").tolist() == [TRAINED.mask_id] * 2
    assert TRAINED.encode_with_masks("").tolist() == []


def test_training_gives_the_same_bytes_in_every_process():
    code = (
        "from tests.data.tokenizers.test_byte_bpe import TEXTS, CONFIG, train_tokenizer;"
        "print(train_tokenizer(CONFIG, TEXTS).fingerprint)"
    )
    for _ in "12":
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == TRAINED.fingerprint


@pytest.mark.parametrize("prefix", [False, True])
def test_a_saved_tokenizer_is_the_same_when_loaded(tmp_path, prefix):
    ids = {entry: i for i, entry in enumerate(TRAINED.pieces(range(TRAINED.vocab_size)))}
    tokenizer = ByteBPE("x", ids, TRAINED.merges, prefix)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.kind, loaded.lowercase) == ("byte_bpe", False)
    assert ids_of(loaded, TEXTS[0]) == ids_of(tokenizer, TEXTS[0])
    assert (ids_of(loaded, "the") == ids_of(loaded, " the")) == prefix
    assert (loaded.fingerprint == TRAINED.fingerprint) == (not prefix)
    assert not list(tmp_path.glob("*.unfinished"))


def files(tmp_path, ids, merges):
    (tmp_path / "vocab.json").write_text(json.dumps(ids) if not isinstance(ids, str) else ids)
    (tmp_path / "merges.txt").write_bytes(merges)
    return TokenizerConfig(
        kind="byte_bpe", lowercase=False, vocab_file=str(tmp_path / "vocab.json")
    )


NAMES = {token: i for i, token in enumerate(ROBERTA_TOKENS)}


def test_a_vocabulary_opens_with_the_merges_beside_it(tmp_path):
    config = files(
        tmp_path, {**NAMES, "a": 5, "b": 6, "ab": 7, "Ġ": 8}, b"#version: 0.2\na b\r\n\n"
    )
    assert ids_of(open_vocabulary(config), "ab ba") == [7, 8, 6, 5]


@pytest.mark.parametrize("ids,merges,message", [
    ({**NAMES, "a": 6}, b"", r"vocab\.json: found 6 entries with ids that are not 0 to 5"),
    ({**NAMES, "a": 4}, b"", r"vocab\.json: found 6 entries with ids"),
    ({**NAMES, "a": "5"}, b"", r"vocab\.json: found 6 entries with ids"),
    ({**NAMES, "a": True}, b"", r"vocab\.json: found 6 entries with ids"),
    ("[]", b"", r"vocab\.json: found a list, expected a JSON object"),
    ("{", b"", r"vocab\.json: cannot be read as JSON"),
    ("[" * 100_000, b"", r"vocab\.json: cannot be read as JSON"),
    ({"a": 0, "<s>": 1}, b"", r"vocab\.json: found no <pad> among 2 entries, expected all of <pad> <unk>"),
    ({**NAMES, "a": 5}, b"a\n", r"merges\.txt, line 1: found 'a', expected two pieces"),
    ({**NAMES, "a": 5}, b"a a a\n", r"merges\.txt, line 1: found 'a a a', expected two pieces"),
    ({**NAMES, "a": 5}, b"#version\na c\n", r"vocab\.json: found merges that do not fit the vocabulary"),
    ({**NAMES, "a": 5}, b"\xff\n", r"merges\.txt: found bytes that are not UTF-8"),
])  # fmt: skip
def test_broken_files_are_one_line_naming_the_file(tmp_path, ids, merges, message):
    with pytest.raises(UserError, match=message) as caught:
        open_vocabulary(files(tmp_path, ids, merges))
    assert "\n" not in str(caught.value)


def test_settings_that_byte_level_bpe_does_not_support_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.lowercase: found True, expected False"):
        train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=400), TEXTS)
    with pytest.raises(
        UserError, match=r"tokenizer\.vocab_size: found 200, expected more than 261"
    ):
        train_tokenizer(TokenizerConfig(kind="byte_bpe", lowercase=False, vocab_size=200), TEXTS)
    with pytest.raises(UserError, match="tokenizer: found no text"):
        train_tokenizer(CONFIG, [])
    config = files(tmp_path, {**NAMES, "a": 5}, b"")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt: cannot be read as merges"):
        open_vocabulary(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the two vocabulary files only, as RoBERTa's."""
    path = tmp_path_factory.mktemp("roberta")
    for name, content in TRAINED._files.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def theirs(folder, tmp_path_factory):
    """RobertaTokenizer of the two files, and AutoTokenizer of the folder that we save."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("saved")
    TRAINED.save(path, model_max_length=77)
    mask = transformers.AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    return [
        transformers.RobertaTokenizer.from_pretrained(folder, mask_token=mask),
        transformers.AutoTokenizer.from_pretrained(path),
    ]


@given(text=TEXT)
@example(text="")
@example(text="".join(HARD))
def test_ids_are_those_of_transformers(theirs, text):
    for other in theirs:
        assert other(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ] == ids_of(TRAINED, text)


@given(texts=st.lists(TEXT.map(lambda t: t.replace("<", "(")), min_size=1, max_size=4))
@example(texts=["a \t\n\u00a0\u2003", "\x1c", "b"])
def test_masks_in_text_are_those_of_transformers(theirs, texts):
    text = "<mask>".join(texts)
    for other in theirs:
        assert (
            other(text, add_special_tokens=False)["input_ids"]
            == TRAINED.encode_with_masks(text).tolist()
        )
        assert np.array_equal(
            TRAINED.encode_with_masks("[MASK]".join(texts)), TRAINED.encode_with_masks(text)
        )


def test_special_tokens_pairs_and_settings_are_those_of_transformers(theirs):
    a, b = ids_of(TRAINED, "the quick"), ids_of(TRAINED, "brown")
    cls, sep = TRAINED.cls_id, TRAINED.sep_id
    for other in theirs:
        named = [
            other.pad_token_id,
            other.unk_token_id,
            other.cls_token_id,
            other.sep_token_id,
            other.mask_token_id,
        ]
        assert named == [TRAINED.pad_id, TRAINED.unk_id, cls, sep, TRAINED.mask_id]
        assert other("the quick", "brown")["input_ids"] == [cls, *a, sep, sep, *b, sep]
        assert len(other) == TRAINED.vocab_size
    assert type(theirs[1]).__name__ == "RobertaTokenizer"
    assert theirs[1].model_max_length == 77
