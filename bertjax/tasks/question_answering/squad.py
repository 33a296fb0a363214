"""Reading of questions from SQuAD's files, and writing of predictions.

The files may be of version 1.1 (arXiv 1606.05250) or 2.0 (arXiv 1806.03822).
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from bertjax.data.corpus.formats.tfds import tfds_builder
from bertjax.errors import UserError, check, needs_extra, one_line
from bertjax.storage import read_json, write_whole
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.files.json_rows import SURROGATE
from bertjax.tasks.question_answering.answers import SpanPrediction

log = logging.getLogger("bertjax")


class LocatedQuestion(NamedTuple):
    """A question and its place in a file."""

    where: str
    """The place for error messages, such as FILE: data[3].paragraphs[0].qas[2]."""
    example: QuestionExample


class _LocatedObject(NamedTuple):
    """A JSON object and its place in a file."""

    where: str
    values: Mapping[str, Any]


def read_squad(path: epath.PathLike, *, training: bool) -> list[QuestionExample]:
    """Return the questions of a SQuAD file, in the order of the file.

    Each of `data[].paragraphs[]` in the file has a `context` and questions, `qas[]`. A question
    with `is_impossible` has no answers; its `plausible_answers` are not read. The answers of a
    question without the field `answers` are None; with `training` this is an error.

    With `training`, each answer must be in the paragraph at its `answer_start`, where only white
    space may differ. Other answers are left out, and also questions that lose all their answers;
    the log says how many. Without `training`, the answers are not checked, because only their texts
    are used.

    Raises `UserError` with the file and the place in it (data[3].paragraphs[0].qas[2]) if the file
    has another structure.
    """
    path = epath.Path(path)
    return _usable(_file_questions(path), str(path), training)


def read_tfds(name: str, split: str, *, training: bool) -> list[QuestionExample]:
    """Return the questions of a split of a TFDS data set, such as `tfds:squad`, like `read_squad`.

    The fields are id, question, context, answers {text, answer_start} and, if there is one,
    is_impossible, as in `tfds:squad/v2.0`. Raises `UserError` if the data set cannot be loaded, or
    does not have the split or the fields.
    """
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(name)
    splits = list(builder.info.splits)
    check(
        split in splits,
        where=name,
        found=f"the splits {', '.join(splits)}",
        expected=f"a split {split}",
    )
    where = f"{name}, {split}"
    try:
        # In the order of the files, so that runs have the same examples.
        records = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    except tf.errors.OpError as error:
        raise UserError(f"{where}: is truncated or damaged ({one_line(error.message)})") from error
    return _usable(tfds_questions(records, where), where, training)


def tfds_questions(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[LocatedQuestion]:
    """Yield the question of each record of TFDS, in which texts are bytes and lists are arrays."""
    for number, record in enumerate(records):
        where = f"{name}, example {number}"
        fields: dict[str, Any] = {key: _text(value) for key, value in record.items()}
        answers = fields.get("answers")
        if isinstance(answers, Mapping) and {"text", "answer_start"} <= set(answers):
            fields["answers"] = _answer_objects(answers["text"], answers["answer_start"])
        if "is_impossible" in fields:
            # `_field` asks for exactly bool, and TFDS has NumPy's.
            fields["is_impossible"] = bool(fields["is_impossible"])
        context = _field(fields, "context", str, where)
        yield LocatedQuestion(where, _question(fields, context, where))


def _answer_objects(texts: Iterable[Any], starts: Iterable[Any]) -> list[dict[str, Any]]:
    """Return answers in the form of SQuAD's files, from the two arrays of TFDS."""
    pairs = zip(texts, starts, strict=True)
    return [{"text": _text(text), "answer_start": int(start)} for text, start in pairs]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _file_questions(path: epath.Path) -> Iterator[LocatedQuestion]:
    for article in _objects(read_json(path), "data", f"{path}:"):
        for paragraph in _objects(article.values, "paragraphs", article.where):
            context = _field(paragraph.values, "context", str, paragraph.where)
            for question in _objects(paragraph.values, "qas", paragraph.where):
                example = _question(question.values, context, question.where)
                yield LocatedQuestion(question.where, example)


def _objects(values: Mapping[str, Any], key: str, where: str) -> Iterator[_LocatedObject]:
    """Yield the objects in the list at `key`."""
    for number, value in enumerate(_field(values, key, list, where)):
        value_where = f"{_field_where(where, key)}[{number}]"
        check(
            isinstance(value, dict),
            where=value_where,
            found=_type_name(value),
            expected="an object",
        )
        yield _LocatedObject(value_where, value)


def _field_where(where: str, key: str) -> str:
    """Return the place of a field of the object at `where`; the whole file is at "FILE:"."""
    return where + (" " if where.endswith(":") else ".") + key


_TYPE_NAMES = {
    str: "text",
    list: "a list",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
}


def _type_name(value: Any) -> str:
    return "null" if value is None else _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


