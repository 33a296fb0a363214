"""Preparation's tasks on Apache Beam: on its local runner, or on Dataflow, Flink or Spark by its
own options.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from bertjax.data.preparation.runners import Run, Task
from bertjax.errors import UserError
from bertjax.progress import Progress

_SAID = re.compile(r"UserError: (.*) \[while running '")


@contextlib.contextmanager
def beam_runner(options: Sequence[str] = ()) -> Iterator[Run]:
    """Runs each stage as a pipeline, by Beam's command-line options.

    The tasks leave what they make in the output folder, which all workers must reach by the same
    name: that, and what is done being kept, is as in a preparation on one machine, and so are the
    bytes.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            "--runner beam: found no apache-beam, expected it: pip install -r requirements-beam.txt"
        ) from error

    def run(stage: str, tasks: list[Task], progress: Progress) -> None:
        progress(stage, 0, len(tasks))
        settings = PipelineOptions(list(options), save_main_session=False)
        try:
            with beam.Pipeline(options=settings) as pipeline:
                # The reshuffle keeps a runner from fusing all tasks into one.
                _ = (
                    pipeline
                    | beam.Create(list(enumerate(tasks)))
                    | beam.Reshuffle()
                    | f"{stage}" >> beam.Map(_call)
                )
        except Exception as error:
            # From another process Beam brings no more than the text of a RuntimeError: a traceback.
            if said := _SAID.search(f"{type(error).__name__}: {error}"):
                raise UserError(said[1]) from error
            raise
        progress(stage, len(tasks), len(tasks))

    yield run


def _call(numbered: tuple[int, Any]) -> int:
    number, (task, *arguments) = numbered
    task(*arguments)
    return number
