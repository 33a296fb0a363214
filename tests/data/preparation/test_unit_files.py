import contextlib
import json
from collections import Counter

import pytest
from etils import epath

from bertjax.data.preparation.prepare import prepare
from bertjax.data.preparation.unit_files import (
    DONE,
    is_whole,
    read_counts,
    remove_unfinished_units,
    write_done,
)
from bertjax.errors import UserError
from tests.data.preparation.corpora import config_of, digests


@pytest.fixture
def unit(tmp_path):
    """A work unit with two parts, in `tmp_path/.work/unit`."""
    unit = epath.Path(tmp_path) / ".work" / "unit"
    unit.mkdir(parents=True)
    for number in range(2):
        (unit / f"part-0000{number}").write_bytes(b"x" * 10)
    (unit / "signatures-00000").write_bytes(b"y")
    write_done(unit, Counter(tokens=3))
    return unit


def test_a_unit_is_whole_with_all_files_that_it_names_and_no_others(unit, tmp_path):
    assert is_whole(unit)
    assert read_counts(str(tmp_path), ["unit"]) == {"tokens": 3}
    # What another copy of the same work is writing is none of them.
    (unit / "part-00001.0123456789ab.unfinished").write_bytes(b"")
    assert is_whole(unit)
    for name, content, message in [
        ("part-00001", None, "found no such file, expected 10 bytes, as was written; the same command"),
        ("part-00001", b"x", "found 1 bytes, expected 10 bytes"),
        ("part-00002", b"xx", "found 2 bytes, expected no such file"),
        ("signatures-00000", None, "found no such file, expected 1 bytes"),
    ]:  # fmt: skip
        path = unit / name
        before = path.read_bytes() if path.exists() else None
        path.unlink() if content is None else path.write_bytes(content)
        assert not is_whole(unit)
        with pytest.raises(UserError, match=f"{name}: {message}"):
            read_counts(str(tmp_path), ["unit"])
        path.unlink(missing_ok=True) if before is None else path.write_bytes(before)
    assert is_whole(unit)


def test_units_that_kills_have_left_are_removed_and_whole_ones_stay(unit, tmp_path):
    remove_unfinished_units(epath.Path(tmp_path), ["unit", "none"])
    assert is_whole(unit)
    (unit / "part-00000").unlink()
    remove_unfinished_units(epath.Path(tmp_path), ["unit"])
    assert not unit.exists()


def test_a_unit_of_an_earlier_version_names_no_files_and_is_made_anew(unit):
    (unit / DONE).write_text(json.dumps({"tokens": 3}))
    assert not is_whole(unit)


def test_a_part_that_is_lost_on_the_way_is_told_and_made_again(corpus, tmp_path):
    config, folder = config_of(corpus, num_shards=4), tmp_path / "out"

    @contextlib.contextmanager
    def losing():
        def run(stage, items, progress):
            for item in items:
                item.run()
            if stage == "tokenize":
                next(folder.glob(".work/*/part-00000")).unlink()

        yield run

    with pytest.raises(UserError, match="part-00000: found no such file, expected"):
        prepare(config, folder, runner=losing())
    prepare(config, folder)
    prepare(config, tmp_path / "whole")
    assert digests(folder) == digests(tmp_path / "whole")


def test_a_shard_that_is_lost_on_the_way_is_told_and_made_again(corpus, tmp_path):
    config, folder = config_of(corpus, num_shards=4), tmp_path / "out"

    @contextlib.contextmanager
    def losing():
        def run(stage, items, progress):
            for item in items:
                item.run()
            if stage == "write":
                shard = next(folder.glob("*.tfrecord"))
                shard.write_bytes(shard.read_bytes()[:-1])

        yield run

    with pytest.raises(UserError, match=r"tfrecord: found .* bytes, expected .* bytes, as was"):
        prepare(config, folder, runner=losing())
    prepare(config, folder)
    prepare(config, tmp_path / "whole")
    assert digests(folder) == digests(tmp_path / "whole")
