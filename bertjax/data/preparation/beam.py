"""Preparation on Apache Beam: its local runner, or Dataflow, Flink or Spark by its own options."""

import contextlib
import re
from collections.abc import Iterator, Sequence

from bertjax.data.preparation.runners import RunStage, WorkItem
from bertjax.errors import UserError
from bertjax.progress import Progress

# Beam adds the step to the message of an error that a worker raised.
_USER_ERROR = re.compile(r"UserError: (.*) \[while running '")


@contextlib.contextmanager
def beam_runner(options: Sequence[str] = ()) -> Iterator[RunStage]:
    """Give a function that runs each stage as a pipeline, by Beam's command-line options.

    The work leaves its results in the output folder, which all workers must reach by the same
    path. As on one machine, what is done is kept, and the bytes are the same. Raises `UserError`
    where Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            "--runner beam: found no apache-beam, expected it: pip install -r requirements-beam.txt"
        ) from error

    def run(stage: str, items: Sequence[WorkItem], progress: Progress) -> None:
        progress(stage, 0, len(items))
        # The work is in bertjax's own modules, so workers need nothing of the caller's `__main__`.
        pipeline_options = PipelineOptions(list(options), save_main_session=False)
        try:
            with beam.Pipeline(options=pipeline_options) as pipeline:
                # The number makes each element different; the reshuffle keeps a runner from fusing
                # all of them into one piece of work.
                _ = (
                    pipeline
                    | beam.Create(list(enumerate(items)))
                    | beam.Reshuffle()
                    | stage >> beam.Map(_run_item)
                )
        except Exception as error:
            # From another process Beam brings no more than the text of a RuntimeError: a traceback.
            message = _USER_ERROR.search(f"{type(error).__name__}: {error}")
            if message:
                raise UserError(message[1]) from error
            raise
        progress(stage, len(items), len(items))

    yield run


def _run_item(numbered: tuple[int, WorkItem]) -> int:
    number, item = numbered
    item.run()
    return number
