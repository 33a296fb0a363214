"""Calibration rows come from training data or a text, never from what is measured."""

import numpy as np
import pytest

from bertjax.compression.held_out import measure_of
from bertjax.compression.quantize.calibration import calibration_rows
from bertjax.errors import UserError
from tests.compression.small_runs import encoder_run, task_run
from tests.tasks.tiny import sentences


def ids_of(batches):
    rows = set()
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["input_mask"], strict=True):
            rows.add(tuple(ids[mask > 0].tolist()))
    return rows


def test_training_examples_are_taken_and_none_that_is_held_out(tmp_path):
    run = task_run(tmp_path)
    rows = calibration_rows(run, "", 50)
    assert sum(len(batch["input_ids"]) for batch in rows) == 50
    assert {values.dtype for batch in rows for values in batch.values()} == {np.dtype("int32")}
    assert not ids_of(rows) & ids_of(measure_of(run).batches())


def test_texts_come_from_all_over_a_file_or_are_refused(tmp_path):
    run = encoder_run(tmp_path)
    with pytest.raises(UserError, match="--calibration: found nothing, for a run without data"):
        calibration_rows(run, "", 50)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(sentences(100)) + "\n")
    assert sum(len(batch["input_ids"]) for batch in calibration_rows(run, str(texts), 30)) == 30
    for content, message in {
        b"": "texts.txt: found no text, expected texts, one a line",
        b" \n\t\n": "texts.txt: found no text",
        b"\xff\xfe": "found bytes that are no UTF-8",
        "猫 犬 the".encode(): "found text of which .* % is unknown to the model's tokenizer",
    }.items():
        texts.write_bytes(content)
        with pytest.raises(UserError, match=message):
            calibration_rows(run, str(texts), 30)
    with pytest.raises(UserError, match="cannot be read as calibration text"):
        calibration_rows(run, str(tmp_path / "absent.txt"), 30)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        calibration_rows(run, str(tmp_path / "empty"), 30)
