"""Options for the XLA compiler, given with each program."""

import os
from collections.abc import Mapping

from jax.sharding import Mesh

SCOPED_VMEM = "xla_tpu_scoped_vmem_limit_kib"

# The compiler gives one operation 16 MiB of the on-chip memory, 128 MiB on v5e and 64 MiB on v5p.
# With 32 it computes matrix products of BERT's sizes in larger tiles; with 40 or more too little is
# left to keep arrays there between operations (docs/architecture.md has the figures). A v4's cores
# have no more than 16; to v6e the compiler gives 32 by itself.
SCOPED_VMEM_KIB = {"TPU v5 lite": 32 << 10, "TPU v5": 32 << 10}


def compiler_options(mesh: Mesh, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return `jax.jit`'s `compiler_options` for the devices of `mesh`: XLA's flags by name.

    A limit that the user sets in `LIBTPU_INIT_ARGS` is not changed.
    """
    size = SCOPED_VMEM_KIB.get(mesh.devices.flat[0].device_kind)
    # Other devices get no flag at all: their compilers do not know this one.
    if size is None or SCOPED_VMEM in environment.get("LIBTPU_INIT_ARGS", ""):
        return {}
    return {SCOPED_VMEM: str(size)}
