"""Time and memory of attention, forward and backward, by implementation and sequence length.

    python benchmarks/attention.py [--lengths 128 512 2048 8192] [--tokens 8192] [--memory 16]

A batch has `--tokens` tokens, whatever the sequence length. Number and width of the heads are BERT
base's. The implementations:

- `scores`: computes the whole matrices of attention logits.
- `chunks`: works on 512 queries at a time, and computes again in the backward pass.
- `window`: local attention, 64 tokens on each side.
- `packed`: `scores` on rows that are packed with inputs of 128 tokens.
- On a GPU: our `kernel`, with global attention and with a window, and `cudnn`, without dropout.

Memory is the compiled program's own figure; a program that needs more than `--memory` GiB is not
run. One layer, without dropout unless `--dropout`.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from reporting import argument_parser, print_header, print_line, write_json

from bertjax.config import ModelConfig
from bertjax.model.attention import long_attention
from bertjax.model.attention.attention import Segments, fused, scored
from bertjax.model.layout import ANYWHERE

HEADS, WIDTH = 12, 64  # BERT base
WINDOW = 128  # ModernBERT's: 64 tokens on each side
INPUT_LENGTH = 128  # of the inputs of a packed row
COLUMNS = ("length", "batch", "way", "memory, MiB", "ms", "tokens/s")
Implementation = Callable[..., jax.Array]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--memory", type=float, default=16)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("runs/attention.json"))
    arguments = parser.parse_args()
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    config = ModelConfig(
        local_attention=WINDOW,
        attention_probs_dropout_prob=arguments.dropout,
        dropout_bits="hash",
        dtype=dtype.__name__,
    )
    device = jax.devices()[0].device_kind
    print(f"{platform.machine()}, {device}, jax {jax.__version__}, {dtype.__name__}\n")
    print_header(COLUMNS)
    entries = []
    for length in arguments.lengths:
        batch_size = max(1, arguments.tokens // length)
        for name, attention in implementations(config).items():
            figures = measured(attention, name, batch_size, length, dtype, arguments)
            entry = {"length": length, "batch": batch_size, "way": name, **figures}
            entries.append(entry)
            print_entry(entry)
    write_json(arguments.json, entries)


def print_entry(entry: dict[str, Any]) -> None:
    milliseconds, speed = "too large", "-"
    if entry["s"]:
        milliseconds = f"{1000 * entry['s']:,.1f}"
        speed = f"{entry['batch'] * entry['length'] / entry['s']:,.0f}"
    memory = f"{entry['bytes'] / 2**20:,.0f}"
    print_line((f"{entry['length']:,}", entry["batch"], entry["way"], memory, milliseconds, speed))


def implementations(config: ModelConfig) -> dict[str, Implementation]:
    """Return functions of queries, keys, values, segments and a PRNG key for dropout, by name."""

    def chunks(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: Segments, *, key: Any
    ) -> jax.Array:
        def one_chunk(q: jax.Array, queries: jax.Array, key: Any) -> jax.Array:
            return scored(config, q, k, v, Segments(queries, segments.keys_BxL), key=key)

        return long_attention.chunked_attention(one_chunk, q, segments.queries_BxL, key)

    def window(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: Segments, *, key: Any
    ) -> jax.Array:
        return long_attention.local_attention(config, q, k, v, *segments, key=key, layout=ANYWHERE)

    def cudnn(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: Segments, *, key: Any
    ) -> jax.Array:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

    scores = partial(scored, config)
    by_name: dict[str, Implementation] = {
        "scores": scores,
        "chunks": chunks,
        "window": window,
        "packed": scores,
    }
    if jax.default_backend() == "gpu":
        kernel = partial(fused, config, layout=ANYWHERE, platform="gpu")
        by_name["kernel"] = kernel
        by_name["kernel, window"] = partial(kernel, window=WINDOW)
        by_name["cudnn"] = cudnn
    return by_name


def measured(
    attention: Implementation,
    name: str,
    batch_size: int,
    length: int,
    dtype: Any,
    arguments: argparse.Namespace,
) -> dict[str, float | None]:
    """Return median seconds of a gradient of all three inputs, and the bytes that it needs.

    The bytes are those of the program beside its inputs and outputs.
    """
    inputs = jax.random.normal(jax.random.key(0), (3, batch_size, length, HEADS, WIDTH), dtype)
    numbers = jnp.zeros(length, int)
    if name == "packed":
        numbers = jnp.arange(length) // INPUT_LENGTH
    numbers = jnp.broadcast_to(numbers, (batch_size, length))
    segments = Segments(numbers, numbers)
    key = jax.random.key(1) if arguments.dropout else None

    def loss(inputs: jax.Array) -> jax.Array:
        return jnp.square(attention(*inputs, segments, key=key).astype(jnp.float32)).sum()

    program = jax.jit(jax.grad(loss)).lower(inputs).compile()
    needed_bytes = program.memory_analysis().temp_size_in_bytes
    if needed_bytes > arguments.memory * 2**30:
        return {"bytes": needed_bytes, "s": None}
    # The first run takes longer: it loads the program.
    jax.block_until_ready(program(inputs))
    seconds = []
    for _ in range(arguments.rounds):
        begin = time.perf_counter()
        jax.block_until_ready(program(inputs))
        seconds.append(time.perf_counter() - begin)
    return {"bytes": needed_bytes, "s": statistics.median(seconds)}


if __name__ == "__main__":
    main()
