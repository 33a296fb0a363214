import shlex
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.interop.checkpoints.drop_patterns import MAX_ADVISED, advice, select

NAMES = [
    "bert.encoder.layer.1.output.dense.weight",
    "bert.encoder.layer.1.adapter.weight",
    "classifier.weight",
    "bert.pooler.weight",
]


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("classifier", [2]),
        ("weight", [0, 1, 2, 3]),
        (".adapter.weight", [1]),
        ("adapter", []),
        ("*adapter*", [1]),
        ("bert.*.weight", [0, 1, 3]),
        ("bert.encoder.layer.?.a[!x]*", [1]),
        ("Classifier", []),
        ("", []),
    ],
)
def test_a_pattern_is_a_beginning_or_an_ending_or_matches_the_whole_name(pattern, expected):
    assert select(NAMES, pattern) == [NAMES[i] for i in expected]


def test_a_beginning_goes_before_an_ending():
    names = ["cls/predictions/output_bias", "output_bias", "output_bias/Adam"]
    assert select(names, "output_bias") == names[1:]
    assert select(names[:1], "output_bias") == names[:1]


LAYERS = [f"bert.encoder.layer.{i}.output.weight" for i in range(12)]


@pytest.mark.parametrize(
    "unwanted, wanted, expected",
    [
        (["classifier.weight", "classifier.bias"], LAYERS, "--drop classifier"),
        ([f"{name}_slot" for name in LAYERS], LAYERS, "--drop _slot"),
        (
            [f"bert.encoder.layer.{i}.adapter.{n}" for i in range(12) for n in ("up", "down")],
            LAYERS,
            "--drop 'bert.encoder.layer.*.adapter*'",
        ),
        (["bert.encoder.layer.12.output.weight"], LAYERS, "--drop bert.encoder.layer.12"),
        (["a.b"], ["a.b.c", "x"], "--drop '[a].b'"),
        (["-x"], ["y"], "--drop '[-]x'"),
        ([f"{c}_head" for c in "abcdefghij"], LAYERS, ""),
        ([""], LAYERS, ""),
    ],
)
def test_the_advice_is_short_and_none_where_it_would_be_long(unwanted, wanted, expected):
    assert advice([*unwanted, *wanted], unwanted, wanted) == expected


names = st.lists(
    st.lists(st.sampled_from(["a", "b", "1", "2", "a*", "[", "-"]), max_size=4).map(".".join),
    unique=True,
    min_size=1,
    max_size=8,
)


@given(names, st.data())
def test_the_advice_taken_word_for_word_selects_what_is_unwanted_and_nothing_wanted(names, data):
    unwanted = [name for name in names if data.draw(st.booleans())]
    wanted = [name for name in names if name not in unwanted]
    words = shlex.split(advice(names, unwanted, wanted))
    if unwanted and words:
        assert words[0] == "--drop"
        selected = {name for pattern in words[1:] for name in select(names, pattern)}
        assert selected == set(unwanted)
        assert len(words) <= 1 + MAX_ADVISED
        assert not any(word.startswith("-") for word in words[1:])
    if unwanted and not words:
        # Only where a name is empty, or has wildcards of its own that match wanted names.
        assert "" in unwanted or any(fnmatchcase(w, u) for u in unwanted for w in wanted)
