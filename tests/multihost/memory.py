"""`python -m tests.multihost.memory RUN save|restore`: what a process of a job holds at most while
it does so.

Prints a line: the bytes of the whole state, of this process's part, and the peak of its resident
memory above what it held before. The state has 31 million parameters, cut over all devices (fsdp).
"""

import json
import sys

from bertjax.parallel import failures, hosts


def resident(what):
    """`VmRSS`, what this process holds now, or `VmHWM`, the most since it was last cleared; bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))


def main(run, doing):
    import jax
    from etils import epath

    from bertjax.config import to_dict
    from bertjax.parallel.mesh import make_mesh
    from bertjax.training import checkpoint
    from bertjax.training.step import abstract_state, init_state
    from tests.factory import small_config

    with failures.end_together():
        model = {
            "vocab_size": 8192,
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
        }
        config = small_config(
            mesh={"data": 1, "fsdp": -1}, model={**model, "intermediate_size": 2048}
        )
        target = abstract_state(config, make_mesh(config.mesh))
        checkpoints = checkpoint.Checkpoints(epath.Path(run), 1)
        if doing == "save":
            layouts = jax.tree.map(lambda leaf: leaf.sharding, target)
            state = jax.block_until_ready(
                jax.jit(lambda: init_state(config), out_shardings=layouts)()
            )
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = resident("VmRSS")
        if doing == "save":
            checkpoints.save(1, state, {"config": to_dict(config)}, None)
            checkpoints.wait()
        else:
            state = jax.block_until_ready(checkpoints.restore(1, target))
        grown = resident("VmHWM") - before
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        mine = sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(state)
            for shard in leaf.addressable_shards
        )
        checkpoints.close()
        print(
            json.dumps(
                {"place": hosts.process_name(), "whole": whole, "part": mine, "grown": grown}
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
