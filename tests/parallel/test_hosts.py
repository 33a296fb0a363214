import numpy as np

from bertjax.config import MeshConfig
from bertjax.parallel.hosts import global_batch, process_rows
from bertjax.parallel.mesh import make_mesh


def test_one_process_holds_every_row_and_each_device_its_part():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    assert process_rows(mesh, 16) == slice(0, 16)
    rows = np.arange(48).reshape(16, 3)
    made = global_batch(mesh, {"x": rows}, 16)["x"]
    assert np.array_equal(made, rows)
    assert sorted(shard.data.shape for shard in made.addressable_shards) == [(2, 3)] * 8
