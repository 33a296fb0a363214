"""`python -m tests.multihost.compiled RUN`: a program over all devices of a job; prints where
programs are kept and how many were found there.
"""

import sys

from bertjax.parallel import failures


def main(run):
    import jax
    import jax.numpy as jnp
    from etils import epath
    from jax._src import monitoring
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from bertjax.parallel import compile_cache

    hits = []
    monitoring.register_event_listener(
        lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None
    )
    with failures.end_together():
        folder = compile_cache.start(epath.Path(run))
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
        layout = NamedSharding(mesh, PartitionSpec("data"))
        total = jax.jit(
            lambda: jnp.sum(jax.lax.with_sharding_constraint(jnp.arange(8.0), layout))
        )()
        print(folder, len(hits), float(total))


if __name__ == "__main__":
    main(*sys.argv[1:])
