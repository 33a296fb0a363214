import numpy as np

from bertjax.compression.runtimes.programs import StaticProgram
from bertjax.inference.static_table import read_static_table
from tests.inference.test_static_table import put


def test_a_table_gives_the_vectors_of_rows_without_their_padding(tmp_path):
    program = StaticProgram(put(tmp_path), threads=1)
    table = read_static_table(tmp_path)
    ids = np.array([[8, 9, 7, 0, 0], [10, 11, 12, 13, 14], [0, 0, 0, 0, 0]], np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.int32)
    inputs = {"input_ids": ids, "input_mask": mask, "segment_ids": np.zeros_like(ids)}
    found = program.arrays(program.run(program.prepare(inputs), ["vectors"]))["vectors"]
    flat = np.array([8, 9, 7, 10, 11, 12, 13, 14], np.int32)
    np.testing.assert_array_equal(found, table.text_vectors(flat, np.array([0, 3, 8, 8])))
    assert program.outputs == ("vectors",)
    assert program.version == f"numpy {np.__version__}"
