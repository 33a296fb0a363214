"""Mistakes on the command line and in files: drawn by a seed, each ends in one line.

`BERTJAX_FUZZ_SEED` chooses other draws; a failure prints the seed, the draw and how to repeat it.
"""

import os
import shutil

import pytest

from tests.cli.fuzz import damage, draws, outcome, workplace

SEED = int(os.environ.get("BERTJAX_FUZZ_SEED", "0"))
LINES, DAMAGES = 600, 400
LIMIT = 300.0  # seconds; on a busy machine a new model takes a minute to compile


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A copy of a workplace as it was made, and the workplace."""
    folder = tmp_path_factory.mktemp("mistakes") / "work"
    workplace.make(folder)
    original = folder.parent / "original"
    # This way round: runs record where their tokenizer is.
    shutil.copytree(folder, original)
    return original, folder


def test_draws_follow_from_the_seed_alone():
    assert list(draws.command_lines(3, 50)) == list(draws.command_lines(3, 60))[:50]
    assert list(draws.damages(3, 50)) == list(draws.damages(3, 60))[:50]
    assert list(draws.command_lines(4, 5)) != list(draws.command_lines(3, 5))
    verbs = {words[0] for words in draws.command_lines(0, 500) if words}
    assert {words[0] for words in draws.BASES} <= verbs
    assert {each.kind for each in draws.damages(0, 500)} == set(draws.KINDS)


@pytest.mark.slow
def test_no_command_line_ends_in_a_traceback(places):
    original, folder = places
    faults = []
    for number, words in enumerate(draws.command_lines(SEED, LINES)):
        ended = outcome.run(words, folder, limit=LIMIT)
        damage.restore(original, folder)
        if ended.fault:
            faults.append(f"seed {SEED}, number {number}: {words!r}: {ended.fault}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_no_damaged_file_ends_in_a_traceback(places):
    original, folder = places
    faults = []
    for number, drawn in enumerate(draws.damages(SEED, DAMAGES)):
        path = damage.apply(folder, drawn)
        ended = outcome.run(drawn.words, folder, limit=LIMIT)
        damage.restore(original, folder)
        if ended.fault:
            where = f"seed {SEED}, number {number}: {path.name} ({drawn.kind})"
            faults.append(f"{where}: {' '.join(drawn.words)}: {ended.fault}")
    assert not faults, "\n".join(faults)
