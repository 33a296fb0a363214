import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.training.integrity.array_sums import part_sums
from bertjax.training.integrity.parts import copies_of, on_host, sums_by_copy


@pytest.mark.parametrize("spec", [(), ("a",), ("a", "b"), (None, "b"), (("a", "b"),)])
def test_an_array_has_the_same_sums_wherever_its_parts_lie(spec):
    values = np.random.default_rng(0).standard_normal((16, 8), np.float32)
    mesh = jax.make_mesh((2, 4), ("a", "b"))
    array = jax.device_put(values, NamedSharding(mesh, PartitionSpec(*spec)))
    # This one process has each part once, however many devices hold it.
    assert copies_of(array) == 1
    assert sums_by_copy([array, values]) == [{0: part_sums(values, (0, 0)).tolist()}] * 2


def test_looking_at_an_array_leaves_no_copy_of_it_on_the_host():
    """On an accelerator the copy of a model would stay as long as the model does."""
    array = jax.device_put(np.arange(4.0, dtype=np.float32), jax.devices()[3])
    assert on_host(array).tolist() == [0, 1, 2, 3]
    assert array._npy_value is None
