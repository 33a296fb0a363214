"""Preparation on Apache Beam: its local runner, Dataflow, Flink or Spark, chosen by its options."""

import contextlib
import re
from collections.abc import Iterator, Sequence

from bertjax.data.preparation.runners import RunStage, WorkItem
from bertjax.errors import UserError
from bertjax.progress import Progress

# Beam adds the step to the message of an error that a worker raised.
_USER_ERROR = re.compile(r"(?:UserError|MismatchError): (.*) \[while running '")


@contextlib.contextmanager
def beam_runner(options: Sequence[str] = ()) -> Iterator[RunStage]:
    """Yield a function that runs each stage as a Beam pipeline; `options` are Beam's own options.

    Workers write their results to the output folder, so all workers must reach it by the same path.
    As on one machine, finished work is kept when `prepare` is started again. The bytes written are
    the same as on one machine. Raises `UserError` if Beam is not installed.
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
                # The number makes each element unique. The reshuffle keeps the runner from fusing
                # all elements into one piece of work.
                _ = (
                    pipeline
                    | beam.Create(list(enumerate(items)))
                    | beam.Reshuffle()
                    | stage >> beam.Map(_run_item)
                )
        except Exception as error:
            # If the error came from another process, Beam raises a RuntimeError whose text is the
            # traceback.
            message = _USER_ERROR.search(f"{type(error).__name__}: {error}")
            if message:
                # Never a `MismatchError`, after which results are removed: other workers may still
                # be writing theirs.
                raise UserError(message[1]) from error
            raise
        progress(stage, len(items), len(items))

    yield run


def _run_item(numbered: tuple[int, WorkItem]) -> int:
    number, item = numbered
    item.run()
    return number
