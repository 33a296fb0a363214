"""The rows that static ranges are measured on: text of a file, task data, or training records."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from bertjax.compression.figures import padded_rows, program_batches
from bertjax.compression.rated_pairs import text_rows
from bertjax.config import Config
from bertjax.data import pipeline
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.finetuning.batches import BatchShape
from bertjax.finetuning.evaluate_checkpoint import entries_of
from bertjax.finetuning.load import Finetuned, load_finetuned
from bertjax.given_files import place_of, read_file
from bertjax.inference.lengths import longest_row
from bertjax.interop.programs.serving import INPUTS
from bertjax.tasks import registry
from bertjax.training import checkpoint
from bertjax.training.batch_source import corpora
from bertjax.training.saved_model import saved_tokenizer

Rows = list[dict[str, np.ndarray]]

BATCH_ROWS = 8
MOST_UNKNOWN = 0.1
"""Share of unknown tokens above which a text is not one of the model's vocabulary."""


def calibration_rows(run: epath.PathLike, source: str, count: int, task: str = "") -> Rows:
    """Return about `count` rows for a run, in batches, as inputs of a program.

    `source` is a file of texts, one a line, or a prepared folder. If it is empty, they are training
    examples of `task`, or training records of the run's own data: never the held-out data that
    figures are measured on. Raises `UserError` for a source that is empty or of another tokenizer.
    """
    run_dir, folder = checkpoint.find_checkpoint(run)
    config = checkpoint.read_checkpoint_config(folder)
    if source:
        tokenizer = saved_tokenizer(run_dir, folder)
        path = place_of(source)
        if path.is_dir():
            return _records(config, path, tokenizer, count)
        return _texts(config, path, tokenizer, count)
    if config.finetune.tasks:
        return _examples(load_finetuned(folder), task, count)
    for place in corpora(config).values():
        if place.is_dir():
            return _records(config, place, saved_tokenizer(run_dir, folder), count)
    raise mismatch(
        where="--calibration",
        found="nothing, for a run without data of its own",
        expected="a file of texts or a prepared folder",
    )


def _texts(config: Config, path: epath.Path, tokenizer: Tokenizer, count: int) -> Rows:
    content = read_file(path, "calibration text")
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise mismatch(
            where=str(path), found="bytes that are no UTF-8", expected="a file of texts"
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    check(len(texts) > 0, where=str(path), found="no text", expected="texts, one a line")
    # From all over the file: its first lines may be of one kind.
    chosen = np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)
    texts = [texts[i] for i in chosen]
    rows = text_rows(tokenizer, texts, longest_row(config.model, None))
    _check_known(path, rows, tokenizer)
    return _batches(rows, tokenizer.pad_id)


def _check_known(path: epath.Path, rows: Sequence[np.ndarray], tokenizer: Tokenizer) -> None:
    """Raise `UserError` if the vocabulary does not know the text: it is of another tokenizer."""
    unknown = getattr(tokenizer, "unk_id", None)
    if unknown is None:
        return
    ids = np.concatenate(rows)
    share = float(np.mean(ids == unknown))
    check(
        share <= MOST_UNKNOWN,
        where=str(path),
        found=f"text of which {100 * share:.0f} % is unknown to the model's tokenizer",
        expected=f"at most {100 * MOST_UNKNOWN:.0f} %: text of its language",
    )


def _batches(rows: Sequence[np.ndarray], pad_id: int) -> Rows:
    ordered = sorted(rows, key=len)
    return [
        padded_rows(ordered[begin : begin + BATCH_ROWS], pad_id)
        for begin in range(0, len(ordered), BATCH_ROWS)
    ]


def _records(config: Config, folder: epath.Path, tokenizer: Tokenizer, count: int) -> Rows:
    # Refused here if the folder was prepared with another tokenizer.
    records = pipeline.open_split(config, folder, "train", tokenizer.fingerprint)
    check(len(records) > 0, where=str(folder), found="no record", expected="training records")
    chosen = np.unique(np.linspace(0, len(records) - 1, count).astype(int))
    rows = []
    for begin in range(0, len(chosen), BATCH_ROWS):
        batch = records.read(chosen[begin : begin + BATCH_ROWS])
        rows.append({name: batch[name].astype(np.int32) for name in INPUTS})
    return rows


def _examples(model: Finetuned, name: str, count: int) -> Rows:
    entries = {entry.name: entry for entry in entries_of(model)}
    entry = entries[name] if name else next(iter(entries.values()))
    options, task = model.config.finetune, model.objective.by_name[entry.name]
    examples = registry.read_split(entry, "train", options, True)
    chosen = np.unique(np.linspace(0, len(examples) - 1, count).astype(int))
    some = [examples[i] for i in chosen]
    length = options.max_seq_length
    encoded = task.encode(some, model.tokenizer, length, targets=False)
    shape = BatchShape(BATCH_ROWS, model.config.row_lengths, length, model.tokenizer.pad_id)
    return [inputs for _items, inputs in program_batches(encoded, shape)]
