"""`bertjax prepare CONFIG [--output-dir DIR] [--dotted.field VALUE ...]`"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries
from bertjax.config import Config


@dataclass(frozen=True)
class PrepareCommand:
    """Make shards of masked instances from a corpus. Run again after a kill, it does what is missing."""

    output_dir: str = ""
    """Where the shards go; by default data.prepared_dir."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    _, command = parse_configured("prepare", PrepareCommand, words)
    quiet_libraries()
    from bertjax.data.prepare import prepare
    from bertjax.report.terminal import terminal_progress

    folder = command.output_dir or command.config.data.prepared_dir
    begin = time.perf_counter()
    with terminal_progress() as progress:
        manifest = prepare(command.config, folder, progress=progress)
    for split in ("train", "validation"):
        shards = [shard for shard in manifest.shards if shard.split == split]
        print(f"{split}: {sum(s.records for s in shards):,} instances in {len(shards)} shards")
    print(f"vocabulary: {manifest.vocab_size:,}")
    print(f"held-out unigram entropy: {manifest.validation_unigram_entropy:.3f} nats")
    print(f"prepared in {folder} in {time.perf_counter() - begin:.1f} s")
    return 0
