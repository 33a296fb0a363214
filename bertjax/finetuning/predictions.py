"""Predictions of a split, each kind of task's in the format that its field reads."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from bertjax.config import FinetuneConfig
from bertjax.errors import check, disk_errors
from bertjax.storage import is_compressed, write_lines
from bertjax.tasks.classification import examples as text_examples
from bertjax.tasks.classification import glue
from bertjax.tasks.files.splits import find_files
from bertjax.tasks.question_answering import squad
from bertjax.tasks.registry import Entry, conll_columns
from bertjax.tasks.tagging.conll import read_conll, write_conll


def write_predictions(
    folder: epath.Path,
    entry: Entry,
    split: str,
    predictions: Sequence[Any],
    examples: Sequence[Any],
    told: FinetuneConfig,
) -> list[epath.Path]:
    """Write what was predicted of a split into `folder`; returns the files.

    GLUE's test sets: the file to hand in. Other text: `NAME-SPLIT.tsv`. Tagging: files like those
    of the split, with the tags predicted. Spans: `NAME-SPLIT.json`, which the official scripts
    read, and the n best and the odds of no answer beside it. Choice: a TSV. Sequence to sequence: a
    text a line.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stem = f"{entry.name}-{split}"
    if entry.kind == "classification":
        return _of_text(folder, stem, entry, split, predictions, examples, told)
    if entry.kind == "tagging":
        return _of_tags(folder, stem, entry, split, predictions, examples, told)
    if entry.kind == "spans":
        paths = [folder / f"{stem}{what}.json" for what in ("", "-n_best", "-null_odds")]
        writers = (squad.write_predictions, squad.write_n_best, squad.write_null_odds)
        for path, write in zip(paths, writers, strict=True):
            write(path, examples, predictions)
        return paths
    if entry.kind == "choice":
        lines = [
            "\t".join([example.id, str(one.choice), f"{max(one.probabilities):.4f}"])
            for one, example in zip(predictions, examples, strict=True)
        ]
        return [write_lines(folder / f"{stem}.tsv", ["id\tprediction\tprobability", *lines])]
    return [write_lines(folder / f"{stem}.txt", [" ".join(text.split()) for text in predictions])]


def _of_text(
    folder: epath.Path,
    stem: str,
    entry: Entry,
    split: str,
    predictions: Sequence[Any],
    examples: Sequence[Any],
    told: FinetuneConfig,
) -> list[epath.Path]:
    paths = [folder / f"{stem}.tsv"]
    text_examples.write_predictions(paths[0], predictions, examples, told.label_separator)
    known = glue.glue_task(entry.name)
    if known and split in known.test_splits:
        paths.append(glue.write_submission(folder, known, split, predictions, examples))
    return paths


def _of_tags(
    folder: epath.Path,
    stem: str,
    entry: Entry,
    split: str,
    predictions: Sequence[Any],
    examples: Sequence[Any],
    told: FinetuneConfig,
) -> list[epath.Path]:
    if entry.source.is_tfds or not examples[0].lines:
        return [write_lines(folder / f"{stem}.txt", [" ".join(tags) for tags in predictions])]
    made: list[epath.Path] = []
    begin, columns = 0, conll_columns(told)
    for source in find_files(entry.source, split):
        # As text: what it was compressed by is no part of the format.
        path = (
            folder
            / f"{entry.name}-{source.name.removesuffix(source.suffix if is_compressed(source.name) else '')}"
        )
        check(
            path not in made,
            where=str(source),
            found="the name of another file that is predicted",
            expected="files of different names",
        )
        count = len(read_conll(source, tags=False, columns=columns))
        write_conll(path, source, predictions[begin : begin + count], columns=columns)
        made.append(path)
        begin += count
    return made
