"""`bertjax prepare CONFIG [--output-dir DIR] [--dotted.field VALUE ...] [--runner beam --
--BEAM_OPTION ...]`
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries, split_options
from bertjax.config import Config
from bertjax.errors import check


@dataclass(frozen=True)
class PrepareCommand:
    """Make shards of masked instances from a corpus. Run again after a kill, it does what is
    missing.
    """

    output_dir: str = ""
    """Where the shards go; by default data.prepared_dir."""
    runner: Literal["local", "beam"] = "local"
    """Where the work is done: in processes here, or by Apache Beam (`pip install -r
    requirements-beam.txt`), whose own options follow after `--`. Then paths must be the same for
    all of its workers.
    """
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    words, beam_options = split_options(words)
    _, command = parse_configured("prepare", PrepareCommand, words)
    check(
        command.runner == "beam" or not beam_options,
        where="--runner",
        found=command.runner,
        expected="beam, for options after --",
    )
    quiet_libraries()
    from bertjax.data.preparation.prepare import prepare
    from bertjax.report.terminal import terminal_progress

    folder = command.output_dir or command.config.data.prepared_dir
    begin = time.perf_counter()
    with terminal_progress() as progress:
        runner = None
        if command.runner == "beam":
            from bertjax.data.preparation.beam import beam_runner

            runner = beam_runner(beam_options)
        manifest = prepare(command.config, folder, progress=progress, runner=runner)
    for split in ("train", "validation"):
        shards = [shard for shard in manifest.shards if shard.split == split]
        print(f"{split}: {sum(s.records for s in shards):,} instances in {len(shards)} shards")
    steps = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in manifest.counts.items()
    )
    print(f"counts: {steps}")
    print(f"vocabulary: {manifest.vocab_size:,}")
    print(f"held-out unigram entropy: {manifest.validation_unigram_entropy:.3f} nats")
    print(f"prepared in {folder} in {time.perf_counter() - begin:.1f} s")
    return 0
