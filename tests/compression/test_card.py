"""The card has the same content in JSON and Markdown, whatever the names in it are."""

import json

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.compression.card import (
    Card,
    Variant,
    check_license,
    license_of,
    readme_text,
    table_lines,
    write_card,
)
from bertjax.compression.figures import Figure
from bertjax.compression.latency import Latency
from bertjax.errors import UserError


def variant(name, value, size, median):
    latency = (Latency(1, 32, median, 2 * median, 100), Latency(32, 128, 9 * median, 90.0, 7))
    figure = Figure("accuracy", value, True, "sst2: validation", 872)
    return Variant(name, "onnxruntime 1.32.0", size, figure, latency)


def card(**changes):
    values = {
        "title": "run, int8 per channel",
        "command": "bertjax quantize runs/sst2 --to small",
        "source": "runs/sst2",
        "settings": {"bits": 8},
        "data": ["sst2: validation"],
        "before": variant("float32", 0.92, 90_300_000, 6.0),
        "after": variant("int8 per channel", 0.9165, 22_700_000, 2.0),
        "max_loss": 0.005,
        "license": "apache-2.0",
        "threads": 2,
        "machine": "a CPU (avx512_vnni)",
    }
    return Card(**values | changes)


def test_the_table_compares_bytes_figure_and_latency():
    rows = [" ".join(line.split()) for line in table_lines(card())]
    assert rows == [
        "float32 int8 per channel",
        "bytes 90,300,000 22,700,000 25.1 %",
        "accuracy 0.9200 0.9165 0.38 % worse",
        "ms, batch 1, length 32 6.00 (12.00) 2.00 (4.00) 3.00 times as fast",
        "ms, batch 32, length 128 54.00 (90.00) 18.00 (90.00) 3.00 times as fast",
    ]


def test_both_files_are_written_and_agree(tmp_path):
    write_card(epath.Path(tmp_path), card(notes=("Kept in float: encoder/layers/0/mlp/up.",)))
    values = json.loads((tmp_path / "card.json").read_text())
    assert values["after"]["figure"]["value"] == 0.9165
    assert values["after"]["latency"][0]["median_ms"] == 2.0
    assert values["loss"] == pytest.approx(0.0038, abs=1e-5)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith('---\nlicense: "apache-2.0"\ntags: ["bertjax"]\nmetrics: ["accuracy"]\n')
    for part in (
        "| bytes | 90,300,000 | 22,700,000 | 25.1 % |",
        "    bertjax quantize runs/sst2 --to small",
        "Kept in float: encoder/layers/0/mlp/up.",
        "A loss of at most 0.5 % was allowed.",
        "with 2 threads, 7 to 100 calls a shape, on a CPU (avx512_vnni).",
        "apache-2.0, as stated for the model it was made of.",
    ):
        assert part in text


LINES = st.text(alphabet=st.sampled_from('ab\n\r|#-:"\\ \u2028'), max_size=20)


@given(LINES, LINES, LINES)
def test_no_name_adds_a_line_or_a_column(title, source, value):
    plain = readme_text(card(title="t", source="s", settings={"v": "v"})).split("\n")
    text = readme_text(card(title=title, source=source, settings={value: value})).split("\n")
    assert len(text) == len(plain)
    rows = [line.replace("\\|", "") for line in text if line.startswith("| ")]
    assert {line.count("|") for line in rows} <= {3, 5}


def test_the_front_matter_is_yaml():
    yaml = pytest.importorskip("yaml")
    front = readme_text(card(tags=("onnx", "a: b"))).split("---\n")[1]
    expected = {"license": "apache-2.0", "tags": ["bertjax", "onnx", "a: b"]}
    assert yaml.safe_load(front) == {**expected, "metrics": ["accuracy"]}


@pytest.mark.parametrize(
    ("content", "license"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# x\nlicense: mit\n", "apache-2.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("---\nlanguage: en\n---\nlicense: mit\n", "unknown"),
        ("license: mit\n", "unknown"),
        ("---\nlicense: [a, b]\n---\n", "unknown"),
        (f"---\nlicense: {'x' * 70}\n---\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_licence_is_that_of_the_source(tmp_path, content, license):
    assert license_of(epath.Path(tmp_path)) == "unknown"
    (tmp_path / "README.md").write_text(content)
    assert license_of(epath.Path(tmp_path)) == license


def test_a_licence_that_is_no_identifier_is_refused():
    check_license("cc-by-sa-4.0")
    with pytest.raises(UserError, match="--license: found 'all rights', expected an identifier"):
        check_license("all rights")
