import jax
import pytest
from jax.errors import JaxRuntimeError

from bertjax.config import MeshConfig
from bertjax.parallel.compiler_options import SCOPED_VMEM, compiler_options
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import replicated


def mesh_of(topology):
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (jax[tpu])")
    from bertjax.estimate.hardware.slices import open_slice

    return make_mesh(MeshConfig(), open_slice(topology).devices)


@pytest.mark.parametrize(
    ("topology", "options"), [("v5e:2x2", {SCOPED_VMEM: "32768"}), ("v6e:2x2", {})]
)
def test_the_chips_that_gain_by_it_get_more_memory_for_an_operation(topology, options):
    assert compiler_options(mesh_of(topology), {}) == options


def test_the_compiler_knows_the_flag_and_heeds_it():
    mesh = mesh_of("v5e:2x2")
    x = jax.ShapeDtypeStruct((8192, 8192), "bfloat16", sharding=replicated(mesh))

    def compile_with(options):
        return jax.jit(lambda x: jax.numpy.tanh(x @ x), compiler_options=options).lower(x).compile()

    compile_with(compiler_options(mesh, {}))
    with pytest.raises(JaxRuntimeError, match="memory space vmem"):
        compile_with({SCOPED_VMEM: "1"})


def test_what_the_user_tells_the_compiler_stands():
    assert (
        compiler_options(mesh_of("v5e:2x2"), {"LIBTPU_INIT_ARGS": f"--{SCOPED_VMEM}=65536"}) == {}
    )


def test_other_devices_get_no_flags_that_their_compilers_do_not_know():
    assert compiler_options(make_mesh(MeshConfig(), jax.devices()[:1]), {}) == {}
