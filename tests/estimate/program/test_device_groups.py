import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.estimate.program.device_groups import axes_of, parse_groups

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def as_sets(groups):
    return {frozenset(map(int, group)) for group in groups}


def joined(shape, axes):
    """Return the groups that result from joining these axes, built device by device."""
    groups = {}
    for number, place in enumerate(np.ndindex(*shape)):
        groups.setdefault(tuple(x for axis, x in enumerate(place) if axis not in axes), set()).add(
            number
        )
    return {frozenset(group) for group in groups.values()}


@given(sizes, st.data())
def test_all_three_forms_of_one_set_of_groups_read_alike(shape, data):
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True, min_size=1))
    expected = joined(shape, axes)
    listed = (
        "{" + ",".join("{" + ",".join(map(str, sorted(group))) + "}" for group in expected) + "}"
    )
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    width = math.prod(shape[axis] for axis in axes)
    order = ",".join(map(str, rest + axes))
    ranged = f"[{math.prod(shape) // width},{width}]<=[{','.join(map(str, shape))}]T({order})"
    mesh, names = (
        ",".join(f"'a{i}'={n}" for i, n in enumerate(shape)),
        ",".join(f"'a{i}'" for i in axes),
    )
    named = f"mesh[{mesh}] {{{names}}}"
    for text in (listed, ranged, named):
        attributes = (
            f", channel_id=3, replica_groups={text}, use_global_device_ids=true, to_apply=%add"
        )
        assert as_sets(parse_groups(attributes, math.prod(shape))) == expected


@given(sizes, st.data())
def test_groups_that_join_whole_axes_have_their_names(shape, data):
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True, min_size=1))
    groups = np.array([sorted(group) for group in joined(shape, axes)])
    mesh = {f"a{i}": n for i, n in enumerate(shape)}
    # An axis of one device is joined by any group and by none.
    assert axes_of(groups, mesh) == tuple(f"a{i}" for i in sorted(axes) if shape[i] > 1)


def test_a_range_without_a_permutation_and_an_empty_list():
    assert parse_groups("replica_groups=[2,2]<=[4]", 4).tolist() == [[0, 1], [2, 3]]
    assert parse_groups("replica_groups={}, to_apply=%add", 3).tolist() == [[0, 1, 2]]
    assert parse_groups("to_apply=%add", 3).tolist() == [[0, 1, 2]]


def test_part_of_an_axis_is_said_to_be_a_part():
    groups = parse_groups("replica_groups=mesh['a'=8] {'a':(2)2}", 8)
    assert as_sets(groups) == {frozenset(g) for g in ((0, 2), (1, 3), (4, 6), (5, 7))}
    assert axes_of(groups, {"data": 8}) == ("data", "part")


def test_permuted_devices_of_a_mesh():
    groups = parse_groups("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", 4)
    assert as_sets(groups) == {frozenset((0, 2)), frozenset((1, 3))}


def test_an_unknown_form_is_no_silent_answer():
    with pytest.raises(ValueError, match="unknown form"):
        parse_groups("replica_groups=mesh[?]", 4)


def test_a_range_of_several_axes_without_a_permutation_keeps_its_order():
    assert parse_groups("replica_groups=[2,4]<=[2,4]", 8).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
