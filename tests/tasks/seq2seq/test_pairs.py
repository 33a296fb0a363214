"""Pairs of texts in files."""

import pytest

from bertjax.errors import UserError
from bertjax.tasks.examples import PairExample
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.seq2seq.pairs import read_pairs


@pytest.mark.parametrize(
    "name, content",
    [
        ("train.tsv", "a b\tc \nd\t\n"),
        ("train.tsv", "source\ttarget\na b\tc \nd\t\n"),
        ("train.tsv", "target\tid\tsource\nc \t1\ta b\n\t2\td\n"),
        (
            "train.jsonl",
            '{"source": "a b", "target": "c "}\n{"id": 2, "source": "d", "target": ""}\n',
        ),
    ],
)
def test_pairs_are_read_from_tables_and_json(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    result = read_pairs(DataLocation(str(tmp_path)), "train", targets=True)
    assert [(pair.source, pair.target) for pair in result] == [("a b", "c "), ("d", "")]
    if "id" in content.split("\n")[0]:
        assert [pair.id for pair in result] == ["1", "2"]


def test_pairs_are_read_from_parallel_files_line_by_line(tmp_path):
    (tmp_path / "dev.src").write_bytes("\ufeffa b\r\n\nc\u2028d\n".encode())
    (tmp_path / "dev.tgt").write_bytes(b"x\ny\nz")
    expected = [
        PairExample("1", "a b", "x"),
        PairExample("2", "", "y"),
        PairExample("3", "c\u2028d", "z"),
    ]
    assert read_pairs(DataLocation(str(tmp_path)), "validation", targets=True) == expected
    named = DataLocation(str(tmp_path), {"test": ("dev.src", "dev.tgt")})
    assert read_pairs(named, "test", targets=True) == expected
    (tmp_path / "test.src").write_text("a\n")
    assert read_pairs(DataLocation(str(tmp_path)), "test", targets=False) == [PairExample("1", "a")]


def test_columns_are_found_by_their_names_and_targets_may_be_missing_in_prediction(tmp_path):
    (tmp_path / "train.tsv").write_text("de\ten\nja\tyes\n")
    (tmp_path / "test.jsonl").write_text('{"de": "nein"}\n')
    source = DataLocation(str(tmp_path))
    assert read_pairs(source, "train", targets=True, texts=("de", "en")) == [
        PairExample("2", "ja", "yes")
    ]
    assert read_pairs(source, "train", targets=True, texts=("en", "de")) == [
        PairExample("2", "yes", "ja")
    ]
    assert read_pairs(source, "test", targets=False, texts=("de", "en")) == [
        PairExample("1", "nein")
    ]


@pytest.mark.parametrize(
    "files, message",
    [
        (
            {"train.tsv": "a\tb\nc\n"},
            "train.tsv, line 2: found 1 columns, expected 2 (source, target)",
        ),
        (
            {"train.tsv": "a\tb\nc\td\te\n"},
            "train.tsv, line 2: found 3 columns, expected 2 (source, target)",
        ),
        ({"train.tsv": ""}, "split train: found no row, expected one or more"),
        (
            {"train.jsonl": '{"source": "a"}\n'},
            "train.jsonl, line 1: found the columns source, expected 'target' among them",
        ),
        (
            {"train.jsonl": '{"source": "a", "target": "b"}\n{"source": 1, "target": "b"}\n'},
            "train.jsonl, line 2: source: found a value of type int, expected text",
        ),
        (
            {"train.jsonl": '{"source": "a", "target": null}\n'},
            "train.jsonl, line 1: target: found a value of type NoneType, expected text",
        ),
        ({"train.src": "a\nb\n", "train.tgt": "a\n"}, "train.tgt: found 1 lines, expected 2, as "),
        (
            {"train.src": "a\n"},
            "train.src: found 1 file, expected a file of sources (.src), and one of targets (.tgt)",
        ),
        ({"train.src": "", "train.tgt": ""}, "train.src: found no line, expected one or more"),
        (
            {"train.src": b"a\n\xff\n", "train.tgt": "a\nb\n"},
            "train.src, line 2: found the byte 0xff, which is not UTF-8, expected UTF-8",
        ),
        ({}, "split train: found none, expected train.*"),
    ],
)
def test_pairs_that_cannot_be_read_are_named_with_their_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        read_pairs(DataLocation(str(tmp_path)), "train", targets=True)
    assert message in str(raised.value)
