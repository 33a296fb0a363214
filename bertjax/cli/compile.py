"""`bertjax compile CONFIG --topology v5e:4x4 [--dotted.field VALUE ...]`"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from bertjax.cli.arguments import parse_configured, quiet_libraries, run_name
from bertjax.config import Config
from bertjax.errors import check

if TYPE_CHECKING:
    from etils import epath


@dataclass(frozen=True)
class CompileCommand:
    """Estimate the cost of a train step on a TPU slice with the TPU compiler; no TPU is needed."""

    topology: str = "v5e:2x2"
    """Kind and shape of the slice: v4, v5e, v5p or v6e, such as v5e:16x16 or v5p:4x4x4."""
    slices: int = 1
    """Number of such slices, connected by the data centre's network; the mesh's axis `replica` is
    divided over them.
    """
    run_dir: str = ""
    """Folder for compile.json and the report; by default runs/NAME (NAME: the configuration's)."""
    largest_batch: bool = False
    """Find the largest batch that fits into memory, by bisection (up to a dozen compilations)."""
    search: bool = False
    """Try several meshes and remat policies with this batch size, and rank them."""
    search_limit: int = 12
    """Maximum number of compilations in the search."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        check(
            self.search_limit > 0,
            where="--search-limit",
            found=self.search_limit,
            expected="1 or more",
        )


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    from bertjax.estimate.hardware.slices import open_slice, prepare_environment

    # Before the first import of JAX, which reads the environment.
    prepare_environment()
    subject, command, overrides = parse_configured("compile", CompileCommand, words)
    quiet_libraries()

    from bertjax.estimate.answers import answer, write_answer
    from bertjax.estimate.estimate import Estimate
    from bertjax.estimate.text import brief, describe_answer
    from bertjax.given_files import place_of
    from bertjax.training.initial_model import take_initial_model

    # On stderr: stdout has the answer alone.
    def show(what: str, estimate: Estimate) -> None:
        seconds = f"compiled in {estimate.compile_seconds:.0f} s"
        print(f"{what}: {brief(estimate).strip()} ({seconds})", file=sys.stderr)

    check(
        not command.config.distill.teacher,
        where="distill.teacher",
        found=command.config.distill.teacher,
        expected="none: the estimate is of a step without a teacher",
    )
    config = take_initial_model(command.config, overrides)
    answered = answer(
        config,
        open_slice(command.topology, command.slices),
        largest_batch=command.largest_batch,
        search_limit=command.search_limit if command.search else 0,
        on_estimate=show,
    )
    print(describe_answer(answered))
    run_dir = place_of(command.run_dir or f"runs/{run_name(subject)}")
    print(f"\nwritten: {write_answer(run_dir, answered)}")
    print(f"report: {_report(run_dir)}")
    return 0


def _report(run_dir: "epath.Path") -> "epath.Path":
    """Write the run's report with the estimate; without a run, write a page for the estimate."""
    from bertjax.report.estimate import write_estimate_page
    from bertjax.report.html import write_report
    from bertjax.training import run_config

    if (run_dir / run_config.FILE).exists():
        return write_report(run_dir)
    return write_estimate_page(run_dir)
