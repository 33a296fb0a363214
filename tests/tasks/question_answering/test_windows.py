"""Windows of paragraphs, and the characters that pieces stand for."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import train_tokenizer
from bertjax.errors import UserError
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.windows import encode_questions, tokenized
from tests.data.test_row_layout import LAYOUTS, plain_row, with_layout
from tests.data.tokenizers.declared.folders import engine_of, put
from tests.data.tokenizers.declared.makers import LEAVING_OUT, composed_syllables

TEXT = [
    "The leader was John Smith (1895-1943).",
    "Café Zürich, ein Bär.",
    "黑豹队 308 分",
    "a b c d e f g h i j",
] * 3
WORDPIECE = train_tokenizer(TokenizerConfig(kind="wordpiece", vocab_size=120, lowercase=True), TEXT)
TOKENIZERS = [
    WORDPIECE,
    train_tokenizer(TokenizerConfig(kind="unigram", vocab_size=60, lowercase=True), TEXT),
    train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300, lowercase=False), TEXT),
]


def cut(text, tokenizer=WORDPIECE):
    """Each piece of a text with the characters that it stands for."""
    result = tokenized([text], tokenizer)
    spans = zip(result.begins.tolist(), result.ends.tolist(), strict=True)
    return list(
        zip(tokenizer.pieces(result.ids), [text[begin:end] for begin, end in spans], strict=True)
    )


@pytest.mark.parametrize("text,words", [
    ("John  Smith\t(1895)\n", ["John", "Smith", "(", "1895", ")"]),
    ("黑豹队 308", ["黑", "豹", "队", "308"]),
    # the accent is a character of its own, and dropped
    ("Zu\u0308rich, Bär", ["Zu\u0308rich", ",", "Bär"]),
    ("İa b", ["İa", "b"]),  # two characters in lower case
    ("a\u00adb \u200bc\u0000 d", ["a\u00adb", "c", "d"]),  # characters that the tokenizer drops
    ("𝒳 😀.", ["𝒳", "😀", "."]),
])  # fmt: skip
def test_the_pieces_of_words_cover_the_words_without_the_space_about_them(text, words):
    joined, at = [], 0
    for piece, characters in cut(text):
        if piece.startswith("##"):
            at = text.index(characters, at) + len(characters)
            joined[-1] = text[text.index(joined[-1]) : at]
        else:
            joined.append(characters)
            at = text.index(characters, at) + len(characters)
    assert joined == words


def test_pieces_of_one_character_have_it_whole():
    assert [characters for _, characters in cut("a 龘", TOKENIZERS[2])][-3:] == [
        "龘"
    ] * 3  # a byte each
    assert [characters for _, characters in cut("ab ½", TOKENIZERS[1])][-1] == "½"


REMOVING = [
    ({"type": "CharDelimiterSplit", "delimiter": "|"}, "a|b |Paris|c"),
    ({"type": "Split", "pattern": {"Regex": "[-|]"}, "behavior": "Removed", "invert": False}, "a b -Paris|-c"),
]  # fmt: skip


@pytest.mark.parametrize("rule,context", REMOVING)
def test_an_answer_does_not_take_in_what_the_rules_remove(tmp_path, rule, context):
    engine = engine_of(WORDPIECE, tmp_path / "saved")
    spaces = {"type": "WhitespaceSplit"}
    engine["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [rule, spaces]}
    tokenizer = read_tokenizer_folder(put(tmp_path / "folder", engine))
    result = tokenized([context], tokenizer)
    pieces = [context[begin:end] for begin, end in zip(result.begins, result.ends, strict=True)]
    assert not {"-", "|"} & set("".join(pieces))
    example = QuestionExample("x", "a", context, (("Paris", context.index("Paris")),))
    rows = encode_questions(
        [example], tokenizer, max_seq_length=32, doc_stride=9, max_query_length=4, targets=True, name="s"
    )  # fmt: skip
    start, end = (int(rows.targets[f"{name}_positions"][0]) for name in ("start", "end"))
    shift = int(rows.first[0] - rows.second_begins[0])
    assert context[rows.begins[start + shift] : rows.ends[end + shift]] == "Paris"


def answers_read(tokenizer, cases):
    """The texts of the pieces at which the targets of (context, answer) point."""
    examples = [
        QuestionExample(str(number), "a", context, ((answer, context.index(answer)),))
        for number, (context, answer) in enumerate(cases)
    ]
    rows = encode_questions(
        examples, tokenizer, max_seq_length=64, doc_stride=9, max_query_length=4, targets=True, name="s"
    )  # fmt: skip
    shift = rows.first - rows.second_begins
    begins = rows.begins[rows.targets["start_positions"] + shift]
    ends = rows.ends[rows.targets["end_positions"] + shift]
    spans = zip(cases, begins.tolist(), ends.tolist(), strict=True)
    return [(context, context[begin:end]) for (context, _), begin, end in spans]


@pytest.mark.parametrize("make", LEAVING_OUT, ids=lambda make: make.__name__)
def test_an_answer_is_its_own_words_beside_characters_that_no_piece_has(tmp_path, make):
    cases = [
        ("it was the\nwar of men", "war"),
        ("he ran 10\u00a0km today", "km"),
        ("he saw \u201chighways\u201d there", "saw"),
        ("he saw \u201chighways\u201d there", "highways"),
        ("he saw \u201chighways\u201d there", "there"),
        ("\u201cthe dog\u201d", "the"),
        ("be \u00e9used now", "used"),
        ("a \U0001f602dog na\u00efve \u65e5\u672c the", "dog"),
        ("a \U0001f602dog na\u00efve \u65e5\u672c the", "na\u00efve"),
        ("a \U0001f602dog na\u00efve \u65e5\u672c the", "the"),
        ("the\u1112\u1161\u11ab dog", "the"),
        ("plain words", "words"),
    ]
    assert answers_read(read_tokenizer_folder(make(tmp_path)), cases) == cases


def test_an_answer_has_all_parts_of_a_syllable_that_the_rules_compose(tmp_path):
    han = "\u1112\u1161\u11ab"
    cases = [(f"the {han} dog", han), (f"the {han}, {han} dog", f"{han}, {han}")]
    assert answers_read(read_tokenizer_folder(composed_syllables(tmp_path)), cases) == cases


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
@given(
    texts=st.lists(
        st.text(st.sampled_from("aJé\u0301ß İ豹½ﬁ(.\n\u00a0\u200b😀"), max_size=12), max_size=4
    )
)
def test_pieces_ascend_and_cover_every_visible_character(tokenizer, texts):
    result = tokenized(texts, tokenizer)
    for number, text in enumerate(texts):
        mine = slice(result.offsets[number], result.offsets[number + 1])
        begins, ends = result.begins[mine], result.ends[mine]
        assert (begins <= ends).all()
        assert (np.diff(begins) >= 0).all()
        assert (np.diff(ends) >= 0).all()
        assert (ends <= len(text)).all()
        pieces = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
        assert all(piece == piece.strip() for piece in pieces)
        covered = {
            place for begin, end in zip(begins, ends, strict=True) for place in range(begin, end)
        }
        missing = {text[place] for place in range(len(text)) if place not in covered}
        assert missing <= set(" \n\u00a0\u200b") | {"\u0301"}


def windows(pieces, room, stride):
    """The windows of a paragraph, (begin, length), written out as `run_squad.py` goes along."""
    result, begin = [], 0
    while True:
        length = min(pieces - begin, room)
        result.append((begin, length))
        if begin + length == pieces:
            return result
        begin += min(length, stride)


CONTEXTS = st.lists(
    st.sampled_from(["a", "b", "John", "1895", "Bär", ","]), min_size=1, max_size=12
).map(" ".join)


@given(
    questions=st.lists(
        st.tuples(st.sampled_from(["", "a b", "a b c d e"]), CONTEXTS, st.data()), max_size=4
    ),
    # Room for the special tokens of each layout (7 at most), 4 of the question, and one more.
    max_seq_length=st.integers(12, 20),
    doc_stride=st.integers(1, 9),
    layout=st.sampled_from(list(LAYOUTS.values())),
)
def test_rows_are_the_windows_of_the_original_and_point_at_the_answer(
    questions, max_seq_length, doc_stride, layout
):
    tokenizer = with_layout(WORDPIECE, layout)
    examples = []
    for number, (asked, context, data) in enumerate(questions):
        begin = data.draw(st.integers(0, len(context) - 1))
        text = context[begin : data.draw(st.integers(begin + 1, len(context)))]
        examples.append(
            QuestionExample(str(number), asked, context, ((text, begin),) if text.strip() else ())
        )
    rows = encode_questions(
        examples, tokenizer, max_seq_length=max_seq_length, doc_stride=doc_stride, max_query_length=4, targets=True, name="s"
    )  # fmt: skip
    row = 0
    for number, example in enumerate(examples):
        asked = WORDPIECE.encode_batch([example.question])[0][:4].tolist()
        ids = WORDPIECE.encode_batch([example.context])[0].tolist()
        place = WORDPIECE.encode_begins([example.context])[0]
        for begin, length in windows(
            len(ids), max_seq_length - len(asked) - layout.pair_specials, doc_stride
        ):
            expected, segments = plain_row(layout, asked, ids[begin : begin + length])
            assert rows.ids[rows.offsets[row] : rows.offsets[row + 1]].tolist() == expected
            assert rows.example_indices[row] == number
            assert rows.second_begins[row] == len(expected) - sum(segments)
            place_in_row = len(layout.before) + len(asked) + len(layout.between)
            assert (rows.window_begins[row], rows.window_lengths[row]) == (place_in_row, length)
            start, end = (int(rows.targets[f"{name}_positions"][row]) for name in ("start", "end"))
            if start or end:
                ((text, at),) = example.answers
                ink = at + len(text) - len(text.lstrip())
                last = at + len(text.rstrip()) - 1
                first_piece, last_piece = (
                    max(i for i, p in enumerate(place) if p <= c) for c in (ink, last)
                )
                assert (
                    start - place_in_row + begin,
                    end - place_in_row + begin,
                ) == (
                    first_piece,
                    last_piece,
                )
            elif example.answers:
                ((text, at),) = example.answers
                last = at + len(text.rstrip()) - 1
                first_piece = max(
                    i for i, p in enumerate(place) if p <= at + len(text) - len(text.lstrip())
                )
                last_piece = max(i for i, p in enumerate(place) if p <= last)
                assert first_piece < begin or last_piece >= begin + length
            row += 1
    assert row == rows.items


def rows_of(*examples, max_seq_length=32, targets=True):
    return encode_questions(
        examples,
        WORDPIECE,
        max_seq_length=max_seq_length,
        doc_stride=8,
        max_query_length=8,
        targets=targets,
        name="squad",
    )


def test_a_question_whose_answer_is_not_where_it_says_has_no_target_and_this_is_said(caplog):
    with caplog.at_level(logging.WARNING, "bertjax"):
        rows = rows_of(
            QuestionExample("a", "?", "a b c", (("b", 0),)),
            QuestionExample("b", "?", "a b c", (("x", 0), ("c", 4))),
            QuestionExample("c", "?", "a b c", ()),
        )
    assert (
        rows.targets["start_positions"].tolist()
        == rows.targets["end_positions"].tolist()
        == [-1, 5, 0]
    )
    assert caplog.messages == [
        "squad: questions whose answer is not where it says, or has no piece: 1; they are left out of the loss"
    ]


def test_questions_without_room_or_answers_are_named():
    with pytest.raises(
        UserError, match="squad: question q: found 4 pieces, max_seq_length 7, expected 8 or more"
    ):
        rows_of(QuestionExample("q", "a b c d", "a", ()), max_seq_length=7)
    assert rows_of(QuestionExample("q", "a b c d", "a", ()), max_seq_length=8).items == 1
    with pytest.raises(
        UserError, match="squad: question q: found no answers, expected answers, or none at all"
    ):
        rows_of(QuestionExample("q", "a", "a"))
    assert not rows_of(QuestionExample("q", "a", "a"), targets=False).targets
    assert rows_of().items == 0
