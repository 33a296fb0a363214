"""`bertjax replay RUN --step N` and `bertjax replay RUN --find SENTENCE`"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertjax.cli.arguments import parse_subject, quiet_libraries
from bertjax.errors import check
from bertjax.number_text import number_text

if TYPE_CHECKING:
    from bertjax.training.replay.replayed_step import Replay
    from bertjax.training.replay.sightings import Sightings


@dataclass(frozen=True)
class ReplayCommand:
    """Print the batch of a step of a pretraining run: its rows, masks and labels, from seed and
    data alone. Or print which steps saw a sentence.
    """

    step: int = 0
    """The step, as in metrics.jsonl: the update that led to it."""
    find: str = ""
    """A sentence; the steps are printed whose rows have its pieces in one stretch."""
    rows: int = 8
    """Number of rows, or of sightings, to print; 0: all."""
    json: bool = False
    """Print one JSON object."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject("replay", ReplayCommand(), words, "a run folder")
    check(
        (command.step != 0) != bool(command.find),
        where="bertjax replay",
        found="--step and --find" if command.find else "no --step",
        expected="one of --step and --find",
    )
    check(command.rows >= 0, where="--rows", found=command.rows, expected="0 or more")
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.parallel import compile_cache
    from bertjax.report.terminal import terminal_progress
    from bertjax.training.replay.replayed_step import replay
    from bertjax.training.replay.sightings import find_steps

    compile_cache.start()
    with terminal_progress() as progress:
        if command.find:
            sightings = find_steps(subject, command.find, progress=progress)
        else:
            update = replay(subject, command.step, progress=progress)
    if command.find and command.json:
        print(json.dumps(sightings_json(sightings, command.rows)))
    elif command.find:
        print("\n".join(sightings_lines(sightings, command.rows)))
    elif command.json:
        print(json.dumps(replay_json(update, command.rows)))
    else:
        print("\n".join(replay_lines(update, command.rows)))
    return 0


def _shown(wanted: int, all_of_them: int) -> int:
    return min(wanted, all_of_them) if wanted else all_of_them


def replay_json(update: "Replay", rows: int) -> dict[str, Any]:
    """Return an update with its first `rows` rows (0: all) as values of JSON."""
    count = len(update.records)
    values: dict[str, Any] = {
        "step": update.step,
        "begin": update.begin,
        "phase": update.phase,
        "phases": update.phases,
        "learning_rate": update.learning_rate,
        "mask_rate": update.mask_rate,
        "batch_size": count,
        "logged": dict(update.logged),
        "computed": dict(update.computed),
        "equals_log": update.equals_log,
        "note": update.note,
        "rows": [],
    }
    for index in range(_shown(rows, count)):
        row = update.row(index)
        predictions = [prediction._asdict() for prediction in row.predictions]
        ids = update.batch["input_ids"][index].tolist()
        values["rows"].append({**row._asdict(), "input_ids": ids, "predictions": predictions})
    return values


def replay_lines(update: "Replay", rows: int) -> list[str]:
    """Describe an update, and its first `rows` rows (0: all), in lines of text."""
    count = len(update.records)
    rate = "of each row" if update.mask_rate is None else number_text(update.mask_rate, ".4g")
    lines = [
        f"step {update.begin:,} to {update.step:,}, phase {update.phase} of {update.phases}: "
        f"{count:,} rows, learning rate {number_text(update.learning_rate, '.4g')}, "
        f"mask rate {rate}",
        *_figures(update),
    ]
    shown = _shown(rows, count)
    for index in range(shown):
        row = update.row(index)
        labels = f", label {' '.join(map(str, row.sentence_labels))}" if row.sentence_labels else ""
        lines += [
            "",
            f"row {index}: {row.corpus} record {row.record:,}{labels}",
            f"  {' '.join(row.pieces)}",
        ]
        for each in row.predictions:
            was = f" {each.shown}" if each.kind == "random" else ""
            drawn = f", drawn {each.drawn}" if each.drawn else ""
            lines.append(f"    {each.position:>5} {each.label}: {each.kind}{was}{drawn}")
    if shown < count:
        lines += ["", f"{count - shown:,} more rows (--rows 0 prints all)"]
    return lines


def _figures(update: "Replay") -> list[str]:
    """Return lines with loss and gradient norm, as logged and as computed."""
    lines = []
    for name, metrics in (("logged", update.logged), ("computed", update.computed)):
        # In full: what is compared to the bit is shown so.
        shown = [f"{each} {metrics[each]!r}" for each in ("loss", "grad_norm") if each in metrics]
        if shown:
            lines.append(f"{name}: {', '.join(shown)}")
    if update.equals_log is not None:
        lines.append(f"equal to the log: {'yes' if update.equals_log else 'no'}")
    if update.note:
        lines.append(f"not computed: {update.note}")
    return lines


def sightings_json(found: "Sightings", rows: int) -> dict[str, Any]:
    """Return where a sentence was seen, the first `rows` of it (0: all), as values of JSON."""
    shown = _shown(rows, len(found.seen))
    return {
        "pieces": found.pieces,
        "until": found.until,
        "steps": sorted({each.step for each in found.seen}),
        "searched": [each._asdict() for each in found.searched],
        "count": len(found.seen),
        "seen": [each._asdict() for each in found.seen[:shown]],
    }


def sightings_lines(found: "Sightings", rows: int) -> list[str]:
    """Describe where a sentence was seen, the first `rows` of it (0: all), in lines of text."""
    steps = len({each.step for each in found.seen})
    lines = [
        f"pieces: {' '.join(found.pieces)}",
        f"seen in {len(found.seen):,} rows, in {steps:,} of the {found.until:,} steps so far",
    ]
    for each in found.searched:
        lines.append(
            f"phase {each.phase}, {each.corpus}: {len(each.records):,} of {each.size:,} records "
            f"have it; {each.full:,} are full, and what was cut at their ends is not found"
        )
    shown = _shown(rows, len(found.seen))
    for sighting in found.seen[:shown]:
        lines.append(
            f"step {sighting.step:,}: phase {sighting.phase}, {sighting.corpus} "
            f"record {sighting.record:,}"
        )
    if shown < len(found.seen):
        lines.append(f"{len(found.seen) - shown:,} more (--rows 0 prints all)")
    return lines
