"""Names of subjects: which text may stand for somebody at all. Stops look-alikes. Pure.

Subjects are compared code point by code point with what the configuration says, so a look-alike is never taken for
somebody else by the code. A person who reads a log, an approval or a configuration would take it, though, and two
spellings of one name could be pinned as two people. So a name is ASCII, or it is in Normalization Form C (UAX #15),
of one script, without what cannot be seen and without letters that imitate Latin ones (UTS #39, sections 4 and 5).
"""

from __future__ import annotations

import unicodedata
from typing import Final

from ringfence.plugin.identity.errors import NAME_UNSAFE, IdentityError

MAX_NAME: Final = 512
"""Code points of a subject: an issuer's URL and the 255 characters of its `sub` (OpenID Connect Core, section 2)."""

# Letters of other scripts that look like Latin ones (UTS #39, confusables.txt): a name of nothing but these is refused,
# since a reader takes all of it for Latin.
_LATIN_LOOKALIKES: Final = frozenset("аАеЕоОрРсСхХуУіІјЈѕЅһҺԁԛԝВМНТКкмтвнοΟαΑΒΕΖΗΙιΚκΜΝνΡρΤτΥυΧχ")


def checked(text: str, *, field: str) -> str:
    """`text`, where it may name a subject. Raises `identity.name_unsafe` for anything else."""
    if not 0 < len(text) <= MAX_NAME:
        raise _unsafe(f"it has {len(text)} characters, not 1 to {MAX_NAME}", field)
    if text.isascii():
        if not text.isprintable() or text != text.strip():
            raise _unsafe("it has control characters, or spaces around it", field)
        return text
    if not unicodedata.is_normalized("NFC", text):
        raise _unsafe("it is not in Normalization Form C", field)
    # Category C covers controls, formats (bidirectional marks, joiners), surrogates, private and unassigned ones.
    if not all(unicodedata.category(character)[0] in "LNMPS" or character == " " for character in text):
        raise _unsafe("it has characters that cannot be seen", field)
    if unicodedata.normalize("NFKC", text) != text:
        raise _unsafe("it has compatibility characters, such as full-width letters", field)
    letters = [character for character in text if character.isalpha()]
    if len({_script(letter) for letter in letters}) > 1:
        raise _unsafe("it mixes scripts", field)
    if letters and _LATIN_LOOKALIKES.issuperset(letters):
        raise _unsafe("all its letters look like Latin ones and are none", field)
    return text


def _script(letter: str) -> str:
    # The first word of a letter's name is its script ("CYRILLIC SMALL LETTER A"); Japanese mixes three by design.
    script = unicodedata.name(letter, "UNNAMED").split(" ", 1)[0].split("-", 1)[0]
    return "JAPANESE" if script in {"HIRAGANA", "KATAKANA", "CJK"} else script


def _unsafe(why: str, field: str) -> IdentityError:
    return IdentityError(
        NAME_UNSAFE,
        f"This name is refused: {why}.",
        field=field,
        hint="Use a name in ASCII, or one that is spelled in a single script.",
    )
