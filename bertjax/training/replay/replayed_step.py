"""The batch of one update of a run, with its masks, and the update's loss where it can be had."""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.config.phases.resolution import Phase, phase_before
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.masking.adaptive import with_weights
from bertjax.masking.static import unmask
from bertjax.parallel import hosts
from bertjax.parallel.mesh import make_mesh
from bertjax.progress import Progress, silent
from bertjax.training import checkpoint
from bertjax.training.batch_source import interleave
from bertjax.training.budget.record import passed_at, place_of, recorded
from bertjax.training.integrity.restoring import restore_state, saved_shapes
from bertjax.training.logs.metrics_log import FILE, read_entries
from bertjax.training.objective import Objective
from bertjax.training.optimization.plan import learning_rate, mask_rate, plan_of
from bertjax.training.pretraining import pretraining
from bertjax.training.replaced.objective import ReplacedTokens
from bertjax.training.replay.drawn import DRAWN, Drawn
from bertjax.training.replay.opened_run import (
    OpenedRun,
    UpdateBatches,
    check_data,
    opened_run,
    updates_of,
)
from bertjax.training.step import (
    MASKS,
    TrainState,
    abstract_state,
    check_batch,
    jit_train_step,
    random_key,
)
from bertjax.types import Batch

Place = np.int32 | np.float32
"""A place in the schedules of a run."""
Kind = Literal["masked", "random", "kept", "next"]


class Prediction(NamedTuple):
    """A token of a row that the model is to predict."""

    position: int
    """Position of the token in its row."""
    label: str
    """The piece that is to be predicted."""
    shown: str
    """The piece that the model saw at the position."""
    kind: Kind
    """What stands there: the mask, a random token, or the token itself (also where it was drawn).

    `next` in a causal row: the token itself, which is predicted from those before it.
    """
    weight: float
    """Weight of its loss."""
    drawn: str = ""
    """The piece that the generator of replaced tokens drew; empty without one."""


class Row(NamedTuple):
    """A row of a batch."""

    corpus: str
    record: int
    """Number of the record in its corpus."""
    text: str
    """The text without masks; special tokens are written by name."""
    pieces: list[str]
    """The pieces that the model saw, masks among them."""
    sentence_labels: list[int]
    """Labels of the sentence objective: one, or one for each input of a packed row."""
    predictions: list[Prediction]


@dataclass(frozen=True)
class Replay:
    """An update of a run, made again."""

    step: int
    """The step after the update, as in `metrics.jsonl`."""
    begin: int
    """The step before it: its first batch. A growing batch takes several."""
    phase: int
    """Number of its phase, from 1."""
    phases: int
    learning_rate: float
    mask_rate: float | None
    """Fraction of the tokens to predict; None in diffusion, where each row has one of its own."""
    batch: Batch
    """The rows as the model saw them: the arrays of `data.records.record_format`, with masks."""
    original_ids: np.ndarray
    """The ids before masking, int32 `[B, L]`."""
    corpora: tuple[str, ...]
    """Name of the corpus of each row."""
    records: np.ndarray
    """Number of each row's record in its corpus, int64 `[B]`."""
    tokenizer: Tokenizer
    shifted: bool
    """Whether the model predicts a token from the state before it (`model.mlm_shifted`)."""
    logged: Mapping[str, Any]
    """What `metrics.jsonl` has of the update; empty if nothing."""
    computed: Mapping[str, float | None]
    """Metrics of the update, computed from the checkpoint before it; empty where there is none."""
    note: str
    """Why nothing was computed."""
    drawn: np.ndarray | None = None
    """The ids that the generator of replaced tokens drew, int32 `[B, P]`; None without a generator,
    and where nothing was computed.
    """

    @property
    def equals_log(self) -> bool | None:
        """Whether loss and gradient norm are, to the bit, the logged ones; None if not known."""
        names = [name for name in ("loss", "grad_norm") if name in self.logged]
        if not names or not self.computed:
            return None
        return all(self.computed[name] == self.logged[name] for name in names)

    def row(self, index: int) -> Row:
        """Return a row in words."""
        batch, tokenizer = self.batch, self.tokenizer
        length = int(np.count_nonzero(batch["input_mask"][index]))
        used = np.flatnonzero(batch["masked_lm_weights"][index] > 0)
        labels: list[int] = []
        if "next_sentence_labels" in batch:
            own = batch["next_sentence_labels"][index]
            if "cls_weights" in batch:  # a packed row may have fewer inputs than labels
                own = own[batch["cls_weights"][index] > 0]
            labels = own.tolist()
        return Row(
            corpus=self.corpora[index],
            record=int(self.records[index]),
            text=tokenizer.decode(self.original_ids[index, :length].tolist()),
            pieces=tokenizer.pieces(batch["input_ids"][index, :length].tolist()),
            sentence_labels=labels,
            predictions=[self._prediction(index, int(slot)) for slot in used],
        )

    def _prediction(self, index: int, slot: int) -> Prediction:
        batch = self.batch
        position = int(batch["masked_lm_positions"][index, slot])
        label = int(batch["masked_lm_ids"][index, slot])
        is_causal = "causal" in batch and batch["causal"][index, 0] > 0
        if is_causal and not self.shifted:
            # There the position is that of the state before the token (`with_causal_rows`).
            position += 1
        shown = int(batch["input_ids"][index, position])
        kind: Kind = "random"
        if is_causal:
            kind = "next"
        elif shown == self.tokenizer.mask_id:
            kind = "masked"
        elif shown == label:
            kind = "kept"
        wanted, seen = self.tokenizer.pieces([label, shown])
        weight = float(batch["masked_lm_weights"][index, slot])
        drawn = ""
        if self.drawn is not None:
            drawn = self._name(int(self.drawn[index, slot]))
        return Prediction(position, wanted, seen, kind, weight, drawn)

    def _name(self, drawn: int) -> str:
        """Return a drawn piece; a model may have more ids than its tokenizer has pieces."""
        if drawn >= self.tokenizer.vocab_size:
            return f"[id {drawn}]"
        return self.tokenizer.pieces([drawn])[0]


