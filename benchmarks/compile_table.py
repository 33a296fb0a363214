"""Estimates of pretraining on TPU slices, by the TPU compiler: the table of the documentation.

    python benchmarks/compile_table.py --json compile_table.json
    python benchmarks/compile_table.py --configs base --topologies v5e:2x4 --tokens-per-chip 8192
    python benchmarks/compile_table.py --configs modernbert/base --fast dots --length 8192

For each configuration and slice the train step is compiled once, which takes minutes; nothing is
measured, and no TPU is needed. Entries that the JSON file has already are not computed again, so
the script may be stopped. A batch that does not fit is halved until it does.

`--fast` gives any configuration the settings of `configs/fast/` that do not change the model: our
kernels, dropout bits by hash, none of attention probabilities, the layers written out, and masks
chosen when the text is prepared.
"""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from reporting import argument_parser, print_header, print_line

from bertjax.estimate.hardware.slices import Slice, open_slice, prepare_environment

# Before JAX is imported, which reads the environment then.
prepare_environment()

from bertjax.config import Config, load_config  # noqa: E402
from bertjax.estimate.answers import to_json  # noqa: E402
from bertjax.estimate.estimate import Estimate, estimate  # noqa: E402
from bertjax.estimate.search import batch_unit, with_batch  # noqa: E402

CONFIGS = ("fast/base", "fast/base_phase2", "fast/large", "fast/large_phase2")
TOPOLOGIES = ("v5e:2x2", "v5e:2x4", "v5e:16x16", "v5p:2x2x2", "v6e:4x4")
COLUMNS = (
    "configuration",
    "length",
    "slice",
    "chips",
    "batch",
    "memory a device",
    "step",
    "tokens/s",
    "MFU",
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--tokens-per-chip", type=int, default=16_384)
    parser.add_argument("--length", type=int, help="tokens of a row, if others")
    parser.add_argument("--fast", metavar="REMAT", help="the fast settings, with this model.remat")
    parser.add_argument("--unroll", type=int, help="model.scan_unroll, with --fast; default: all")
    parser.add_argument("--json", type=Path, default=Path("compile_table.json"))
    arguments = parser.parse_args()
    path, tokens_per_chip = arguments.json, arguments.tokens_per_chip
    entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    print_header(COLUMNS)
    for name in arguments.configs:
        for topology in arguments.topologies:
            config = changed(load_config(name), arguments)
            options = [arguments.length, arguments.fast, arguments.unroll]
            key = f"{name} {topology} {tokens_per_chip}"
            if any(options):
                key += f" {options}"
            if key not in entries:
                chips = open_slice(topology)
                entries[key] = to_json(largest_that_fits(config, chips, tokens_per_chip))
                path.write_text(json.dumps(entries, indent=1))
            print_entry(Path(name).stem, entries[key])
    print("\nThe TPU compiler's estimates; nothing here was measured.")


def changed(config: Config, arguments: Namespace) -> Config:
    """Return the configuration with the length and the settings that were asked for."""
    if arguments.length:
        data = {
            "max_seq_length": arguments.length,
            "max_predictions_per_seq": math.ceil(config.data.mlm_probability * arguments.length),
        }
        config = config.replace(data=data)
    if not arguments.fast:
        return config
    model = {
        "attention_probs_dropout_prob": 0.0,
        "kernels": "pallas",
        "dropout_bits": "hash",
        "remat": arguments.fast,
        "scan_unroll": arguments.unroll or config.model.num_hidden_layers,
    }
    return config.replace(model=model, data={"dynamic_masking": False})


def largest_that_fits(config: Config, slice_: Slice, tokens_per_chip: int) -> Estimate:
    """Return the estimate at this number of tokens a chip, or at a half, a quarter, … that fits."""
    unit = batch_unit(config, slice_)
    tokens = tokens_per_chip * len(slice_.devices)
    units = max(tokens // (config.data.max_seq_length * unit), 1)
    while True:
        result = estimate(with_batch(config, units * unit), slice_)
        if result.fits or units == 1:
            return result
        units //= 2


def print_entry(name: str, entry: dict[str, Any]) -> None:
    cells = [name, entry["length"], entry["topology"], entry["chips"], f"{entry['batch_size']:,}"]
    if not entry["fits"]:
        print_line([*cells, "does not fit", "–", "–", "–"])
        return
    memory = dict(entry["memory"])
    available = memory.pop("available")
    print_line(
        [
            *cells,
            f"{sum(memory.values()) / available:.0%}",
            f"{1e3 * entry['timing']['step']:.1f} ms",
            f"{entry['tokens_per_second']:,.0f}",
            f"{entry['mfu']:.1%}",
        ]
    )


if __name__ == "__main__":
    main()
