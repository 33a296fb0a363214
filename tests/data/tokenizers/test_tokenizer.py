import hashlib
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import load_tokenizer, open_vocabulary, train_tokenizer
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.errors import UserError
from tests.data.corpus.test_sources import documents
from tests.waiting import LIMIT_SECONDS

TEXTS = [
    "The quick brown fox jumps over the lazy dog.", "A tokenizer turns text into pieces, and back again.",
    "Unbelievable things happen: words are cut into smaller pieces.", "今天天气很好，我们去公园。", "Return the list of names.",
] * 20  # fmt: skip
KINDS = ("wordpiece", "unigram", "bpe")


def trained(kind, **options):
    return train_tokenizer(TokenizerConfig(kind=kind, vocab_size=200, **options), TEXTS)


TRAINED = {kind: trained(kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return TRAINED[request.param]


def ids_of(tokenizer, text):
    return tokenizer.encode_batch([text])[0].tolist()


def test_special_tokens_are_the_first_five_and_start_no_word(tokenizer):
    named = [
        tokenizer.pad_id,
        tokenizer.unk_id,
        tokenizer.cls_id,
        tokenizer.sep_id,
        tokenizer.mask_id,
    ]
    assert named == [0, 1, 2, 3, 4] == tokenizer.special_ids.tolist()
    assert tokenizer.pieces(named) == list(SPECIAL_TOKENS)
    assert not tokenizer.starts_word[:5].any()
    assert len(tokenizer.starts_word) == tokenizer.vocab_size


def test_text_comes_back_from_its_ids(tokenizer):
    text = "return the quick brown fox"
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_pieces_say_where_words_start(tokenizer):
    ids = ids_of(tokenizer, "unbelievable words are cut")
    assert tokenizer.starts_word[ids].sum() == 4
    assert tokenizer.starts_word[ids[0]]


@given(st.lists(st.text(max_size=40), max_size=8))
def test_a_batch_is_its_texts_one_by_one(texts):
    for tokenizer in TRAINED.values():
        ids, offsets = tokenizer.encode_batch(texts)
        assert ids.dtype == np.int32
        assert offsets.tolist()[0] == 0
        assert offsets[-1] == len(ids)
        for text, begin, end in zip(texts, offsets, offsets[1:], strict=False):
            assert ids[begin:end].tolist() == ids_of(tokenizer, text)
        assert ids.size == 0 or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size


@pytest.mark.parametrize("spelt", SPECIAL_TOKENS)
def test_text_that_spells_a_special_token_never_becomes_it(tokenizer, spelt):
    ids = set(ids_of(tokenizer, f"a {spelt} b{spelt}"))
    assert not ids & {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}


def test_encode_with_masks_understands_masks(tokenizer):
    ids = tokenizer.encode_with_masks("The [MASK] fox jumps over [MASK][MASK].")
    assert (ids == tokenizer.mask_id).sum() == 3
    assert np.array_equal(
        tokenizer.encode_with_masks("Return the list"), ids_of(tokenizer, "Return the list")
    )
    assert tokenizer.decode(ids).startswith("the [MASK] fox")
    assert tokenizer.encode_with_masks("").tolist() == []


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert ids_of(loaded, TEXTS[0]) == ids_of(tokenizer, TEXTS[0])
    assert len({t.fingerprint for t in TRAINED.values()}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_same_bytes_in_every_process_and_on_any_number_of_threads(kind):
    code = (
        "from bertjax.data.tokenizers.tokenizer import train_tokenizer; from bertjax.config import TokenizerConfig;"
        "from tests.data.tokenizers.test_tokenizer import TEXTS;"
        f"print(train_tokenizer(TokenizerConfig(kind={kind!r}, vocab_size=200), TEXTS).fingerprint)"
    )
    for threads in ("1", "4"):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                             env=os.environ | {"RAYON_NUM_THREADS": threads})  # fmt: skip
        assert run.stdout.strip() == TRAINED[kind].fingerprint


SYMBOLS = ["a×b a−b a～b a→b a°b a±b a≤b a€b a🙂b a🤖b 今×天" for _ in range(20)]


def test_symbols_inside_words_get_the_same_ids_in_every_process():
    code = (
        "from bertjax.data.tokenizers.tokenizer import train_tokenizer; from bertjax.config import TokenizerConfig;"
        "from tests.data.tokenizers.test_tokenizer import SYMBOLS;"
        "print(train_tokenizer(TokenizerConfig(vocab_size=60), SYMBOLS).fingerprint)"
    )
    expected = train_tokenizer(TokenizerConfig(vocab_size=60), SYMBOLS).fingerprint
    command = [sys.executable, "-c", code]
    for _ in range(3):
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run.stdout == f"{expected}\n"


@pytest.mark.slow
def test_chinese_wordpiece_training_is_the_same_in_every_process(shared_data):
    code = (
        "import lzma, sys; from bertjax.data.tokenizers.tokenizer import train_tokenizer; from bertjax.config import TokenizerConfig;"
        "texts = lzma.open(sys.argv[1], 'rt', encoding='utf-8').read().splitlines();"
        "print(train_tokenizer(TokenizerConfig(vocab_size=6000), texts).fingerprint)"
    )
    corpus = str(shared_data / "text" / "zh" / "d2l_zh.txt.xz")
    runs = [
        subprocess.run([sys.executable, "-c", code, corpus], capture_output=True, text=True, check=True,
                       env=os.environ | {"RAYON_NUM_THREADS": threads}).stdout for threads in "14"
    ]  # fmt: skip
    assert len(set(runs)) == 1


@pytest.mark.parametrize("size", [7, 20, 61, 200])
def test_a_trained_wordpiece_vocabulary_is_never_larger_than_vocab_size(size):
    letters = "".join(map(chr, range(0x430, 0x450)))
    texts = [
        *SYMBOLS,
        letters,
        letters[::-1],
        "abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlkjihgfedcba",
    ]
    assert train_tokenizer(TokenizerConfig(vocab_size=size), texts).vocab_size <= size


def test_a_forked_child_encodes_without_a_warning():
    code = (
        "import os; from tests.data.tokenizers.test_tokenizer import TEXTS, TRAINED; t = TRAINED['wordpiece'];"
        "want = t.encode_batch(TEXTS)[0].tolist(); child = os.fork();"
        "os._exit(t.encode_batch(TEXTS)[0].tolist() != want) if child == 0 else None;"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    run = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
                         capture_output=True, text=True, timeout=LIMIT_SECONDS)  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_cased_text_keeps_its_capitals(kind):
    cased = trained(kind, lowercase=False)
    assert cased.decode(ids_of(cased, "Return")) == "Return"
    assert TRAINED[kind].decode(ids_of(TRAINED[kind], "Return")) == "return"


def test_wordpiece_splits_chinese_into_characters():
    tokenizer = TRAINED["wordpiece"]
    assert tokenizer.pieces(ids_of(tokenizer, "今天天气")) == ["今", "天", "天", "气"]


def test_chinese_text_trains_wordpiece_and_unigram(shared_data):
    chinese = documents(shared_data / "text" / "zh" / "d2l_zh.txt.xz")
    texts = list(itertools.chain.from_iterable(chinese))[:3000]
    for kind in ("wordpiece", "unigram"):
        tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=4000), texts)
        ids, _ = tokenizer.encode_batch(texts)
        assert (ids == tokenizer.unk_id).mean() < 0.001
        assert "神经网络" in tokenizer.decode(ids_of(tokenizer, "神经网络")).replace(" ", "")