def _field(values: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return the value of a field; `UserError` if it is missing or not of exactly this type.

    A text must not contain half of a surrogate pair.
    """
    check(
        key in values,
        where=where.removesuffix(":"),
        found=f"no {key}",
        expected=f"{key}, {_TYPE_NAMES[kind]}",
    )
    value = values[key]
    value_where = _field_where(where, key)
    # isinstance is not used, because it would accept true as a number: bool is a subclass of int.
    check(
        type(value) is kind, where=value_where, found=_type_name(value), expected=_TYPE_NAMES[kind]
    )
    if kind is str:
        check(
            not SURROGATE.search(value),
            where=value_where,
            found="half of a surrogate pair",
            expected="Unicode text",
        )
    return value


def _question(values: Mapping[str, Any], context: str, where: str) -> QuestionExample:
    if type(values.get("id")) is int:  # as GermanQuAD has it
        identifier = str(values["id"])
    else:
        identifier = _field(values, "id", str, where)
    question = _field(values, "question", str, where)
    check(
        not context.isspace() and context != "",
        where=where,
        found="a context without text",
        expected="text",
    )
    return QuestionExample(identifier, question, context, _answers(values, where))


def _answers(values: Mapping[str, Any], where: str) -> tuple[tuple[str, int], ...] | None:
    """Return the answers of a question; None if the question has no field `answers`."""
    is_impossible = False
    if "is_impossible" in values:
        is_impossible = _field(values, "is_impossible", bool, where)
    if values.get("answers") is None and not is_impossible:
        return None
    answers = []
    if "answers" in values or not is_impossible:
        for answer in _objects(values, "answers", where):
            text = _field(answer.values, "text", str, answer.where)
            answers.append((text, _field(answer.values, "answer_start", int, answer.where)))
    check(
        not (answers and is_impossible),
        where=where,
        found="answers, and is_impossible true",
        expected="the one or the other",
    )
    return tuple(answers)


def _usable(
    questions: Iterable[LocatedQuestion], name: str, training: bool
) -> list[QuestionExample]:
    """Check the questions and return them; with `training` only those that can be trained on."""
    usable: list[QuestionExample] = []
    place_of_id: dict[str, str] = {}
    misplaced: list[str] = []  # the question's id for each answer
    left_out = 0
    for where, example in questions:
        # Official scripts and predictions know a question by its id alone.
        before = place_of_id.setdefault(example.id, where)
        check(
            before == where,
            where=where,
            found=f"the id {example.id} again, after {before}",
            expected="it once",
        )
        if not training:
            usable.append(example)
            continue
        check(
            example.answers is not None,
            where=where,
            found="no answers",
            expected="answers, to train on",
        )
        answers = example.answers or ()
        # run_squad.py also leaves out training answers that it cannot find in the paragraph.
        located = _located(example.context, answers)
        misplaced += [example.id] * (len(answers) - len(located))
        if answers and not located:
            left_out += 1
        else:
            usable.append(QuestionExample(example.id, example.question, example.context, located))
    total = len(place_of_id)
    if misplaced:
        log.warning(
            "%s: answers that are not where they say: %d, of the question %s first;"
            " questions left out: %d of %d",
            name,
            len(misplaced),
            misplaced[0],
            left_out,
            total,
        )
    check(total > 0, where=name, found="no question", expected="one or more")
    check(
        usable,
        where=name,
        found=f"no answer of {total} questions where it says",
        expected="answers to train on",
    )
    return usable


def _located(context: str, answers: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Return the answers that `locate` finds at their start in the paragraph."""
    located = []
    for text, start in answers:
        answer = locate(context, text, start)
        if answer is not None:
            located.append(answer)
    return tuple(located)


def locate(context: str, text: str, start: int) -> tuple[str, int] | None:
    """Return (text, begin) of the answer in `context`; None if the answer is not at `start`.

    The white space in `context` may differ from that in `text`, and there may be white space
    between `start` and the answer.
    """
    words = text.split()
    if not words or not 0 <= start < len(context):
        return None
    # An answer with white space at an end is left to the pattern, which takes it without.
    if context.startswith(text, start) and text == text.strip():
        return text, start
    pattern = r"\s*(" + r"\s+".join(re.escape(word) for word in words) + ")"
    match = re.compile(pattern).match(context, start)
    return (match[1], match.start(1)) if match else None


def write_predictions(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """Write `{id: text}`, which SQuAD's official scripts read; an empty text is "no answer"."""
    pairs = zip(examples, predictions, strict=True)
    _write(path, {example.id: prediction.text for example, prediction in pairs})


def write_n_best(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """Write `{id: [{text, probability, start_logit, end_logit}, ...]}`, the best answer first."""
    answers = {}
    for example, prediction in zip(examples, predictions, strict=True):
        answers[example.id] = [answer._asdict() for answer in prediction.n_best]
    _write(path, answers)


def write_null_odds(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """Write `{id: null_odds}`, the file for `--na-prob-file` of the script of version 2.0.

    Then also set the script's `--na-prob-thresh` to the null threshold, or to a large number: its
    default 1 is meant for probabilities.
    """
    pairs = zip(examples, predictions, strict=True)
    _write(path, {example.id: prediction.null_odds for example, prediction in pairs})


def _write(path: epath.PathLike, values: Mapping[str, Any]) -> None:
    # The file is ASCII, because the official scripts read with the machine's default encoding.
    write_whole(epath.Path(path), (json.dumps(values, indent=2) + "\n").encode())
