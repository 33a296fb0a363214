from bertjax.tasks.error_tables import MAX_ANSWER, MAX_ERRORS, MAX_TEXT, Mistake, worst_mistakes


def test_the_worst_mistakes_come_first_and_equal_ones_keep_their_order():
    severities = [0.5, 0.9, 0.5, 2.0]
    result = worst_mistakes(
        Mistake(severity, f"text {n}", "a", "b") for n, severity in enumerate(severities)
    )
    assert [error["text"] for error in result] == ["text 3", "text 1", "text 0", "text 2"]


def test_few_mistakes_are_kept_and_long_texts_are_cut():
    result = worst_mistakes([Mistake(1.0, "x" * 5000, "y" * 5000, "z" * 5000)] * (MAX_ERRORS + 1))
    assert len(result) == MAX_ERRORS
    assert result[0] == {
        "text": "x" * MAX_TEXT,
        "expected": "y" * MAX_ANSWER,
        "predicted": "z" * MAX_ANSWER,
    }