def test_odd_text_gives_ids_and_no_crash(tokenizer):
    for text in ("", " ", "\x00\x07", "x" * 5000, "\u202e\ufeff", "🙂🙃", "a\tb\nc"):
        assert all(0 <= i < tokenizer.vocab_size for i in ids_of(tokenizer, text))
    assert ids_of(TRAINED["wordpiece"], "x" * 101) == [1]


def vocab(tmp_path, entries):
    (tmp_path / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries))
    return TokenizerConfig(vocab_file=str(tmp_path / "vocab.txt"))


def test_an_existing_vocabulary_keeps_its_line_numbers_as_ids(tmp_path):
    tokenizer = open_vocabulary(
        vocab(tmp_path, ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"])
    )
    assert (tokenizer.unk_id, tokenizer.mask_id) == (2, 5)
    assert ids_of(tokenizer, "ab a") == [6, 7, 6]


@pytest.mark.parametrize("missing", SPECIAL_TOKENS)
def test_a_vocabulary_without_a_special_token_is_refused_naming_it(tmp_path, missing):
    config = vocab(tmp_path, [token for token in (*SPECIAL_TOKENS, "a") if token != missing])
    with pytest.raises(UserError, match=rf"vocab\.txt: found no \{missing} among 5 entries"):
        open_vocabulary(config)


@pytest.mark.parametrize("settings,message", [
    ("[]", "found a list"), ("{", "cannot be read as JSON"), ("{}", "found no tokenizer"),
    ('{"kind": "other", "do_lower_case": true, "vocab_file": "vocab.txt"}', "found the kind 'other'"),
])  # fmt: skip
def test_broken_settings_of_a_saved_tokenizer_are_an_error_of_one_line(tmp_path, settings, message):
    TRAINED["wordpiece"].save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(settings)
    with pytest.raises(UserError, match=rf"tokenizer_config\.json: {message}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind,size,needed", [
    ("wordpiece", 6, "7 or more"), ("unigram", 6, r"\d\d or more"), ("unigram", 10, r"\d\d or more"), ("bpe", 10, r"\d\d or more"),
])  # fmt: skip
def test_a_vocabulary_too_small_for_the_characters_says_which_size_is_needed(kind, size, needed):
    with pytest.raises(
        UserError, match=rf"^tokenizer\.vocab_size: found {size}, expected {needed}: the special"
    ) as caught:
        train_tokenizer(TokenizerConfig(kind=kind, vocab_size=size), TEXTS)
    enough = int(str(caught.value).split("expected ")[1].split()[0])
    config = TokenizerConfig(kind=kind, vocab_size=enough)
    assert train_tokenizer(config, TEXTS).vocab_size <= enough


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("texts", [[], [" "], ["x" * (1 << 20) + "y"]])
def test_sentencepiece_without_a_sentence_to_train_on_says_so(kind, texts):
    with pytest.raises(UserError, match=r"^tokenizer: found no text to train on, expected words"):
        train_tokenizer(TokenizerConfig(kind=kind), texts)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"tokenizer: cannot be written"):
        TRAINED["wordpiece"].save(tmp_path / "file" / "tokenizer")


