"""SQuAD's files, version 1.1 (arXiv 1606.05250) and 2.0 (arXiv 1806.03822): questions in,
predictions out.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from bertjax.data.corpus.formats import one_line, tfds_builder
from bertjax.errors import UserError, check, needs_extra
from bertjax.storage import read_json, write_whole
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.answers import SpanPrediction

log = logging.getLogger("bertjax")


def read_squad(path: epath.PathLike, *, training: bool) -> list[QuestionExample]:
    """The questions of a SQuAD file, in its order: `data[].paragraphs[]` with `context` and
    `qas[]`.

    A question that `is_impossible` has no answers, whatever its `plausible_answers`; one without
    the field `answers` has None, where it is not `training`. In training each answer must stand in
    the paragraph where it says: one that differs in white space alone is found, others are left
    out, and questions that are left with none too; the log says how many. Else answers are as the
    file has them, for scores are of their texts.

    Raises `UserError` naming the file and the place in it (data[3].paragraphs[0].qas[2]) where it
    is no such file.
    """
    path = epath.Path(path)
    return _usable(_file_questions(path), str(path), training)


def read_tfds(name: str, split: str, *, training: bool) -> list[QuestionExample]:
    """The questions of a split of `tfds:squad`, `tfds:squad/v2.0` and others with these fields; as
    `read_squad`.

    The fields are id, question, context and answers {text, answer_start}, and is_impossible where
    there is such. Raises `UserError` where the set cannot be loaded, has no such split, or has
    other fields.
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
    try:
        records = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
    except tf.errors.OpError as error:
        raise UserError(
            f"{name}, {split}: is truncated or damaged ({one_line(error.message)})"
        ) from error
    return _usable(tfds_questions(records, f"{name}, {split}"), f"{name}, {split}", training)


def tfds_questions(
    records: Iterable[Mapping[str, Any]], name: str
) -> Iterator[tuple[str, QuestionExample]]:
    """(where it is, the question) of each record of TFDS, which has text as bytes and lists of
    records as arrays.
    """
    for number, record in enumerate(records):
        where = f"{name}, example {number}"
        fields: dict[str, Any] = {key: _text(value) for key, value in record.items()}
        answers = fields.get("answers")
        if isinstance(answers, Mapping) and {"text", "answer_start"} <= set(answers):
            texts, starts = answers["text"], answers["answer_start"]
            pairs = zip(texts, starts, strict=True)
            fields["answers"] = [
                {"text": _text(text), "answer_start": int(start)} for text, start in pairs
            ]
        if "is_impossible" in fields:
            fields["is_impossible"] = bool(fields["is_impossible"])
        yield where, _question(fields, _field(fields, "context", str, where), where)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _file_questions(path: epath.Path) -> Iterator[tuple[str, QuestionExample]]:
    for article, in_article in _list(read_json(path), "data", f"{path}:"):
        for paragraph, in_paragraph in _list(article, "paragraphs", in_article):
            context = _field(paragraph, "context", str, in_paragraph)
            for question, where in _list(paragraph, "qas", in_paragraph):
                yield where, _question(question, context, where)


