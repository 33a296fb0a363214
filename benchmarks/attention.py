"""Attention forward and backward, each way of computing it, by the length of the row: time and
memory.

    python benchmarks/attention.py [--lengths 128 512 2048 8192] [--tokens 8192] [--memory 16]

A batch has `--tokens` ids, whatever the length; heads and their width are BERT base's. `scores`
makes whole matrices of scores, `chunks` works 512 queries at a time and again in the backward pass,
`window` attends to 64 ids on each side, `packed` is `scores` over inputs of 128 ids in a row; on a
GPU there are our `kernel`, for whole rows and for a window, and `cudnn`, which has no dropout.
Memory is the compiled program's own figure; what would need more than `--memory` GiB is not run.
One layer, without dropout unless `--dropout`.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bertjax.config import ModelConfig
from bertjax.model import long_attention
from bertjax.model.attention import Segments, fused, scored
from bertjax.model.layout import ANYWHERE

HEADS, WIDTH, WINDOW, INPUT = 12, 64, 128, 128
COLUMNS = ("length", "batch", "way", "memory, MiB", "ms", "tokens/s")
Way = Callable[..., jax.Array]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192])
    options.add_argument("--tokens", type=int, default=8192)
    options.add_argument("--memory", type=float, default=16)
    options.add_argument("--dropout", type=float, default=0.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path, default=Path("runs/attention.json"))
    asked = options.parse_args()
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    config = ModelConfig(
        local_attention=WINDOW,
        attention_probs_dropout_prob=asked.dropout,
        dropout_bits="hash",
        dtype=dtype.__name__,
    )
    print(
        f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}, {dtype.__name__}\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    rows = []
    for length in asked.lengths:
        batch = max(1, asked.tokens // length)
        for name, way in ways(config).items():
            row = {
                "length": length,
                "batch": batch,
                "way": name,
                **measured(way, name, batch, length, dtype, asked),
            }
            rows.append(row)
            speed = (
                f"{1000 * row['s']:,.1f} | {batch * length / row['s']:,.0f}"
                if row["s"]
                else "too large | -"
            )
            print(
                f"| {length:,} | {batch} | {name} | {row['bytes'] / 2**20:,.0f} | {speed} |",
                flush=True,
            )
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(rows, indent=1) + "\n")


def ways(config: ModelConfig) -> dict[str, Way]:
    """Each takes queries, keys, values, segments and a key for dropout."""

    def chunks(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: Segments, *, key: Any
    ) -> jax.Array:
        def some(q: jax.Array, queries: jax.Array, key: Any) -> jax.Array:
            return scored(config, q, k, v, Segments(queries, segments.keys_BxL), key=key)

        return long_attention.chunked_attention(some, q, segments.queries_BxL, key)

    def window(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: Segments, *, key: Any
    ) -> jax.Array:
        return long_attention.local_attention(config, q, k, v, *segments, key=key, layout=ANYWHERE)

    def cudnn(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: Segments, *, key: Any
    ) -> jax.Array:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

    whole, kernel = partial(scored, config), partial(fused, config, layout=ANYWHERE, platform="gpu")
    found: dict[str, Way] = {"scores": whole, "chunks": chunks, "window": window, "packed": whole}
    if jax.default_backend() == "gpu":
        found |= {
            "kernel": kernel,
            "kernel, window": partial(kernel, window=WINDOW),
            "cudnn": cudnn,
        }
    return found


def measured(
    way: Way, name: str, batch: int, length: int, dtype: Any, asked: argparse.Namespace
) -> dict[str, float | None]:
    """Median seconds of a gradient of all three inputs, and the bytes that the program needs beside
    them.
    """
    inputs = jax.random.normal(jax.random.key(0), (3, batch, length, HEADS, WIDTH), dtype)
    numbers = jnp.broadcast_to(
        jnp.arange(length) // INPUT if name == "packed" else jnp.zeros(length, int), (batch, length)
    )
    segments = Segments(numbers, numbers)
    key = jax.random.key(1) if asked.dropout else None

    def loss(inputs: jax.Array) -> jax.Array:
        return jnp.square(way(*inputs, segments, key=key).astype(jnp.float32)).sum()

    program = jax.jit(jax.grad(loss)).lower(inputs).compile()
    needed = program.memory_analysis().temp_size_in_bytes
    if needed > asked.memory * 2**30:
        return {"bytes": needed, "s": None}
    jax.block_until_ready(program(inputs))
    seconds = []
    for _ in range(asked.rounds):
        begin = time.perf_counter()
        jax.block_until_ready(program(inputs))
        seconds.append(time.perf_counter() - begin)
    return {"bytes": needed, "s": statistics.median(seconds)}


if __name__ == "__main__":
    main()
