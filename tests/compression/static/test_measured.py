import json
import re

import pytest

import bertjax
from bertjax.compression.gate import BoundError
from bertjax.compression.static.distill_static import distill_static
from bertjax.errors import UserError
from tests.compression.static.teachers import save_teacher, wordpiece

# Rated by how many words they share, which the means of a random table tell too.
PAIRS = """5\tthe cat sees the dog\tthe cat sees the dog
3.5\tthe cat sees the dog\tthe cat sees the bird
1\tthe cat sees the dog\tno one good
0\tfish bad\tthe cat sees
\tno score\tunrated
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "run", wordpiece())


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    return str(tmp_path / "pairs.tsv")


@pytest.mark.slow
def test_the_card_has_figures_bytes_and_latency_of_both(run, pairs, tmp_path):
    facts = distill_static(
        run, tmp_path / "out", sts=pairs, max_loss="90%", seconds=0.1, license="mit"
    )
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    before, after = card["before"], card["after"]
    assert after["figure"]["name"] == "spearman"
    assert after["figure"]["count"] == before["figure"]["count"] == 4
    assert after["figure"]["value"] == facts.card.after.figure.value
    assert after["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size == facts.bytes
    shapes = [(1, 16), (32, 16)]  # the teacher has 16 positions
    for variant in (before, after):
        assert [(each["batch_size"], each["length"]) for each in variant["latency"]] == shapes
    assert card["settings"]["sts"] == pairs
    readme = (tmp_path / "out" / "README.md").read_text()
    assert readme.startswith('---\nlicense: "mit"\ntags: ["bertjax", "sentence-transformers"')
    assert "spearman" in readme
    # The card changes nothing for those who read the table.
    assert bertjax.embed(tmp_path / "out", ["the cat"]).shape == (1, facts.dimensions)


def test_without_seconds_the_card_has_no_latency(run, pairs, tmp_path):
    facts = distill_static(run, tmp_path / "out", sts=pairs, seconds=0)
    assert facts.card.before.latency == facts.card.after.latency == ()
    assert "Latency is the median" not in (tmp_path / "out" / "README.md").read_text()


def test_a_table_that_loses_more_than_the_bound_is_not_left(run, pairs, tmp_path):
    with pytest.raises(BoundError) as error:
        # One number cannot order four pairs.
        distill_static(run, tmp_path / "out", dimensions=1, sts=pairs, max_loss="0.1%")
    assert re.fullmatch(
        r"table of 1 numbers: spearman -?0\.\d{4}, [\d.]+ % below [\d.]+; allowed 0\.1 %",
        str(error.value),
    )
    assert error.value.status == 3
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_loss": "5%"}, "--max-loss: found no --sts, expected a file of rated pairs"),
        ({"sts": "pairs.tsv", "max_loss": "0.5"}, "--max-loss: found '0.5', expected a percentage"),
        ({"sts": "pairs.tsv", "seconds": -1}, "--seconds: found -1, expected 0 to 3600"),
        ({"sts": "absent.tsv"}, "absent.tsv: cannot be read as a file of rated pairs"),
        ({"sts": "bad.tsv"}, "bad.tsv:1: found 2 columns, expected 3: score, sentence, sentence"),
        ({"license": "all rights"}, "--license: found 'all rights', expected an identifier"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_teacher_is_loaded(
    run, pairs, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.tsv").write_text("5\tthe cat\n")
    with pytest.raises(UserError, match=re.escape(message)):
        distill_static(run, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
