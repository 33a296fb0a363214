"""Time of the sparse product divided by that of the dense one, for shapes and shares of zeros.

    python benchmarks/sparse_products.py [--turns 15] [--rows 32 4096] [--shapes 384x1536 768x3072]

Below 1 the sparse product is faster: `model.sparse_products auto` then takes it. Zeros are drawn at
random, but for 2:4. The two products take turns, and the shortest times are compared. The last
column is the share of zeros at which they are equally fast, between the two columns around it.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.model.sparse.choice import time_ratio
from bertjax.model.sparse.product import sparse_stack

SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
SHAPES = ("384x384", "384x1536", "768x768", "768x3072")


def main() -> None:
    options = arguments()
    shares = " | ".join(f"{100 * share:g} %" for share in SHARES)
    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"| kernel | tokens | 2:4 | {shares} | equal at |")
    print("| --- | ---: |" + " ---: |" * (len(SHARES) + 2))
    for shape, rows in itertools.product(options.shapes, options.rows):
        inputs, outputs = map(int, shape.split("x"))
        of_pattern = ratio(two_of_four(inputs, outputs), rows, options.turns)
        ratios = []
        for share in SHARES:
            kernel = with_zeros(inputs, outputs, share)
            ratios.append(ratio(kernel, rows, options.turns))
        cells = " | ".join(f"{value:.2f}" for value in (of_pattern, *ratios))
        print(f"| {shape} | {rows:,} | {cells} | {crossing(ratios)} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 4096])
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    return parser.parse_args()


def normal(inputs: int, outputs: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)


def with_zeros(inputs: int, outputs: int, share: float) -> np.ndarray:
    """Return a kernel in which exactly this share of the weights is 0."""
    kernel = normal(inputs, outputs).reshape(-1)
    order = np.random.default_rng(1).permutation(kernel.size)
    kernel[order[: round(share * kernel.size)]] = 0
    return kernel.reshape(inputs, outputs)


def two_of_four(inputs: int, outputs: int) -> np.ndarray:
    """Return a kernel with the two largest of each four inputs of an output."""
    groups = normal(inputs, outputs).reshape(inputs // 4, 4, outputs)
    ranks = np.abs(groups).argsort(axis=1).argsort(axis=1)
    return np.where(ranks >= 2, groups, np.float32(0)).reshape(inputs, outputs)


def ratio(kernel: np.ndarray, rows: int, turns: int) -> float:
    sparse = jax.device_put(sparse_stack(kernel[None]).of_layer(0), jax.devices()[0])
    return time_ratio(jnp.asarray(kernel), sparse, rows, turns)


def crossing(ratios: list[float]) -> str:
    """Return the share of zeros from which on all ratios are below 1, by log-linear steps."""
    if ratios[-1] >= 1:
        return "none"
    slower = [number for number, value in enumerate(ratios) if value >= 1]
    if not slower:
        return f"below {100 * SHARES[0]:g} %"
    before, after = slower[-1], slower[-1] + 1
    above, below = np.log(ratios[before]), np.log(ratios[after])
    part = above / (above - below)
    # The time of a sparse product goes with the weights that are left.
    left = np.log([1 - SHARES[before], 1 - SHARES[after]])
    return f"{100 * (1 - np.exp(left[0] + part * (left[1] - left[0]))):.0f} %"


if __name__ == "__main__":
    main()
