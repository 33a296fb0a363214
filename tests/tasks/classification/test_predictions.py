from bertjax.tasks.classification.predictions import (
    ClassPrediction,
    LabelSetPrediction,
    NumberPrediction,
    write_predictions,
)
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.tables import read_table


def test_written_predictions_are_a_table_that_is_read_again(tmp_path):
    path = tmp_path / "predictions.tsv"
    examples = [TextExample("7", 'a\t"b"\nc', "d"), TextExample("8", "e")]
    write_predictions(
        path, [ClassPrediction("x", (0.25, 0.75)), ClassPrediction("y", (0.9, 0.1))], examples
    )
    assert [dict(row.values) for row in read_table(path)] == [
        {
            "id": "7",
            "sentence1": 'a "b" c',
            "sentence2": "d",
            "prediction": "x",
            "probability": "0.7500",
        },
        {"id": "8", "sentence1": "e", "sentence2": "", "prediction": "y", "probability": "0.9000"},
    ]
    write_predictions(
        path,
        [LabelSetPrediction(("x", "z"), (0.5, 0.1, 1.0)), LabelSetPrediction((), (0, 0, 0))],
        examples[1:] * 2,
    )
    assert (
        path.read_text()
        == "id\tsentence\tprediction\tprobability\n8\te\tx,z\t0.5000,1.0000\n8\te\t\t\n"
    )
    write_predictions(path, [NumberPrediction(2.5)], examples[1:])
    assert path.read_text() == "id\tsentence\tprediction\n8\te\t2.5\n"
