"""What the TPU compiler estimates of pretraining on slices: the table of the README.

    python benchmarks/compile_table.py --json compile_table.json
    python benchmarks/compile_table.py --configs configs/base.py --topologies v5e:2x4 --tokens-per-chip 8192

For each configuration and slice one compile of its train step, of minutes each; nothing is
measured, and no TPU is needed. Rows already in the JSON file are not done again, so it may be
stopped. A batch that does not fit is halved until it does.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bertjax.estimate.hardware.slices import Slice, open_slice, prepare_environment

prepare_environment()

from bertjax.config import Config, load_config  # noqa: E402
from bertjax.estimate.answers import to_json  # noqa: E402
from bertjax.estimate.estimate import Estimate, estimate  # noqa: E402
from bertjax.estimate.search import batch_unit, with_batch  # noqa: E402

CONFIGS = tuple(
    f"configs/fast/{name}.py" for name in ("base", "base_phase2", "large", "large_phase2")
)
TOPOLOGIES = ("v5e:2x2", "v5e:2x4", "v5e:16x16", "v5p:2x2x2", "v6e:4x4")
HEAD = (
    "| configuration | length | slice | chips | batch | memory a device | step | tokens/s | MFU |\n"
    + "| --- " * 9
    + "|"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--tokens-per-chip", type=int, default=16_384)
    parser.add_argument("--json", type=Path, default=Path("compile_table.json"))
    asked = parser.parse_args()
    rows: dict[str, Any] = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    print(HEAD, flush=True)
    for path in asked.configs:
        for topology in asked.topologies:
            key = f"{path} {topology} {asked.tokens_per_chip}"
            if key not in rows:
                rows[key] = to_json(
                    largest_that_fits(
                        load_config(path), open_slice(topology), asked.tokens_per_chip
                    )
                )
                asked.json.write_text(json.dumps(rows, indent=1))
            print(line(Path(path).stem, rows[key]), flush=True)
    print("\nThe TPU compiler's estimates; nothing here was measured.")


def largest_that_fits(config: Config, slice_: Slice, tokens_per_chip: int) -> Estimate:
    """The estimate at this many tokens a chip, or at a half, a quarter, … where they do not fit."""
    unit = batch_unit(config, slice_)
    units = max(tokens_per_chip * len(slice_.devices) // (config.data.max_seq_length * unit), 1)
    while True:
        found = estimate(with_batch(config, units * unit), slice_)
        if found.fits or units == 1:
            return found
        units //= 2


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    start = (
        f"| {name} | {row['length']} | {row['topology']} | {row['chips']} | {row['batch_size']:,} |"
    )
    if not row["fits"]:
        return f"{start} does not fit | – | – | – |"
    memory = (
        sum(size for part, size in row["memory"].items() if part != "available")
        / row["memory"]["available"]
    )
    return (
        f"{start} {memory:.0%} | {1e3 * row['timing']['step']:.1f} ms | {row['tokens_per_second']:,.0f} "
        f"| {row['mfu']:.1%} |"
    )


if __name__ == "__main__":
    main()