def test_missing_broken_or_too_small_inputs_are_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: cannot be read as a vocabulary"):
        open_vocabulary(TokenizerConfig(vocab_file=str(tmp_path / "none.txt")))
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"bad\.model: found no SentencePiece model"):
        open_vocabulary(TokenizerConfig(kind="unigram", vocab_file=str(tmp_path / "bad.model")))
    with pytest.raises(UserError, match=r"tokenizer_config\.json: found no tokenizer"):
        load_tokenizer(tmp_path)
    for kind in KINDS:
        with pytest.raises(UserError, match="tokenizer"):
            train_tokenizer(TokenizerConfig(kind=kind, vocab_size=50), [])


@pytest.mark.parametrize(
    "file",
    [
        "../vocab.txt",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        None,
        3,
        "gs://b/v",
        "C:x",
        "a\0",
    ],
)
def test_a_saved_tokenizer_may_name_files_of_its_own_folder_only(tmp_path, file):
    folder = tmp_path / "tokenizer"
    TRAINED["wordpiece"].save(folder)
    TRAINED["wordpiece"].save(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"vocab_file": file}))
    with pytest.raises(
        UserError,
        match=r"tokenizer_config\.json: vocab_file: found .* expected the name of a file in this folder",
    ):
        load_tokenizer(folder)


@pytest.mark.parametrize("change,message", [
    ({"do_lower_case": "false"}, "do_lower_case: found 'false', expected true or false"),
    ({"kind": "byte_bpe", "do_lower_case": False}, r"vocab\.json: cannot be read as JSON"),
    ({"kind": "byte_bpe", "do_lower_case": False, "vocab_file": "vocab.txt", "merges_file": None}, "merges_file: found None, expected the name"),
    ({"kind": "byte_bpe", "do_lower_case": False, "merges_file": "../m"}, "merges_file: found '../m', expected the name"),
    ({"kind": "byte_bpe", "do_lower_case": False, "add_prefix_space": 1}, "add_prefix_space: found 1, expected true or false"),
    ({"kind": "unigram", "vocab_file": "vocab.txt"}, r"vocab\.txt: found no SentencePiece model"),
    ({"kind": ["x"]}, r"the kind \['x'\]"),
])  # fmt: skip
def test_settings_of_a_wrong_type_are_an_error_of_one_line(tmp_path, change, message):
    TRAINED["wordpiece"].save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_an_unknown_cleaning_of_text_is_refused(tmp_path):
    TRAINED["unigram"].save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(settings | {"text_cleaning": "other"})
    )
    with pytest.raises(UserError, match="text_cleaning: found 'other'"):
        load_tokenizer(tmp_path)


def test_folders_without_tokenizer_json_of_earlier_versions_load_with_their_fingerprint(
    tmp_path,
):
    content = "".join(f"{entry}\n" for entry in [*SPECIAL_TOKENS, "a", "##b"]).encode()
    (tmp_path / "vocab.txt").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"kind": "wordpiece", "do_lower_case": true, "vocab_file": "vocab.txt"}'
    )
    assert (
        load_tokenizer(tmp_path).fingerprint
        == hashlib.sha256(b"wordpiece True " + content).hexdigest()
    )
    model = TRAINED["bpe"]._content
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"kind": "bpe", "do_lower_case": true, "vocab_file": "spiece.model"}'
    )
    assert load_tokenizer(tmp_path).fingerprint == hashlib.sha256(b"bpe True " + model).hexdigest()


def test_a_model_whose_pieces_show_no_words_is_refused_when_opened_but_loads_if_saved(tmp_path):
    from tests.data.tokenizers.models import content

    option = "treat_whitespace_as_suffix"
    model = content("unigram", treat_whitespace_as_suffix=True)
    (tmp_path / "x.model").write_bytes(model)
    config = TokenizerConfig(kind="unigram", vocab_file=str(tmp_path / "x.model"))
    with pytest.raises(UserError, match=rf"x\.model: found a model of {option}, expected one with"):
        open_vocabulary(config)
    # As an earlier version saved it.
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"kind": "unigram", "do_lower_case": true, "vocab_file": "spiece.model"}'
    )
    assert load_tokenizer(tmp_path).vocab_size > 5


@pytest.mark.parametrize("kind", [*KINDS, "byte_bpe"])
def test_saved_settings_name_no_file(tmp_path, kind):
    from tests.data.tokenizers.test_byte_bpe import TRAINED as BYTE_BPE

    {**TRAINED, "byte_bpe": BYTE_BPE}[kind].save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not [key for key in settings if key.endswith("_file")]
    assert load_tokenizer(tmp_path).kind == kind
