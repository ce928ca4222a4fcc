"""Which letter an answer chooses."""

import re

from zooter_hf.rewards.teachers.boxes import last_box


# What may stand before a letter that is boxed or announced: brackets, emphasis, quotes, LaTeX. Repetitions here and
# below are bounded, so that a model that repeats itself takes no quadratic time.
_OPENING = r"(?:\\(?:text|mathrm|mathbf|textbf)\{|\\?[(\[{]|[*_`\"'\u201c\u2018$]){0,8}"
_CLOSING = r"[)\]}*_`\"'\u201d\u2019$.:\s]{0,16}"
_ANNOUNCED = (
    r"(?:\b(?:answer|choice|verdict)\b[*_`]{0,3}(?:\s(?:is|would be|should be|must be))?\s?[:=]?"
    r"|\b(?:correct|right|best|better)\s(?:option|one|response)\b[*_`]{0,3}(?:\sis)?\s?[:=]?)[*_`]{0,3}\s?"
    r"(?:(?:option|choice|answer|letter)\s)?"
)
_REJECTING = (
    r"\b(?:not|isn['\u2019]t|than|instead of|(?:incorrect|wrong|worse) (?:answer|option|choice) is)\s(?:option\s)?"
)


def read_choice(text: str, letters: str = "ABCDEFGHIJ") -> str | None:
    r"""Reads the letter that an answer chooses.

    The strongest sign that occurs decides: a `\boxed{B}`; "the answer is B" or "Answer: B"; a letter that is marked,
    as in "(B)", "**B**", or "B)" and "B." at the beginning of a line; a capital letter by itself. Lower case counts
    where it is boxed or marked, or announced and nothing but punctuation follows. "A" before a word is an article and
    "I" a pronoun, unless they are marked or announced; a letter that is rejected ("not B", "B is wrong") does not
    count.

    Args:
        text: The answer.
        letters: The letters that there are to choose from, in upper case.

    Returns:
        The letter in upper case; `None` if there is none, or the strongest sign points to several.
    """
    capital, small = f"[{letters}]", f"[{letters.lower()}]"
    either = f"[{letters}{letters.lower()}]"
    box = last_box(text)
    if box is not None and (match := re.fullmatch(rf"\s*{_OPENING}({either}){_CLOSING}", box)):
        return match[1].upper()

    text = "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
    rejected = rf"[(\[*\"']{{0,3}}{capital}\b[)\]*\"']{{0,3}}"
    text = re.sub(rf"(?i:{_REJECTING}){rejected}|{rejected}\s(?:is|was)\s(?:not\b|incorrect|wrong|false)", " ", text)
    ends = r"(?=[)\]}*_.,;:!\"']|[^\w\n]*(?:\n|$))"  # a small letter before a word is an article or the like
    marked = rf"(?<!\w)\\?[(\[{{]\s?({either})\s?[)\]}}]|[*_`]{{1,3}}[(\[]?({either})[)\].:]{{0,2}}[*_`]{{1,3}}"
    second = rf"(?:{_CLOSING}(?:or|and|/|,|&)\s?{_OPENING}({capital})(?![\w'\u2019-]))?"  # "A or B"
    article = r"A\s(?!(?:or|and|is|was|because|since|as|over|but)\b)\w"
    signs = (
        rf"(?i:{_ANNOUNCED}{_OPENING})({capital}(?![\w'\u2019-])|{small}{ends}){second}",
        rf"{marked}|(?:^|\n)[*_`]{{0,3}}({either})(?:[).:](?=\s|$)|(?=\n|$))",
        rf"(?<![\w'\u2019\\-])(?!{article}|I\b)({capital})(?![\w'\u2019-])",
    )
    for sign in signs:
        chosen = {group.upper() for match in re.finditer(sign, text) for group in match.groups() if group}
        if chosen:
            return chosen.pop() if len(chosen) == 1 else None
    return None
