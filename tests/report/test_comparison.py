"""A plot of several curves: each a line with its name, and a level to compare with."""

import re

from bertjax.report.comparison import Line, draw_lines


def test_each_line_is_drawn_with_its_name_and_a_level_is_dashed():
    lines = [Line("a", [0, 10], [3.5, 2.5]), Line("level", [0, 10], [3.0, 3.0], is_level=True)]
    drawn = draw_lines("bits", "Bits per byte <of text>", "tokens", lines)
    assert 'id="plot-bits"' in drawn
    assert "Bits per byte &lt;of text&gt;" in drawn
    assert re.findall(r'"name":"(\w+)"', drawn) == ["a", "level"]
    assert drawn.count('"dash":"dash"') == 1
    # The page has the script once, in its head.
    assert "<script src" not in drawn


def test_without_lines_the_plot_says_so():
    assert "nothing measured yet" in draw_lines("bits", "Bits", "tokens", [])
