"""How long XLA compiles a train step whose layers are a loop, and the same one with its layers
written out.

    python benchmarks/compile_time.py configs/fast/large.py --topology v5e:2x2
    python benchmarks/compile_time.py configs/large.py

For one chip of a slice that need not be here, or for this machine's first device; batch 8; one
after the other, in one run. Prints the ratio.
"""

import argparse
import dataclasses
import time

from bertjax.estimate.hardware.slices import open_slice, prepare_environment

prepare_environment()

import jax  # noqa: E402

from bertjax.config import Config, MeshConfig, load_config  # noqa: E402
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary  # noqa: E402
from bertjax.parallel.mesh import make_mesh  # noqa: E402
from bertjax.training.pretraining import pretraining  # noqa: E402
from bertjax.training.step import abstract_state, lower_train_step  # noqa: E402


def seconds(config: Config, device: jax.Device) -> float:
    """From the traced step to the program."""
    mesh = make_mesh(config.mesh, [device])
    objective = pretraining(config, abstract_vocabulary(config))
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    lowered = lower_train_step(config, mesh, objective, state, batch)
    begin = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default="configs/large.py")
    parser.add_argument("--topology", default="")
    asked = parser.parse_args()
    device = (open_slice(asked.topology).devices if asked.topology else jax.devices())[0]
    config = load_config(asked.config)
    config = dataclasses.replace(
        config, mesh=MeshConfig(), train=dataclasses.replace(config.train, batch_size=8)
    )
    found = {}
    for name, unroll in (("a loop", 1), ("written out", config.model.num_hidden_layers)):
        model = dataclasses.replace(config.model, scan_unroll=unroll)
        found[name] = seconds(dataclasses.replace(config, model=model), device)
        print(f"{config.model.num_hidden_layers} layers, {name}: {found[name]:.1f} s", flush=True)
    print(f"a loop takes {found['a loop'] / found['written out']:.0%} of the time")


if __name__ == "__main__":
    main()
