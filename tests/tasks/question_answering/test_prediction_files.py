"""Files of predicted answers: they have what the official scripts read."""

import json

from etils import epath

from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.answers import SpanAnswer, SpanPrediction
from bertjax.tasks.question_answering.prediction_files import (
    write_n_best,
    write_null_odds,
    write_predictions,
)


def test_what_is_written_is_what_the_official_scripts_read(tmp_path):
    examples = [QuestionExample("a", "?", "豹 b", ()), QuestionExample("b", "?", "x", ())]
    answers = (SpanAnswer("豹", 0.75, 2.0, 1.5), SpanAnswer("", 0.25, 1.0, 1.4))
    predictions = [
        SpanPrediction("豹", 0.75, -1.1, answers),
        SpanPrediction("", 1.0, 3.0, answers[1:]),
    ]
    for write in (write_predictions, write_n_best, write_null_odds):
        write(epath.Path(tmp_path) / write.__name__, examples, predictions)
    read = {path.name: json.loads(path.read_text("ascii")) for path in tmp_path.iterdir()}
    best = [
        {"text": "豹", "probability": 0.75, "start_logit": 2.0, "end_logit": 1.5},
        {"text": "", "probability": 0.25, "start_logit": 1.0, "end_logit": 1.4},
    ]
    assert read == {
        "write_predictions": {"a": "豹", "b": ""},
        "write_n_best": {"a": best, "b": best[1:]},
        "write_null_odds": {"a": -1.1, "b": 3.0},
    }
