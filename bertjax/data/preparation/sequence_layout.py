"""Rows of ids from inputs and their places: one input a row, or several."""

import numpy as np

from bertjax.data.preparation.documents import CONTINUES
from bertjax.data.preparation.instances import Sequences
from bertjax.data.preparation.packing import Placement
from bertjax.data.ragged import ranges
from bertjax.data.records.record_format import Schema
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.types import Batch


def layout(
    sequences: Sequences, place: Placement, tokens: np.ndarray, tokenizer: Tokenizer, schema: Schema
) -> Batch:
    """The features of `schema` but the masks, for the rows 0, 1, … of `place`.

    `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` where there is no B, each input at its offset;
    the rest is padding. `word_starts` is there always, as bool: where a word begins.
    """
    rows, length = int(place.row.max(initial=-1)) + 1, schema.max_seq_length
    begin = place.row * length + place.offset
    a_end = begin + 1 + sequences.a_length
    end = begin + sequences.lengths
    ids = np.full(rows * length, tokenizer.pad_id, np.int32)
    ids[begin] = tokenizer.cls_id
    ids[a_end] = tokenizer.sep_id
    ids[end - 1] = tokenizer.sep_id
    ids[ranges(begin + 1, a_end)] = tokens[
        ranges(sequences.a_begin, sequences.a_begin + sequences.a_length)
    ]
    pair = sequences.b_length > 0
    b_begin, b_source = a_end[pair] + 1, sequences.b_begin[pair]
    ids[ranges(b_begin, end[pair] - 1)] = tokens[
        ranges(b_source, b_source + sequences.b_length[pair])
    ]
    continues = ids >= CONTINUES
    ids &= CONTINUES - 1
    used = ranges(begin, end)
    mask, segments = np.zeros((2, rows * length), np.int32)
    mask[used] = 1
    segments[ranges(b_begin, end[pair])] = 1
    flat = {
        "input_ids": ids,
        "input_mask": mask,
        "segment_ids": segments,
        "word_starts": tokenizer.starts_word[ids] & ~continues,
    }
    if schema.packed:
        packs, positions = np.zeros((2, rows * length), np.int32)
        packs[used] = np.repeat(place.number, end - begin)
        positions[used] = used - np.repeat(begin, end - begin)
        flat |= {"pack_ids": packs, "position_ids": positions}
    batch = {name: values.reshape(rows, length) for name, values in flat.items()}
    return batch | _sentences(sequences, place, rows, schema)


def _sentences(sequences: Sequences, place: Placement, rows: int, schema: Schema) -> Batch:
    """Labels, and in packed rows the places of the `[CLS]` that they belong to; `[rows,
    sentences]`.
    """
    if not schema.sentences:
        return {}
    shape = (rows, schema.sentences)
    slot = (place.row, place.number - 1)
    labels, positions, weights = (
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
    )
    labels[slot], positions[slot], weights[slot] = sequences.label, place.offset, 1
    labels_only = {"next_sentence_labels": labels}
    return (
        labels_only | {"cls_positions": positions, "cls_weights": weights}
        if schema.packed
        else labels_only
    )
