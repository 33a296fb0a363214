"""`bertjax prepare CONFIG [--output-dir DIR] [--dotted.field VALUE ...] [--runner beam -- ...]`"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries, split_options
from bertjax.config import Config
from bertjax.config.phases.folders import configs_to_prepare
from bertjax.errors import check
from bertjax.number_text import number_text


@dataclass(frozen=True)
class PrepareCommand:
    """Make shards of masked records from a corpus. After an interruption, the same command makes
    what is missing.
    """

    output_dir: str = ""
    """Folder for the shards; by default data.prepared_dir."""
    phase: int = 0
    """Of a run with phases: the one phase whose folder is made; 0: the folders of all of them, each
    with its length, and all with the tokenizer of the first (docs/phases.md).
    """
    runner: Literal["local", "beam"] = "local"
    """local: processes on this machine. beam: Apache Beam (`pip install -r
    requirements-beam.txt`); its own options follow after `--`, and all of its workers must have the
    same files at the same paths.
    """
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    words, beam_options = split_options(words)
    _, command, overrides = parse_configured("prepare", PrepareCommand, words)
    check(
        command.runner == "beam" or not beam_options,
        where="--runner",
        found=command.runner,
        expected="beam, for options after --",
    )
    configs = configs_to_prepare(command.config, command.phase)
    check(
        len(configs) == 1 or not command.output_dir,
        where="--output-dir",
        found=command.output_dir,
        expected=f"--phase beside it: the phases read {len(configs)} folders",
    )
    quiet_libraries()
    _check_tokenizer(command, configs[0])
    beam = beam_options if command.runner == "beam" else None
    for config in configs:
        _prepare(config, command.output_dir or config.data.prepared_dir, overrides, beam)
    return 0


def _check_tokenizer(command: PrepareCommand, config: Config) -> None:
    """Raise `UserError` where the folder that a later phase takes its tokenizer from has none."""
    from bertjax.given_files import place_of

    vocabulary = config.tokenizer.vocab_file
    taken = vocabulary != command.config.tokenizer.vocab_file
    # A model that the run starts from has its own.
    other = command.config.model_from_init or command.config.distill.teacher
    check(
        not taken or bool(other) or place_of(vocabulary).exists(),
        where="--phase",
        found=f"{command.phase}, without {vocabulary}",
        expected="the folder of phase 1 before it, whose tokenizer it takes",
    )


def _prepare(
    config: Config,
    folder: str,
    overrides: Collection[str],
    beam: Sequence[str] | None,
) -> None:
    """Make one folder, and print what it has; `beam` are the options of Beam, None without it."""
    from bertjax.api.pretrain import prepare
    from bertjax.data.corpus.sentences import describe_doubts
    from bertjax.data.preparation import text_losses
    from bertjax.data.records.manifest import SPLITS
    from bertjax.data.records.pair_counts import describe_pairs
    from bertjax.data.records.remarks import remarks
    from bertjax.report.terminal import terminal_progress

    begin = time.perf_counter()
    with terminal_progress() as progress:
        runner = None
        if beam is not None:
            from bertjax.data.preparation.beam import beam_runner

            runner = beam_runner(beam)
        manifest = prepare(config, folder, overrides=overrides, progress=progress, runner=runner)
    for split in SPLITS:
        shards = manifest.split(split)
        records = sum(shard.records for shard in shards)
        print(f"{split}: {records:,} instances in {len(shards)} shards")
        pairs = describe_pairs(manifest, split)
        if pairs:
            print(f"{split}: {pairs}")
    print(manifest.describe_counts())
    losses = text_losses.describe(manifest.counts)
    if losses:
        print(losses)
    for line in manifest.describe_snapshots():
        print(line)
    print(f"vocabulary: {manifest.vocab_size:,}")
    if manifest.split("validation"):
        entropy = number_text(manifest.validation_unigram_entropy, ".3f")
        print(f"held-out unigram entropy: {entropy} nats")
    for line in [*describe_doubts(manifest.counts), *remarks(manifest)]:
        print(f"note: {line}")
    print(f"prepared in {folder} in {time.perf_counter() - begin:.1f} s")