def replay(run_dir: epath.PathLike, step: int, *, progress: Progress = silent) -> Replay:
    """Make the update that led a pretraining run to `step` again: its batch, masks and rates.

    `step` counts as in `metrics.jsonl`, 1 to `train.steps`. The batch follows from the run's
    configuration, seed and data, so no checkpoint of that step is needed. Where the run keeps the
    checkpoint from which the update began, the update is computed too: on the same kind of devices
    and the same mesh, its metrics are those of `metrics.jsonl`, bit for bit; and the words that a
    generator of replaced tokens drew are shown.

    Adaptive masks and a budget of time are a state: with the first the checkpoint is needed, with
    the second the step must have been made. Raises `UserError` where that is not so, for a step
    beyond the run, for a run of another kind or whose data, tokenizer or configuration have
    changed.

    >>> import bertjax
    >>> update = bertjax.replay("runs/tiny", 2)
    >>> update.batch["input_ids"].shape
    (8, 32)
    >>> row = update.row(0)
    >>> row.corpus, row.pieces[0], row.predictions[0].kind in ("masked", "random", "kept")
    ('all', '[CLS]', True)
    """
    run = opened_run(run_dir, progress)
    steps = run.config.train.steps
    check(
        1 <= step <= steps,
        where=f"{run.folder}: step",
        found=step,
        expected=f"1 to {steps}, a step of the run",
    )
    check_data(run, step)
    phase = phase_before(run.phases, step)
    logged = _logged(run.folder)
    span = _update(run, phase, step, logged)
    source = run.sources[phase.number - 1]
    all_rows = np.arange(phase.config.train.batch_size)
    batches = []
    for number in range(span.begin, span.end):
        # Each from a source of its own: the first batch of a source is read without TensorFlow.
        batches.append(next(source.train(number, all_rows)))
    given = interleave(batches)
    objective = pretraining(phase.config, source.vocabulary, phase)
    place = _place(run, span.begin)
    names, records = _records(run, phase, span)
    before = _state_before(run, phase, objective, span.begin)
    computed, drawn = _computed(run, phase, objective, given, before, place)
    data = phase.config.data
    rate = None
    if data.objective != "diffusion":
        rate = float(mask_rate(data, phase.masks, place))
    rows = {name: values for name, values in given.items() if name != "corpus_ids"}
    weighted = _weighted(run, rows, before)
    return Replay(
        step=span.end,
        begin=span.begin,
        phase=phase.number,
        phases=len(run.phases),
        learning_rate=_learning_rate(run, phase, place),
        mask_rate=rate,
        batch=_masked(objective, weighted, phase.config.seed, span.begin, place),
        original_ids=unmask(rows)["input_ids"] if "masked_lm_ids" in rows else rows["input_ids"],
        corpora=names,
        records=records,
        tokenizer=run.tokenizer,
        shifted=phase.config.model.mlm_shifted,
        logged=logged.get(span.end, {}),
        computed=computed,
        note=before.note,
        drawn=drawn,
    )


def _logged(folder: epath.Path) -> dict[int, dict[str, Any]]:
    """Return the entries of the updates in `metrics.jsonl`, by their steps."""
    entries = [entry for entry in read_entries(folder) if entry["split"] == "train"]
    return {entry["step"]: entry for entry in entries}


def _update(
    run: OpenedRun, phase: Phase[Config], step: int, logged: Mapping[int, Mapping[str, Any]]
) -> UpdateBatches:
    """Return the update that made `step`."""
    spans = updates_of(phase)
    if spans is None:
        return UpdateBatches(step - 1, step)
    span = spans[bisect.bisect_left([each.end for each in spans], step)]
    # The last updates of a phase are small. A run that went on after its planned end had them in
    # another place than its configuration says now.
    steps = sorted(logged)
    is_logged = bool(steps) and steps[0] <= span.end <= steps[-1]
    between = [each for each in steps if span.begin < each <= span.end]
    check(
        not is_logged or between == [span.end],
        where=f"{run.folder / FILE}: the update to step {span.end}",
        found=f"updates to {', '.join(map(str, between)) or 'none'}",
        expected=f"one from step {span.begin}, as config.json plans it",
    )
    return span