def _list(
    values: Mapping[str, Any], key: str, where: str
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """(the object, where it is) of each in the list at `key`."""
    for number, value in enumerate(_field(values, key, list, where)):
        place = f"{_place(where, key)}[{number}]"
        check(isinstance(value, dict), where=place, found=_kind(value), expected="an object")
        yield value, place


def _place(where: str, key: str) -> str:
    """The name of a field of what is at `where`; the whole file is at "FILE:"."""
    return where + (" " if where.endswith(":") else ".") + key


_NAMES = {
    str: "text",
    list: "a list",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
}


def _kind(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")


def _field(values: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """The value of a field that must be there, and of this very type; text must be Unicode that can
    be written.
    """
    check(
        key in values,
        where=where.removesuffix(":"),
        found=f"no {key}",
        expected=f"{key}, {_NAMES[kind]}",
    )
    value = values[key]
    check(type(value) is kind, where=_place(where, key), found=_kind(value), expected=_NAMES[kind])
    if kind is str:
        check(
            not _SURROGATE.search(value),
            where=_place(where, key),
            found="half of a surrogate pair",
            expected="Unicode text",
        )
    return value


_SURROGATE = re.compile("[\ud800-\udfff]")


def _question(values: Mapping[str, Any], context: str, where: str) -> QuestionExample:
    number = type(values.get("id")) is int  # as GermanQuAD has it
    identifier = str(values["id"]) if number else _field(values, "id", str, where)
    question = _field(values, "question", str, where)
    check(
        not context.isspace() and context != "",
        where=where,
        found="a context without text",
        expected="text",
    )
    impossible = (
        _field(values, "is_impossible", bool, where) if "is_impossible" in values else False
    )
    answers = None
    if values.get("answers") is not None or impossible:
        given = _list(values, "answers", where) if not impossible or "answers" in values else ()
        found = [
            (_field(a, "text", str, at), _field(a, "answer_start", int, at)) for a, at in given
        ]
        check(
            not (found and impossible),
            where=where,
            found="answers, and is_impossible true",
            expected="the one or the other",
        )
        answers = tuple(found)
    return QuestionExample(identifier, question, context, answers)


def _usable(
    questions: Iterable[tuple[str, QuestionExample]], name: str, training: bool
) -> list[QuestionExample]:
    """The questions, each id once; in training those that can be learnt from."""
    kept: list[QuestionExample] = []
    seen: dict[str, str] = {}
    wrong: list[str] = []
    skipped = 0
    for where, example in questions:
        before = seen.setdefault(example.id, where)
        check(
            before == where,
            where=where,
            found=f"the id {example.id} again, after {before}",
            expected="it once",
        )
        if training:
            check(
                example.answers is not None,
                where=where,
                found="no answers",
                expected="answers, to train on",
            )
            located = tuple(
                filter(None, (locate(example.context, *answer) for answer in example.answers or ()))
            )
            wrong += [example.id] * (len(example.answers or ()) - len(located))
            if example.answers and not located:
                skipped += 1
                continue
            example = QuestionExample(example.id, example.question, example.context, located)
        kept.append(example)
    if wrong:
        message = "%s: answers that are not where they say: %d, of the question %s first; questions left out: %d of %d"
        log.warning(message, name, len(wrong), wrong[0], skipped, len(seen))
    check(seen, where=name, found="no question", expected="one or more")
    check(
        kept,
        where=name,
        found=f"no answer of {len(seen)} questions where it says",
        expected="answers to train on",
    )
    return kept


def locate(context: str, text: str, start: int) -> tuple[str, int] | None:
    """The answer as it stands in `context`, (text, begin), where but white space differs from
    `text` at `start`.

    None where something else stands there. `start` may be before white space that the answer
    follows, and in the white space before it.
    """
    words = text.split()
    if not words or not 0 <= start < len(context):
        return None
    if context.startswith(text, start) and text == text.strip():
        return text, start
    found = re.compile(r"\s*(" + r"\s+".join(map(re.escape, words)) + ")").match(context, start)
    return (found[1], found.start(1)) if found else None


def write_predictions(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """`{id: text}`, which SQuAD's official scripts read; an empty text says that there is no
    answer.
    """
    _write(path, {example.id: p.text for example, p in zip(examples, predictions, strict=True)})


def write_n_best(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """`{id: [{text, probability, start_logit, end_logit}, ...]}`, the best first."""
    fields = ("text", "probability", "start_logit", "end_logit")
    _write(
        path,
        {
            example.id: [dict(zip(fields, answer, strict=True)) for answer in p.n_best]
            for example, p in zip(examples, predictions, strict=True)
        },
    )


def write_null_odds(
    path: epath.PathLike, examples: Sequence[QuestionExample], predictions: Sequence[SpanPrediction]
) -> None:
    """`{id: null_odds}`, which the script of 2.0 takes as `--na-prob-file`.

    Its `--na-prob-thresh` must then be the null threshold too, or large: 1, the default, is for
    probabilities.
    """
    _write(
        path, {example.id: p.null_odds for example, p in zip(examples, predictions, strict=True)}
    )


def _write(path: epath.PathLike, values: Mapping[str, Any]) -> None:
    # In ASCII: the official scripts read in whatever encoding the machine prefers.
    write_whole(epath.Path(path), (json.dumps(values, indent=2) + "\n").encode())
