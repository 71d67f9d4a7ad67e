"""A text -> its language, one of mBART-50's."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

CODES = (
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN",
    "it_IT", "ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO",
    "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN", "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL",
    "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN", "mr_IN", "pl_PL", "ps_AF",
    "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK", "xh_ZA",
    "gl_ES", "sl_SI",
)  # fmt: skip
"""The documented languages, as mBART-50 writes them."""

ENGLISH = "en_XX"

MIN_ASCII_PROBABILITY = 0.5
"""The probability below which a text of ASCII letters counts as English: names look like any language."""

MIN_PROBABILITY = 0.1
"""The probability below which the model knows nothing of the text: most often it is a single character."""

_BY_ISO = {code[:2]: code for code in CODES}
_HAN = re.compile(r"[\u3400-\u9fff]")


def detect(text: str) -> str:
    """The language of a text, as one of `CODES`; English where it cannot be told.

    Args:
        text: prose, without weights and brackets.
    """
    iso, probability = _identifier().classify(text)
    if text.isascii() and probability < MIN_ASCII_PROBABILITY:
        return ENGLISH
    if probability < MIN_PROBABILITY:
        return "zh_CN" if _HAN.search(text) else ENGLISH
    return _BY_ISO[str(iso)]


@cache
def _identifier() -> Any:
    """The model of languages; loading it takes most of a second."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(_BY_ISO))
    return identifier
