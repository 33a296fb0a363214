import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import TokenizerConfig
from bertjax.data.preparation.documents import CONTINUES
from bertjax.data.preparation.inputs.instances import Sequences
from bertjax.data.preparation.inputs.packing import alone, pack
from bertjax.data.preparation.inputs.sequence_layout import lay_out_rows
from bertjax.data.records.record_format import Schema
from bertjax.data.row_layout import RowLayout, bert_layout
from bertjax.data.tokenizers.tokenizer import open_vocabulary
from tests.data.test_row_layout import plain_row, with_layout

# Special tokens between others, so that none of their ids is one that is there by default.
ENTRIES = ["a", "[SEP]", "##b", "[PAD]", "c", "[MASK]", "##d", "[CLS]", "e", "[UNK]", "##f", "g"]
PAD, CLS, SEP = (ENTRIES.index(f"[{name}]") for name in ("PAD", "CLS", "SEP"))
LENGTH, SENTENCES = 24, 3
LAYOUTS = {
    "bert": bert_layout(CLS, SEP),
    "begin": RowLayout((CLS,), (CLS,), (), None),
    "begin_alone": RowLayout((CLS,), (), (), 0),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "vocab.txt"
    path.write_text("".join(f"{entry}\n" for entry in ENTRIES))
    return open_vocabulary(TokenizerConfig(vocab_file=str(path)))


def schema(packed, sentences):
    count = (SENTENCES if packed else 1) if sentences else 0
    return Schema(LENGTH, 0, sentences=count, packed=packed)


@st.composite
def inputs(draw):
    """Draw a text and inputs of it.

    Some of its ids continue a word though their piece could begin one.
    """
    ids = st.integers(0, len(ENTRIES) - 1) | st.integers(CONTINUES, CONTINUES + len(ENTRIES) - 1)
    tokens = np.array(draw(st.lists(ids, min_size=LENGTH, max_size=80)), np.int32)
    spans = []
    for _ in range(draw(st.integers(1, 12))):
        a = draw(st.integers(1, LENGTH - 4))
        b = draw(st.integers(0, LENGTH - 3 - a))
        begins = (draw(st.integers(0, len(tokens) - length)) for length in (a, b))
        spans.append((next(begins), a, next(begins), b, draw(st.integers(0, 1))))
    return tokens, Sequences(*np.array(spans, np.int64).T)


def features_one_by_one(tokens, sequences, placement, schema, layout):
    """Return the features of each row, made one input and one token after another."""
    rows = []
    for row in range(max(placement.row) + 1):
        blank = {"input_ids": PAD, "input_mask": 0, "segment_ids": 0, "word_starts": False}
        blank |= {"pack_ids": 0, "position_ids": 0} if schema.packed else {}
        values = {name: [value] * LENGTH for name, value in blank.items()}
        if schema.sentences:
            values["next_sentence_labels"] = [0] * schema.sentences
        if schema.sentences and schema.packed:
            values |= {
                "cls_positions": [0] * schema.sentences,
                "cls_weights": [0.0] * schema.sentences,
            }
        for i in np.flatnonzero(placement.row == row):
            a_begin, a, b_begin, b, label = (int(field[i]) for field in sequences)
            first = tokens[a_begin : a_begin + a].tolist()
            second = tokens[b_begin : b_begin + b].tolist() if b else None
            text, segments = plain_row(layout, first, second)
            for position, (token, segment) in enumerate(zip(text, segments, strict=True)):
                continues, token = token >= CONTINUES, token % CONTINUES
                entry = ENTRIES[token]
                column = placement.offset[i] + position
                values["input_ids"][column] = token
                values["input_mask"][column] = 1
                values["segment_ids"][column] = segment
                values["word_starts"][column] = entry[0] not in "[#" and not continues
                if schema.packed:
                    values["pack_ids"][column] = int(placement.number[i])
                    values["position_ids"][column] = position
            if schema.sentences:
                slot = placement.number[i] - 1
                values["next_sentence_labels"][slot] = label
                if schema.packed:
                    values["cls_positions"][slot], values["cls_weights"][slot] = (
                        int(placement.offset[i]),
                        1.0,
                    )
        rows.append(values)
    return {name: [values[name] for values in rows] for name in rows[0]}


@pytest.fixture(scope="module", params=LAYOUTS)
def laid_out(request, tokenizer):
    """The tokenizer with another layout of rows."""
    return with_layout(tokenizer, LAYOUTS[request.param])


@pytest.mark.parametrize("sentences", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@given(drawn=inputs())
def test_rows_are_their_inputs_token_by_token(laid_out, packed, sentences, drawn):
    tokenizer = laid_out
    tokens, sequences = drawn
    lengths = sequences.lengths(tokenizer.layout)
    placement = pack(lengths, LENGTH, SENTENCES) if packed else alone(len(lengths))
    row_schema = schema(packed, sentences)
    batch = lay_out_rows(sequences, placement, tokens, tokenizer, row_schema)
    expected = features_one_by_one(tokens, sequences, placement, row_schema, tokenizer.layout)
    assert batch.keys() == expected.keys() == row_schema.lengths.keys() | {"word_starts"}
    for name, values in expected.items():
        assert batch[name].tolist() == values, name
        kinds = {"word_starts": np.bool_, "cls_weights": np.float32}
        assert batch[name].dtype == kinds.get(name, np.int32)


def test_a_pair_and_a_lone_input_in_one_row(tokenizer):
    tokens = np.array([0, 2, 4, 8 + CONTINUES], np.int32)  # a ##b c, and e as a part of a word
    sequences = Sequences(*np.array([[0, 2, 2, 2, 1], [2, 1, 0, 0, 0]]).T)
    batch = lay_out_rows(
        sequences,
        pack(sequences.lengths(tokenizer.layout), LENGTH, SENTENCES),
        tokens,
        tokenizer,
        schema(True, True),
    )
    features = {name: values[0, :12].tolist() for name, values in batch.items()}
    assert features == {
        "input_ids": [CLS, 0, 2, SEP, 4, 8, SEP, CLS, 4, SEP, PAD, PAD],
        "input_mask": [1] * 10 + [0, 0],
        "segment_ids": [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0],
        "word_starts": [i in (1, 4, 8) for i in range(12)],
        "pack_ids": [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 0, 0],
        "position_ids": [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 0],
        "next_sentence_labels": [1, 0, 0],
        "cls_positions": [0, 7, 0],
        "cls_weights": [1.0, 1.0, 0.0],
    }


@pytest.mark.parametrize("packed", [True, False])
def test_no_inputs_are_no_rows(tokenizer, packed):
    none = np.zeros(0, np.int64)
    sequences = Sequences(none, none, none, none, none)
    placement = pack(sequences.lengths(tokenizer.layout), LENGTH, SENTENCES) if packed else alone(0)
    batch = lay_out_rows(
        sequences, placement, np.zeros(0, np.int32), tokenizer, schema(packed, True)
    )
    assert {name: values.shape for name, values in batch.items() if values.shape[0]} == {}
