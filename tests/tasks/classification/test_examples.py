import json
import logging

import pyarrow as pa
import pytest
from pyarrow import parquet

from bertjax.errors import UserError
from bertjax.tasks.classification.examples import read_examples
from bertjax.tasks.classification.glue import glue_task
from bertjax.tasks.classification.labels import labels_of
from bertjax.tasks.examples import TextExample
from bertjax.tasks.files.splits import DataLocation

pytestmark = pytest.mark.quick


def table(folder, name, *rows):
    (folder / name).write_text("".join("\t".join(row) + "\n" for row in rows))
    return DataLocation(str(folder))


def read(folder, name, *rows, split="train", **options):
    return [
        (e.id, e.text, e.pair, e.label)
        for e in read_examples(table(folder, name, *rows), split, **options)
    ]


def error_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        read_examples(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("name,rows,result", [
    ("cola", [("gj04", "0", "*", "bad")], ("0", "bad", None, "unacceptable")),
    ("sst2", [("sentence", "label"), ("good", "1")], ("0", "good", None, "positive")),
    ("mrpc", [("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), ("1", "7", "8", "a", "b")],
     ("0", "a", "b", "equivalent")),
    ("stsb", [("index", "genre", "sentence1", "sentence2", "score"), ("5", "news", "a", "b", "2.5")], ("5", "a", "b", 2.5)),
    ("qqp", [("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), ("9", "1", "2", "a", "b", "0")],
     ("9", "a", "b", "not_duplicate")),
    ("mnli", [("index", "sentence1_parse", "sentence1", "sentence2", "label1", "gold_label"),
              ("3", "(", "a", "b", "neutral", "entailment")], ("3", "a", "b", "entailment")),
    ("qnli", [("index", "question", "sentence", "label"), ("4", "a", "b", "not_entailment")],
     ("4", "a", "b", "not_entailment")),
    ("rte", [("index", "sentence1", "sentence2", "label"), ("4", "a", "b", "entailment")], ("4", "a", "b", "entailment")),
    ("wnli", [("index", "sentence1", "sentence2", "label"), ("4", "a", "b", "1")], ("4", "a", "b", "entailment")),
])  # fmt: skip
def test_glues_own_files_are_read(tmp_path, name, rows, result):
    assert read(tmp_path, "train.tsv", *rows, task=glue_task(name)) == [result]


def test_colas_test_set_has_a_header_and_no_labels(tmp_path):
    rows = [("index", "sentence"), ("0", "one"), ("1", "two")]
    result = read(
        tmp_path, "test.tsv", *rows, split="test", task=glue_task("cola"), unlabelled=True
    )
    assert result == [("0", "one", None, None), ("1", "two", None, None)]
    message = error_of(DataLocation(str(tmp_path)), "test", task=glue_task("cola"))
    assert (
        "test.tsv, line 2: found the columns index, sentence, expected label (or finetune.label_column"
        in message
    )


def test_fields_of_tfds_in_json_are_a_tasks_too(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"premise": "a", "hypothesis": "b", "label": 2, "idx": 6}\n'
    )
    (result,) = read_examples(DataLocation(str(tmp_path)), "train", task=glue_task("mnli"))
    assert result == TextExample("6", "a", "b", "contradiction")


def test_mnlis_dashes_are_left_out_and_counted(tmp_path, caplog):
    rows = [("sentence1", "sentence2", "gold_label"), ("a", "b", "-"), ("c", "d", "neutral")]
    with caplog.at_level(logging.INFO, "bertjax"):
        result = read(
            tmp_path, "dev_matched.tsv", *rows, split="validation_matched", task=glue_task("mnli")
        )
    assert result == [("1", "c", "d", "neutral")]
    message = f"{tmp_path}, split validation_matched: examples without a label, which were left out: 1 of 2"
    assert caplog.messages == [message]
    kept = read_examples(
        DataLocation(str(tmp_path)), "validation_matched", task=glue_task("mnli"), unlabelled=True
    )
    assert [e.label for e in kept] == [None, "neutral"]


def test_qqps_broken_lines_are_left_out_and_counted_and_others_are_errors(tmp_path, caplog):
    rows = [("id", "question1", "question2", "is_duplicate"), ("0", "a"), ("1", "a", "b", "1")]
    with caplog.at_level(logging.INFO, "bertjax"):
        assert read(tmp_path, "train.tsv", *rows, task=glue_task("qqp")) == [
            ("1", "a", "b", "duplicate")
        ]
    assert caplog.messages == [
        f"lines with a wrong number of columns, which were left out: {tmp_path / 'train.tsv'} 1"
    ]
    assert "line 2: found 2 columns, expected 4" in error_of(
        DataLocation(str(tmp_path)), "train", label_column="id"
    )


def test_several_files_are_joined_and_ids_say_from_which(tmp_path):
    for name, label in (("rte1_dev", "TRUE"), ("rte1_test", "FALSE")):
        xml = f'<c><pair id="1" value="{label}"><t>a</t><h>b</h></pair></c>'
        (tmp_path / f"{name}.xml").write_text(xml)
    source = DataLocation(str(tmp_path), {"train": ("rte1_dev.xml", "rte1_test.xml")})
    assert read_examples(source, "train", task=glue_task("rte")) == [
        TextExample("rte1_dev:1", "a", "b", "entailment"),
        TextExample("rte1_test:1", "a", "b", "not_entailment"),
    ]


def test_any_table_gives_classes_numbers_or_several_classes(tmp_path):
    rows = [("text", "label", "score", "tags"), ("a", " x ", "1e1", "p, q,"), ("b", "y", "-2", "")]
    table(tmp_path, "train.tsv", *rows)
    source = DataLocation(str(tmp_path))
    assert [e.label for e in read_examples(source, "train")] == ["x", "y"]
    numbers = read_examples(source, "train", label_column="score", label_type="number")
    assert [e.label for e in numbers] == [10.0, -2.0]
    several = read_examples(source, "train", label_column="tags", label_type="classes")
    assert [e.label for e in several] == [("p", "q"), ()]
    pair = read_examples(source, "train", text_columns=("tags", "text"))
    assert [(e.text, e.pair) for e in pair] == [("p, q,", "a"), ("", "b")]


def test_labels_of_json_are_text(tmp_path):
    lines = [{"text": "a", "label": label} for label in (3, True, "x", None)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [e.label for e in read_examples(DataLocation(str(tmp_path)), "train")] == [
        "3",
        "true",
        "x",
    ]
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": ["y", 2]}\n')
    (result,) = read_examples(DataLocation(str(tmp_path)), "train", label_type="classes")
    assert result.label == ("y", "2")


@pytest.mark.parametrize("name,content", [
    ("train.tsv", "text\tlabel\na\tx\nb\tNaN\nc\tnan\nd\t\ne\tNone\n"),
    ("train.csv", "text,label\na,x\nb,NaN\nc,nan\nd,\ne,None\n"),
    ("train.json", '[{"text": "a", "label": "x"}, {"text": "b", "label": NaN}, {"text": "c", "label": null},'
                   ' {"text": "d", "label": ""}, {"text": "e", "label": "None"}]'),
])  # fmt: skip
def test_missing_labels_of_every_format_are_left_out_and_counted(tmp_path, caplog, name, content):
    (tmp_path / name).write_text(content)
    with caplog.at_level(logging.INFO, "bertjax"):
        examples = read_examples(DataLocation(str(tmp_path)), "train")
    assert [(e.text, e.label) for e in examples] == [("a", "x"), ("e", "None")]
    assert caplog.messages == [
        f"{tmp_path}, split train: examples without a label, which were left out: 3 of 5"
    ]


@pytest.mark.parametrize("label_type,labels", [("class", ["1", "0"]), ("number", [1.0, 0.0])])
def test_a_column_of_parquet_with_a_missing_number_is_one_of_whole_numbers(
    tmp_path, label_type, labels
):
    table = pa.table({"text": ["a", "b", "c", "d"], "label": [1.0, float("nan"), None, 0.0]})
    parquet.write_table(table, tmp_path / "train.parquet")
    examples = read_examples(DataLocation(str(tmp_path)), "train", label_type=label_type)
    assert [e.label for e in examples] == labels


def test_glue_as_the_hub_has_it_is_read_with_the_names_of_its_classes(tmp_path):
    names = {"names": ["entailment", "not_entailment"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": names}}})}
    for split, labels in (("train", [1, 0]), ("validation", [0, 0]), ("test", [-1, -1])):
        columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": labels, "idx": [7, 8]}
        table = pa.table(columns).replace_schema_metadata(metadata)
        parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    source, rte = DataLocation(str(tmp_path)), glue_task("rte")
    assert read_examples(source, "train", task=rte) == [
        TextExample("7", "a", "c", "not_entailment"),
        TextExample("8", "b", "d", "entailment"),
    ]
    assert [e.label for e in read_examples(source, "validation", task=rte)] == ["entailment"] * 2
    unlabelled = read_examples(source, "test", task=rte, unlabelled=True)
    assert [e.label for e in unlabelled] == [None, None]


def test_lists_of_parquet_are_labels_by_place_and_by_name(tmp_path):
    table = pa.table({"text": ["a", "b"], "label": [[0, 1, 1], [0, 0, 0]], "l": [["x"], []]})
    parquet.write_table(table, tmp_path / "train.parquet")
    source = DataLocation(str(tmp_path))
    places = read_examples(source, "train", label_type="classes")
    assert [(e.label, e.classes) for e in places] == [
        (("1", "2"), ("0", "1", "2")),
        ((), ("0", "1", "2")),
    ]
    names = read_examples(source, "train", label_type="classes", label_column="l")
    assert [(e.label, e.classes) for e in names] == [(("x",), ()), ((), ())]


def test_capitals_of_the_usual_columns_do_not_matter_but_those_of_given_ones_do(tmp_path):
    (tmp_path / "train.csv").write_text("Id,Text,Label\n4,a,x\n")
    source = DataLocation(str(tmp_path))
    (example,) = read_examples(source, "train")
    assert (example.text, example.label) == ("a", "x")
    assert "found the columns Id, Text, Label, expected label" in error_of(
        source, "train", label_column="label"
    )
    (tmp_path / "train.csv").write_text("Text,TEXT,label\na,b,x\n")
    assert "found the columns Text, TEXT, label, expected" in error_of(source, "train")


def test_labels_come_before_the_texts_of_raw_trec(tmp_path):
    (tmp_path / "train_5500.label").write_bytes(
        "DESC:manner Qué ?\nNUM:date When ?\n".encode("latin-1")
    )
    files = {"train": ("train_5500.label",)}
    source = DataLocation(str(tmp_path), files, encoding="latin-1", form="label_text")
    assert [(e.text, e.label) for e in read_examples(source, "train")] == [
        ("Qué ?", "DESC:manner"),
        ("When ?", "NUM:date"),
    ]
    coarse = read_examples(source, "train", label_column="coarse_label")
    assert labels_of(coarse) == ("DESC", "NUM")


@pytest.mark.parametrize("row,options,message", [
    ({"body": "a", "label": 1}, {}, "line 1: found the columns body, label, expected sentence1 and sentence2; or sentence; or text"),
    ({"text": "a", "gold": 1}, {}, "line 1: found the columns text, gold, expected label (or finetune.label_column"),
    ({"text": 5, "label": 1}, {}, "line 1, text: found a value of type int, expected text"),
    ({"text": "a", "label": ["x"]}, {}, "line 1: found the list ['x'], expected one class (or finetune.label_type classes)"),
    ({"text": "a", "label": {}}, {}, "line 1: found a label of type dict, expected text or a number"),
    ({"text": "a", "label": "inf"}, {"label_type": "number"}, "line 1: found the label 'inf', expected a number"),
    ({"text": "a", "label": [1.0]}, {"label_type": "number"}, "line 1: found the label [1.0], expected a number"),
    ({"text": "a", "label": True}, {"label_type": "number"}, "line 1: found the label True, expected a number"),
    ({"text": "a", "label": 1}, {"text_columns": ("body",)}, "line 1: found the columns text, label, expected 'body' among them"),
    ({"text": "a", "label": 1}, {"text_columns": ("text",) * 3}, "finetune.text_columns: found text, text, text, expected one or two"),
    ({"text": "a", "label": ""}, {}, "split train: found no example with a label, expected one or more"),
])  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(tmp_path, row, options, message):
    (tmp_path / "train.json").write_text(json.dumps(row))
    assert message in error_of(DataLocation(str(tmp_path)), "train", **options)


@pytest.mark.parametrize("name,columns,files,counts", [
    ("cola", (), {"train": ("in_domain_train.tsv",), "validation": ("in_domain_dev.tsv",)}, (8551, 527)),
    ("sst2", ("sentence", "label"), {}, (6920, 872, 1821)),
    ("mrpc", (), {"validation": ("msr_paraphrase_test.txt",)}, (4076, 1725, 1725)),
    ("rte", (), {"train": ("rte1_dev.xml", "rte1_test.xml", "rte2_dev.xml", "rte2_test.xml", "rte3_dev.xml"),
                 "validation": ("rte3_test.xml",)}, (3367, 800)),
    ("sts", ("score", "sentence1", "sentence2"), {"train": ("2015.train.tsv",), "validation": ("2015.test.tsv",)},
     (3000, 6750)),
])  # fmt: skip
def test_real_files_are_read_whole(shared_data, name, columns, files, counts):
    source = DataLocation(str(shared_data / "tasks" / name), files, columns)
    task = glue_task("stsb" if name == "sts" else name)
    for split, count in zip(("train", "validation", "test"), counts, strict=False):
        result = read_examples(source, split, task=task)
        assert len(result) == count
        assert len({e.id for e in result}) == count
        assert all(e.text and (e.pair is None) == (name in ("cola", "sst2")) for e in result)


def test_real_chinese_titles_are_read_with_ten_classes(shared_data):
    source = DataLocation(str(shared_data / "tasks" / "thucnews_zh"), columns=("text", "label"))
    result = read_examples(source, "validation")
    assert len(result) == 10_000
    assert labels_of(result) == tuple(map(str, range(10)))