def _records(
    run: OpenedRun, phase: Phase[Config], span: UpdateBatches
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the name of the corpus and the number of the record of each row."""
    corpora = run.corpora(phase)
    batches = []
    for number in range(span.begin, span.end):
        which, records = corpora.order.batch(number)
        batches.append({"corpora": which, "records": records})
    joined = interleave(batches)
    return tuple(corpora.names[corpus] for corpus in joined["corpora"]), joined["records"]


def _place(run: OpenedRun, begin: int) -> Place:
    """Return the place of an update in the schedules: its step, or what follows from the time.

    Raises `UserError` for an update that was not made where its place follows a clock.
    """
    train = run.config.train
    if not train.budget:
        return np.int32(begin)
    record = recorded(run.folder, run.record)
    return place_of(passed_at(record, begin, str(run.folder)), train.steps)


def _learning_rate(run: OpenedRun, phase: Phase[Config], place: Place) -> float:
    schedule = learning_rate(phase.config.optimizer, plan_of(run.phases, phase))
    # Compiled, as in the step: its rounding may differ from that of single operations.
    return float(np.float32(jax.jit(schedule)(place)))


def _masked(objective: Objective, rows: Batch, seed: int, begin: int, place: Place) -> Batch:
    """Return the rows with the masks that the step draws, if it does."""

    def prepare(batch: Batch, seed: Array, step: Array, place: Array) -> Batch:
        return objective.prepare(batch, random_key(seed, step, MASKS), place)

    # Compiled with the same arguments as the step, so that no rounding differs.
    prepared = jax.jit(prepare)(rows, np.uint32(seed), np.int32(begin), place)
    return {name: np.asarray(values) for name, values in prepared.items()}


class _Before(NamedTuple):
    """The state from which an update began, where it can be had."""

    mesh: Mesh | None = None
    folder: epath.Path | None = None
    target: TrainState | None = None
    note: str = ""
    """Why it is not there."""

    def state(self) -> TrainState:
        """Return the state, restored anew: a step takes its memory."""
        assert self.folder is not None
        assert self.target is not None
        return restore_state(self.folder, self.target)


def _state_before(
    run: OpenedRun, phase: Phase[Config], objective: Objective, begin: int
) -> _Before:
    """Return the checkpoint of the step where an update begins, or the reason why there is none."""
    try:
        folder = checkpoint.kept_checkpoint(run.folder, begin).resolve()
    except UserError as error:
        return _Before(note=f"{error}")
    if not any(name.startswith("opt_state") for name in saved_shapes(folder)):
        return _Before(note=f"{folder} has parameters alone, without an optimizer's state")
    try:
        mesh = make_mesh(run.config.mesh)
        check_batch(phase.config, mesh)
        return _Before(mesh, folder, abstract_state(run.config, mesh, objective))
    except UserError as error:
        # The rows are right all the same: they do not depend on the devices.
        return _Before(note=f"not on these devices: {error}")


def _weighted(run: OpenedRun, rows: Batch, before: _Before) -> Batch:
    """Return the rows with the weights of adaptive masks, where a run has them.

    Raises `UserError` where they are not known.
    """
    if not run.config.adaptive.is_used:
        return rows
    if before.mesh is None:
        raise UserError(f"{before.note}: adaptive masks follow from the scores in a checkpoint")
    scores = before.state().scores
    assert scores is not None
    return with_weights(rows, jax.device_get(scores))


def _computed(
    run: OpenedRun,
    phase: Phase[Config],
    objective: Objective,
    batch: Batch,
    before: _Before,
    place: Place,
) -> tuple[dict[str, float | None], np.ndarray | None]:
    """Return the metrics of the update, and the words that its generator drew; or nothing."""
    if before.mesh is None:
        return {}, None
    by_time = place if isinstance(place, np.float32) else None
    plan = plan_of(run.phases, phase)
    size = len(batch["input_ids"])
    given = hosts.global_batch(before.mesh, batch, size)
    program = jit_train_step(phase.config, before.mesh, objective, plan=plan)
    _, scalars = program(before.state(), given, by_time)
    metrics: dict[str, float | None] = {}
    for name, value in jax.device_get(scalars).items():
        # As in `metrics.jsonl`, where a number that is not finite is null.
        metrics[name] = float(value) if math.isfinite(value) else None
    if not isinstance(objective, ReplacedTokens):
        return metrics, None
    # A program of its own: with another result the first one might be rounded otherwise.
    showing = jit_train_step(phase.config, before.mesh, Drawn(objective, size), plan=plan)
    _, shown = showing(before.state(), given, by_time)
    return metrics, np.asarray(shown[DRAWN])
