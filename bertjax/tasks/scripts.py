"""The script of a text: whether it has spaces between words, and whether it is Chinese.

Metrics that compare words need it. Without spaces a whole sentence would be one word.
"""

import re
from enum import Enum

HAN = re.compile("[\u4e00-\u9fa5]")
"""The characters that the scripts of CMRC 2018 and MLQA take for Chinese."""
SPACELESS = re.compile(
    "["
    "\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han with extensions
    "\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a0-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3105-\u312f"  # Bopomofo
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59"  # Thai
    "\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Lao, Tibetan, Burmese, Khmer
    "]"
)
"""Characters of scripts that write no spaces between words."""


class Script(Enum):
    """What a metric has to know of a text's script."""

    CHINESE = "Chinese"
    SPACELESS = "another script without spaces, such as Japanese or Thai"
    SPACED = "a script with spaces"


def script_of(text: str) -> Script:
    """Return the script of a text; of a mixed one by its share of letters without spaces.

    A quarter of the letters is enough for `SPACELESS`, since a word of another script has more
    letters. It is `CHINESE` if nine tenths of these are Han: Japanese has as much kana as Han.
    """
    spaceless = len(SPACELESS.findall(text))
    # In XQuAD's 240 paragraphs the share is 0.47 or more in Chinese, where names are in Latin
    # letters, and 0.007 or less in English and German.
    if not spaceless or 4 * spaceless < sum(map(str.isalpha, text)):
        return Script.SPACED
    is_han = 10 * len(HAN.findall(text)) >= 9 * spaceless
    return Script.CHINESE if is_han else Script.SPACELESS
