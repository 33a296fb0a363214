"""Whether the output of an attacked command is that of an undisturbed one."""

from pathlib import Path

from attacks.result import ENDED_WELL, LEFT_FILES, WRONG_NUMBER, Result
from attacks.values import differences, left_over, values_of
from attacks.verbs import VERBS, output_path


def judge_output(
    place: Path, verb: str, out: Path, happened: str, details: dict[str, object]
) -> Result:
    """Return the result for a command that says it has ended: is its output right?"""
    path = output_path(verb, out)
    reference = output_path(verb, place / VERBS[verb].reference)
    try:
        wrong = differences(values_of(path), values_of(reference))
    # Orbax and TensorStore raise many types for what cannot be read.
    except Exception as error:
        wrong = [f"unreadable: {type(error).__name__}: {' '.join(str(error).split())[:200]}"]
    if wrong:
        return Result(WRONG_NUMBER, f"{happened}; differs: {', '.join(wrong[:6])}", details)
    left = left_over(out.parent, path, reference)
    if left:
        return Result(LEFT_FILES, f"{happened}; left: {', '.join(left[:6])}", details)
    return Result(ENDED_WELL, happened, details)
