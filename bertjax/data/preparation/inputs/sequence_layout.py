"""Layout of inputs in rows of ids, with one or several inputs per row."""

import numpy as np

from bertjax.data.preparation.documents import CONTINUES
from bertjax.data.preparation.inputs.instances import Sequences
from bertjax.data.preparation.inputs.packing import Placement
from bertjax.data.ragged import ranges
from bertjax.data.records.record_format import Schema
from bertjax.data.row_layout import Texts
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.types import Batch


def lay_out_rows(
    sequences: Sequences,
    placement: Placement,
    tokens: np.ndarray,
    tokenizer: Tokenizer,
    schema: Schema,
) -> Batch:
    """Make the features of `schema`, without the masks, for the rows 0, 1, … of `placement`.

    Each input is written at its offset by the tokenizer's layout, as `[CLS] A [SEP] B [SEP]`, or
    `[CLS] A [SEP]` if there is no B; the rest of a row is padding. `sequences` are spans of
    `tokens`, int32 `[T]`. Features are int32 `[rows, length]`; weights are float32. The result
    always has `word_starts` (bool), because masking needs it even if the record does not keep it.
    """
    row_count, length = _row_count(placement), schema.max_seq_length
    # All rows are one flat array, so that the spans of all inputs are copied at once.
    size, layout = row_count * length, tokenizer.layout
    begin = placement.row * length + placement.offset
    lengths = sequences.lengths(layout)
    end = begin + lengths

    ids = np.full(size, tokenizer.pad_id, np.int32)
    is_pair = sequences.b_length > 0
    a = Texts(tokens, sequences.a_begin, sequences.a_length)
    b = Texts(tokens, sequences.b_begin, sequences.b_length)
    layout.write(ids, begin, a, b, is_pair)
    continues = ids >= CONTINUES
    # Before the ids are an index of `starts_word` below.
    ids &= CONTINUES - 1

    used = ranges(begin, end)
    input_mask, segment_ids = np.zeros((2, size), np.int32)
    input_mask[used] = 1
    # Padding has segment 0, as in the original.
    second = begin + layout.segment_begins(sequences.a_length, lengths, is_pair)
    segment_ids[ranges(second, end)] = 1
    flat = {
        "input_ids": ids,
        "input_mask": input_mask,
        "segment_ids": segment_ids,
        "word_starts": tokenizer.starts_word[ids] & ~continues,
    }
    if schema.packed:
        pack_ids, position_ids = np.zeros((2, size), np.int32)
        pack_ids[used] = np.repeat(placement.number, end - begin)
        position_ids[used] = used - np.repeat(begin, end - begin)
        flat |= {"pack_ids": pack_ids, "position_ids": position_ids}
    batch = {name: values.reshape(row_count, length) for name, values in flat.items()}
    return batch | _sentence_features(sequences, placement, schema)


def _sentence_features(sequences: Sequences, placement: Placement, schema: Schema) -> Batch:
    """Make the sentence labels, `[rows, sentences]`.

    For packed rows, the features also have the position of each label's `[CLS]` and the weight of
    each label. The weight is 0 for the labels that a row does not use, if it has fewer inputs.
    """
    if not schema.sentences:
        return {}
    shape = (_row_count(placement), schema.sentences)
    # An input's number counts from 1, for in `pack_ids` 0 is padding.
    slots = (placement.row, placement.number - 1)
    labels = np.zeros(shape, np.int32)
    labels[slots] = sequences.label
    features: Batch = {"next_sentence_labels": labels}
    if schema.packed:
        positions, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        positions[slots] = placement.offset
        weights[slots] = 1
        features |= {"cls_positions": positions, "cls_weights": weights}
    return features


def _row_count(placement: Placement) -> int:
    # Without inputs there is no largest row, and the count must be 0.
    return int(placement.row.max(initial=-1)) + 1
