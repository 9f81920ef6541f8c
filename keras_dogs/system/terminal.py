"""Makes text from outside safe to print: file names, arguments and messages of libraries, which may hold anything."""

import os
import sys
import unicodedata

_LONGEST = 2000
_CONTROLS = ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")
_DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # which can disguise a name


def one_line(text, longest: int = _LONGEST) -> str:
    """Returns text as one printable line of limited length.

    Args:
        text: str, or anything that `str` takes.
        longest: int. Characters; of more, the middle is left out.
    """
    line = printable(" ".join(str(text).split("\n"))).strip()
    if len(line) <= longest:
        return line
    half = (longest - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def printable(line) -> str:
    """Returns a line whose control characters are escapes: none of them reaches the terminal."""
    return "".join(_escaped(letter) if _is_control(letter) else letter for letter in str(line))


def lines(text) -> str:
    """Returns text with its line breaks, every other control character escaped."""
    return "\n".join(map(printable, str(text).split("\n")))


def _is_control(letter: str) -> bool:
    """Returns whether a character moves the cursor, changes the direction of text, or stands for nothing."""
    return unicodedata.category(letter) in _CONTROLS or letter in _DIRECTIONS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def accept_any_text() -> None:
    """Lets both output streams write names that their encoding does not have: as escapes, not as an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def forget_output() -> None:
    """Sends what is still to be written nowhere: whoever read it has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
