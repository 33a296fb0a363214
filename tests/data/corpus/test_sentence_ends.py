import re
import unicodedata
from collections import Counter

import pytest

from bertjax.config import DataConfig
from bertjax.data.corpus.sentences import make_splitter, split_sentences

LANGUAGES = {
    "hindi": ["डॉ. शर्मा आए।", "वे बैठे।", "फिर चले गए॥", "क्या हुआ?", "कुछ नहीं!"],
    "hindi, quotes": ["उसने कहा, “मैं आऊँगा।”", "फिर वह गया।", '"ठीक है।"', "वह बोला।"],
    "hindi, bars": ["वे बैठे|", "फिर चले गए|", "नाम | उम्र"],
    "hindi, full stops": ["यह अच्छा है.", "वह गया.", "फिर आया."],
    "sanskrit": ["समवेता युयुत्सवः ।", "किमकुर्वत सञ्जय ॥ १ ॥", "दृष्ट्वा तु ।"],
    "marathi with a verse": ["तो घरी गेला.", "ती आली.", "मग म्हणाला.", "मामकाः ॥ १ ॥", "ते गेले.", "तो आला."],
    "bengali": ["ড. ইউনূস এলেন।", "“কেন?”", "জানি না।"],
    "urdu": ["یہ کتاب ہے۔", "کیا تم آؤ گے؟", "ہاں!", "اس نے پی۔ایچ۔ڈی کی۔", "وہ گیا۔"],
    "arabic": ["ذهب د. محمد إلى البيت.", "هل أنت هنا؟", "نعم!", "قال: «أنا هنا.»", "ثم خرج."],
    "hebrew": ["הוא הלך הביתה.", "האם אתה כאן?", "בראשית ברא׃", "והארץ"],
    "armenian": ["Ես տուն գնացի։", "Ո՞վ է այնտեղ։", "«Ես եմ։»", "Նա եկավ։"],
    "armenian, colons": ["Ես տուն գնացի:", "Նա ասաց: այո:", "Վերջ:"],
    "amharic": ["እኔ ቤት ሄድኩ።", "እሱ መጣ።", "ማን ነው፧", "«እኔ ነኝ።»"],
    "amharic, typed": ["እኔ ቤት ሄድኩ፡፡", "እሱ መጣ::", "ማን ነው?"],
    "khmer": ["ខ្ញុំទៅផ្ទះ។", "គាត់មក។ល។", "ចប់៕", "តើអ្នកណា?"],
    "burmese": ["ကျွန်တော်အိမ်ပြန်တယ်။", "သူ၊ မမ လာတယ်။", "ဘယ်သူလဲ။"],
    "tibetan": ["༄༅། །བོད་ཡིག་ནི་ལེགས་སོ། །", "ང་འགྲོ་གི་ཡིན།", "ཁྱེད་རང་འགྲོ༎"],
    "greek": ["Πού πας;", "«Τι;» είπε.", "Μετά («γιατί»); Όχι· ποτέ."],
    "greek, lower-cased": ["πού πας;", "πάω σπίτι.", "μετά έφυγε."],
    "japanese, halfwidth": ["ｱﾒﾃﾞｽ｡", "「はい｡」", "そうです．", "精度は３．１４です．"],
    "japanese": ["「行こう。」", "彼は言った。", "本当？！", "すごい‼", "次へ。"],
    "japanese, narrow marks": ["こんにちは!", "元気?!", "はい。"],
    "tamil": ["அவர் வந்தார்.", "மு. கருணாநிதி, எம். ஜி. பேசினார்.", "ஏன்?"],
    "telugu": ["ఆయన వచ్చారు.", "డా. రావు వెళ్లారు."],
    "gujarati": ["આ સારું છે.", "તે ગયો."],
    "korean": ["나는 집에 갔다.", "네.", "누구?", '"나야."', "그가 말했다."],
    "russian": ["А. С. Пушкин родился.", "Он писал стихи, т. е. был поэтом.", "См. рис. 3.", "Это я!"],
    "russian, lower-cased": ["а. с. пушкин родился.", "он писал, т. е. был поэтом.", "это я!"],
    "turkish, lower-cased": ["dr. ayşe geldi.", "iyi misin?", "19. yüzyılda yaşadı.", "gitti."],
    "german": ["Er rief: „Halt!“", "Dann lief er.", "»Nein.«", "Das ist z. B. Gold bzw. Silber."],
    "french": ["Il dit : « Non ! »", "Puis il partit.", "« Oui. » dit-il."],
    "spanish": ["¿Qué?", "¡Nada!", "El Sr. López vino."],
    "georgian": ["გამარჯობა.", "მე ვარ Apple-ში.", "როგორ ხარ?", "კარგად."],
    "mongolian": ["ᠮᠣᠩᠭᠣᠯ᠃", "ᠬᠡᠯᠡ᠃"],
    "chakma": ["𑄇𑄈𑅁", "𑄉𑄊𑅁", "Nice 😀!", "Ok."],
    "english, lower-cased": [
        "mr. smith met j. r. doe.", "they spoke, e.g. of dr. jones.", "he said no.",
        "see no. 5 and fig. 2.", '"stop!" he cried.', '"i see."', "it was 3.50 p.m. in 1999.",
        "the u.s.a. has 50 states, approx. ten of them large.", "NUM of them left.", "why not?",
    ],
    "english, tokenised": ["the lobster , h. americanus , is big ( 24 in ) .", "it swims .", "why ?"],
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_end_where_a_reader_of_the_language_would_end_them(language):
    sentences = LANGUAGES[language]
    text = " ".join(sentences)
    assert split_sentences(text) == sentences
    # A line's end in the midst of a sentence is a space.
    assert split_sentences(text.replace(" ", "\n")) == sentences
    # NFC, which every text has by then, changes nothing.
    composed = unicodedata.normalize("NFC", text)
    assert split_sentences(composed) == [unicodedata.normalize("NFC", s) for s in sentences]


@pytest.mark.parametrize("mark", "。！？｡।॥։።፧።។៕။།༎‼⁉﹗᠃")
def test_these_marks_need_no_space_and_keep_what_closes(mark):
    assert split_sentences(f"ab{mark}cd{mark}{mark}”ef{mark}") == [
        f"ab{mark}",
        f"cd{mark}{mark}”",
        f"ef{mark}",
    ]


def test_the_greek_question_mark_is_read_before_and_after_nfc():
    assert split_sentences("Πού\u037e Εδώ.") == ["Πού\u037e", "Εδώ."]
    assert split_sentences("Πού; Εδώ.") == ["Πού;", "Εδώ."]


@pytest.mark.parametrize("text", [
    "One; Two; «mot»; Autre", "At 10:30: Nothing", "သူ၊ မမ", "Version ３．１４ of Ｕ．Ｓ．Ａ",
    "پی۔ایچ۔ڈی", "พ.ศ. ๒๕๕๐ ดร. สมชาย", "α: Β", "Նա ասաց. Այո",
])  # fmt: skip
def test_what_looks_like_a_mark_but_ends_nothing(text):
    own_mark = " Վերջ։" if "Նա" in text else ""
    assert split_sentences(text + own_mark) == [text + own_mark]


def test_a_text_counts_as_lower_cased_by_its_own_letters_alone():
    small, capitals = "it ran. it sat. ", "It ran. It sat, e.g. there. "
    assert len(split_sentences(small * 100)) == 200
    # One capital in 1,000 letters, as a name that was missed, changes nothing; a cased text has
    # more.
    assert len(split_sentences("It ran. " + small * 100)) == 201
    assert len(split_sentences(capitals * 100)) == 200
    assert split_sentences("See os.path. and so on.") == ["See os.path. and so on."]
    # Few capitals are many among few letters that could be capitals.
    chinese = "今天很好。" * 1000
    sentences = split_sentences(f"{chinese} Mr. Smith uses os.path. and so on.")
    assert sentences[-1] == "Mr. Smith uses os.path. and so on."
    # Placeholders in capitals stand in lower-cased text too.
    assert split_sentences("the URL is NUM. it ran.") == ["the URL is NUM.", "it ran."]


def test_all_sentence_terminals_of_unicode_end_a_sentence_but_those_named():
    properties = pytest.importorskip("regex", reason="it knows the properties of Unicode")
    terminals = [
        chr(code)
        for code in range(0x80, 0x20000)
        if not 0xD800 <= code < 0xE000 and properties.match(r"\p{Sentence_Terminal}", chr(code))
    ]
    missed = {mark for mark in terminals if len(split_sentences(f"ab{mark} cd")) == 1}
    newer = {mark for mark in missed if unicodedata.category(mark) == "Cn"}
    assert missed - newer == set("\u104a\ua9c8\u1b5e\u1735\u2024")


def test_sentences_of_a_long_text_take_time_in_proportion():
    # A quadratic search would take minutes.
    assert len(split_sentences("A. b. c. d. " * 50_000)) == 1
    for start in ("", "é"):
        for middle in ("." * 200_000, ".'" * 50_000, "།, " * 20_000, " " * 200_000):
            assert split_sentences(f"{start}a{middle}b")
            assert make_splitter(DataConfig(sentences="wrapped"), "file", Counter())(f"字{middle}b")
    assert len(re.findall("।", "".join(split_sentences("अ। " * 20_000)))) == 20_000
