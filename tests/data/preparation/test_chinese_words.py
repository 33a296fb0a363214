import itertools
import lzma
import re
import string
import unicodedata

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation.chinese_words import mark_words
from bertjax.data.preparation.documents import CONTINUES
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.tokenizers.tokenizer import load_tokenizer, open_vocabulary, train_tokenizer
from bertjax.masking.static import unmask

jieba = pytest.importorskip("jieba")

KINDS = ("wordpiece", "unigram", "bpe")
CHINESE = "[\u4e00-\u9fff]"


@pytest.fixture(scope="module")
def real_sentences(shared_data):
    """Distinct sentences of a Chinese textbook, of ideographs and their punctuation only."""
    with lzma.open(shared_data / "text" / "zh" / "d2l_zh.txt.xz", "rt") as file:
        matches = re.findall(f"(?<![^。\n])(?:{CHINESE}+，)*{CHINESE}+。", file.read())
    return [sentence for sentence in dict.fromkeys(matches) if 10 <= len(sentence) <= 40]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, real_sentences):
    letters = " ".join(
        f"{letter} x{letter}" for letter in string.ascii_lowercase
    )  # each within a word too
    return train_tokenizer(
        TokenizerConfig(kind=request.param, vocab_size=3000), [*real_sentences, letters] * 2
    )


def marks_of(tokenizer, sentences):
    """Return which tokens of each sentence carry CONTINUES; the ids must be unchanged."""
    tokens, offsets = tokenizer.encode_batch(sentences)
    before = tokens.copy()
    marked = mark_words(sentences, tokens, offsets, tokenizer)
    assert np.array_equal(tokens, before)
    assert np.array_equal(marked & ~np.int32(CONTINUES), tokens)
    assert (marked >= 0).all()
    continues = (marked & CONTINUES) > 0
    return [continues[a:b] for a, b in itertools.pairwise(offsets)]


@pytest.mark.parametrize("sentence,continues", [
    ("我们使用深度学习框架", "0101010101"),
    ("实例。", "010"),
    ("今天 天气 很好", "010100"),
    ("使用deep实例", "01001"),
    ("Deep 学习 learning", "0010"),
    ("deep learning", "00"),
    ("", ""),
])  # fmt: skip
def test_tokens_inside_of_a_chinese_word_continue_it_and_all_others_begin_one(
    tmp_path, sentence, continues
):
    characters = dict.fromkeys("我们使用深度学习框架实例今天气很好。")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "deep", "learning", *characters])
    )
    wordpiece = open_vocabulary(TokenizerConfig(vocab_file=str(vocabulary)))
    (marks,) = marks_of(wordpiece, [sentence])
    assert "".join("01"[int(mark)] for mark in marks) == continues


def test_latin_text_is_left_as_it_was_also_beside_chinese(tokenizer):
    sentences = ["unbelievably naïve", "深度 unbelievably", "", "deep", "unbelievably 学习"]
    marks = marks_of(tokenizer, sentences)
    assert not any(marks[number].any() for number in (0, 2, 3))
    for number in (1, 4):
        tokens, _ = tokenizer.encode_batch([sentences[number]])
        pieces = tokenizer.pieces(tokens.tolist())
        latin = [
            mark
            for piece, mark in zip(pieces, marks[number], strict=True)
            if re.search("[a-z]", piece)
        ]
        assert len(latin) > 1
        assert not any(latin)
    (alone,) = marks_of(tokenizer, ["深度"])
    assert marks[1].sum() == alone.sum()


def spans_of(tokenizer, sentence):
    """Return the span of each token in a sentence, by the lengths of their pieces.

    None if a token is unknown.
    """
    tokens, _ = tokenizer.encode_batch([sentence])
    if tokenizer.unk_id in tokens:
        return None
    pieces = [piece.removeprefix("▁") for piece in tokenizer.pieces(tokens.tolist())]
    assert "".join(pieces) == unicodedata.normalize("NFKC", sentence) or "".join(pieces) == sentence
    ends = np.cumsum([len(piece) for piece in pieces])
    return list(zip(ends - [len(piece) for piece in pieces], ends, strict=True))


def test_on_real_text_a_token_continues_a_word_just_when_it_begins_after_the_words_begin(
    tokenizer, real_sentences
):
    sentences = real_sentences[:400]
    checked = inside = 0
    for sentence, marks in zip(sentences, marks_of(tokenizer, sentences), strict=True):
        if (spans := spans_of(tokenizer, sentence)) is None:
            continue
        begins = np.cumsum([0, *map(len, jieba.cut(sentence))])
        assert marks.tolist() == [begin not in begins for begin, _ in spans]
        checked += 1
        inside += marks.sum()
    assert checked > 200
    assert inside > 100


def split_words(tmp_path, sentences, kind, word_segmenter):
    """Prepare each sentence as a document, and count its words of two tokens or more.

    Returns how many are masked, and how many of these in part only.
    """
    corpus, out = tmp_path / "corpus.txt", tmp_path / word_segmenter
    corpus.write_text("\n\n".join(sentences) + "\n")
    data = DataConfig(
        corpus=(str(corpus),), max_seq_length=64, max_predictions_per_seq=10, short_seq_probability=0.0, num_shards=1,
        dupe_factor=3, workers=1, masking="whole_word", word_segmenter=word_segmenter, sentence_objective="none",
    )  # fmt: skip
    manifest = prepare(
        Config(data=data, tokenizer=TokenizerConfig(kind=kind, vocab_size=3000)), out
    )
    tokenizer = load_tokenizer(epath.Path(out / "tokenizer"))
    named = {
        tuple(tokenizer.encode_batch([sentence])[0].tolist()): sentence for sentence in sentences
    }
    records = PreparedRecords(epath.Path(out), manifest, "train")
    batch = records.read(np.arange(len(records)))
    whole = unmask(batch)["input_ids"]
    masked = partly = 0
    for row, ids in enumerate(whole):
        ids = ids[1 : batch["input_mask"][row].sum() - 1]
        used = batch["masked_lm_weights"][row] > 0
        chosen = set((batch["masked_lm_positions"][row][used] - 1).tolist())
        if (spans := spans_of(tokenizer, named[tuple(ids.tolist())])) is None:
            continue
        begin = 0
        for word in jieba.cut(named[tuple(ids.tolist())]):
            end = begin + len(word)
            own = [number for number, (a, b) in enumerate(spans) if begin <= a < end and b > a]
            if len(own) > 1 and chosen & set(own):
                masked += 1
                partly += not chosen >= set(own)
            begin = end
    return masked, partly


@pytest.mark.parametrize("kind", [*KINDS[:2], pytest.param("bpe", marks=pytest.mark.slow)])
def test_a_preparation_masks_whole_chinese_words(tmp_path, real_sentences, kind):
    masked, partly = split_words(tmp_path, real_sentences, kind, "jieba")
    assert masked > 100
    assert partly == 0


def test_without_the_segmenter_chinese_words_are_masked_in_part(tmp_path, real_sentences):
    masked, partly = split_words(tmp_path, real_sentences, "wordpiece", "none")
    assert partly > masked / 2
