"""The script of a text."""

import pytest

from bertjax.tasks.scripts import Script, script_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("text,script", [
    ("", Script.SPACED),
    ("The leader was John Smith.", Script.SPACED),
    ("The word 北京 is the name of a city in the north of China.", Script.SPACED),
    ("北京是中华人民共和国的首都，英文名是Beijing。", Script.CHINESE),
    ("NBA由National Basketball Association的首字母组成，是美国的职业篮球联赛。", Script.CHINESE),
    ("東京は日本の首都である。", Script.SPACELESS),
    ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", Script.SPACELESS),
    ("서울은 대한민국의 수도이다.", Script.SPACED),
    ("القاهرة عاصمة مصر", Script.SPACED),
    ("दिल्ली भारत की राजधानी है।", Script.SPACED),
    ("😀 1949 ！", Script.SPACED),
])  # fmt: skip
def test_chinese_and_other_scripts_without_spaces_are_told_by_their_letters(text, script):
    assert script_of(text) is script
