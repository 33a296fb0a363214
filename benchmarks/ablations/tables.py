"""The tables of the ablation, from the lines of its results."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations import intervals
from ablations.forms import DECAY, FORMS
from ablations.intervals import Interval, Resampling, at_tokens, is_told_apart

BASE = "bert"
"""The form that the others are compared with."""
Entries = Sequence[Mapping[str, Any]]
Table = list[list[str]]
"""Lines of cells; the first has the titles."""
NOTHING = "–"
NOT_FINISHED = "not finished"
CAUSAL_THEN = "its rows were causal then"
TASKS = {
    "cola": ("CoLA, Matthews' correlation", "acceptable", (("matthews", intervals.matthews),)),
    "mrpc": ("MRPC", "equivalent", (("F1", intervals.f1), ("accuracy", intervals.accuracy))),
}


class Cells:
    """What was measured, by form and seed."""

    def __init__(self, entries: Entries) -> None:
        self._entries = {
            (entry["kind"], entry["form"], entry["seed"]): entry
            for entry in entries
            if "seed" in entry
        }
        self.settings = next(entry for entry in entries if entry["kind"] == "settings")
        self.frequencies = next(
            (entry["bits_per_byte"] for entry in entries if entry["kind"] == "frequencies"), None
        )

    def of(self, kind: str, form: str) -> dict[int, Mapping[str, Any]]:
        """Return the entries of a form, by seed."""
        found = {key: entry for key, entry in self._entries.items() if key[:2] == (kind, form)}
        return {seed: found[kind, form, seed] for _, _, seed in sorted(found)}

    def forms(self, kind: str) -> list[str]:
        """Return the forms that have an entry of a kind, in the order of `FORMS`."""
        return [form for form in FORMS if self.of(kind, form)]

    def curve(self, form: str, seed: int) -> tuple[list[int], list[np.ndarray]]:
        """Return tokens, and bits and bytes of each text [N, 2], of points with masked words."""
        trained = self.of("train", form)[seed]
        per_step = trained["tokens"] / trained["steps"]
        points = [point for point in self.of("bits", form)[seed]["curve"] if not point["is_causal"]]
        values = [np.stack([p["bits"], p["bytes"]], axis=1).astype(np.float64) for p in points]
        return [round(point["step"] * per_step) for point in points], values

    def seconds_per_token(self, form: str, seed: int) -> float:
        """Return the CPU seconds of a token in training."""
        trained = self.of("train", form)[seed]
        return trained["seconds"] / trained["tokens"]


def forms_table() -> Table:
    """Return what each form changes."""
    return [["form", "what it changes"], *([form.title, form.says] for form in FORMS.values())]


def cells_table(cells: Cells) -> Table:
    """Return steps, tokens and seconds of each cell, of the seeds of all forms."""
    table = [["form", "seed", "steps", "tokens", "CPU seconds", "of a step, ms"]]
    trained = {form: cells.of("train", form) for form in cells.forms("calibrate")}
    seeds = sorted({seed for own in trained.values() for seed in own})
    for form, seed in itertools.product(trained, seeds):
        own = trained[form].get(seed)
        if own is None:
            table.append([FORMS[form].title, str(seed), NOT_FINISHED, *[NOTHING] * 3])
        else:
            numbers = [f"{own['steps']:,}", f"{own['tokens']:,}", f"{own['seconds']:.1f}"]
            step = f"{1000 * own['seconds'] / own['steps']:.1f}"
            table.append([FORMS[form].title, str(seed), *numbers, step])
    return table


def equal_tokens(cells: Cells) -> float:
    """Return the number of tokens at which no form's learning rate falls yet."""
    trained = [own["tokens"] for form in FORMS for own in cells.of("train", form).values()]
    return (1 - DECAY) * min(trained)


def bits_tables(cells: Cells) -> tuple[Table, Table]:
    """Return masked bits per byte at equal seconds, which is the end, and at equal tokens."""
    at_end: dict[str, list[np.ndarray]] = {}
    at_equal: dict[str, list[np.ndarray]] = {}
    wanted = equal_tokens(cells)
    for form in cells.forms("bits"):
        for seed in cells.of("bits", form):
            tokens, values = cells.curve(form, seed)
            at_end.setdefault(form, []).append(values[-1])
            found = at_tokens(tokens, values, wanted)
            if found is not None:
                at_equal.setdefault(form, []).append(found)
    title = "masked bits per byte"
    not_finished = dict.fromkeys(cells.forms("train"), NOT_FINISHED)
    causal_then = {form: CAUSAL_THEN for form in at_end if FORMS[form].causal_first}
    at_end_table, at_equal_table = (
        compared(own, intervals.bits_per_byte, title, lower_is_better=True, missing=missing)
        for own, missing in ((at_end, not_finished), (at_equal, not_finished | causal_then))
    )
    return at_end_table, at_equal_table


def tasks_tables(cells: Cells) -> dict[str, Table]:
    """Return a table of each task's figure, by its title."""
    tables = {}
    not_finished = dict.fromkeys(cells.forms("train"), NOT_FINISHED)
    for task, (title, positive, figures) in TASKS.items():
        forms = {
            form: [
                intervals.outcomes(own["labels"], own["predictions"], positive)
                for own in cells.of(task, form).values()
            ]
            for form in cells.forms(task)
        }
        for name, figure in figures if forms else ():
            shown = title if name == "matthews" else f"{title}, {name}"
            tables[shown] = compared(
                forms, figure, name, lower_is_better=False, missing=not_finished
            )
    return tables


def compared(
    forms: Mapping[str, Sequence[np.ndarray]],
    figure: intervals.Figure,
    title: str,
    *,
    lower_is_better: bool,
    missing: Mapping[str, str] | None = None,
) -> Table:
    """Return each form's figure, and its difference to BERT's with what that tells.

    Other forms are listed with the reason that `missing` gives for each. What is told apart with
    one seed is told apart for this seed.
    """
    if not forms:
        return []
    table = [["form", "seeds", f"{title} (95 %)", f"minus {FORMS[BASE].title}'s", "told apart"]]
    resampling = Resampling(figure, forms)
    others = max(len(forms) - 1, 1)
    for form, seeds in forms.items():
        line = [_title(form, figure), str(len(seeds)), shown(resampling.interval(form))]
        if form == BASE or BASE not in forms:
            table.append([*line, NOTHING, NOTHING])
            continue
        difference = resampling.difference(form, BASE, others)
        verdict = "no"
        if is_told_apart(difference):
            verdict = "better" if (difference.value < 0) == lower_is_better else "worse"
            if min(len(seeds), len(forms[BASE])) == 1:
                verdict += ", one seed"
        table.append([*line, shown(difference, sign="+"), verdict])
    for form, reason in (missing or {}).items():
        if form not in forms:
            table.append([_title(form, figure), "0", reason, NOTHING, NOTHING])
    return table


def _title(form: str, figure: intervals.Figure) -> str:
    is_of_generator = figure is intervals.bits_per_byte and FORMS[form].has_generator
    return FORMS[form].title + (", its generator" if is_of_generator else "")


def shown(interval: Interval, sign: str = "") -> str:
    """Return an interval as text."""
    value, low, high = (format(number, f"{sign}.3f") for number in interval)
    return f"{value} ({low} to {high})"


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in table]
    return "\n".join([lines[0], "|" + " --- |" * len(table[0]), *lines[1:]])
