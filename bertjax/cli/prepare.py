"""`bertjax prepare CONFIG [--output-dir DIR] [--dotted.field VALUE ...]`"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import Config, load_config


@dataclass(frozen=True)
class PrepareCommand:
    """Make shards of masked instances from a corpus. Run again after a kill, it does what is missing."""

    output_dir: str = ""
    """Where the shards go; by default data.prepared_dir."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "prepare", "a configuration file")
    config = load_config(subject) if subject else Config()
    command = parse("prepare CONFIG", PrepareCommand(config=config), rest)
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
