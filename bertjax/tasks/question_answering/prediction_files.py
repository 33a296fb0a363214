"""Files of predicted answers, in the forms that SQuAD's official scripts read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.storage import write_whole
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.answers import SpanPrediction


def write_predictions(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """Write `{id: text}`, which SQuAD's official scripts read; an empty text is "no answer"."""
    pairs = zip(examples, predictions, strict=True)
    _write(path, {example.id: prediction.text for example, prediction in pairs})


def write_n_best(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """Write `{id: [{text, probability, start_logit, end_logit}, ...]}`, the best answer first."""
    answers = {}
    for example, prediction in zip(examples, predictions, strict=True):
        answers[example.id] = [answer._asdict() for answer in prediction.n_best]
    _write(path, answers)


def write_null_odds(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """Write `{id: null_odds}`, the file for `--na-prob-file` of the script of version 2.0.

    Then also set the script's `--na-prob-thresh` to the null threshold, or to a large number: its
    default 1 is meant for probabilities.
    """
    pairs = zip(examples, predictions, strict=True)
    _write(path, {example.id: prediction.null_odds for example, prediction in pairs})


def _write(path: epath.PathLike, values: Mapping[str, Any]) -> None:
    # The file is ASCII, because the official scripts read with the machine's default encoding.
    write_whole(epath.Path(path), (json.dumps(values, indent=2) + "\n").encode())
