"""Show text of files and stores safely: control characters are written out. Pure; imports nothing of ours."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["visible", "visible_json", "visible_lines"]

# C0 but tab, DEL and C1 (a terminal's commands), separators of lines, directions of writing, halves of surrogate pairs
OBEYED: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def visible(text: str) -> str:
    r"""Text with every control character as an escape, including line ends.

    >>> print(visible("put it\x1b[2J away\n"))
    put it\x1b[2J away\x0a
    """
    return OBEYED.sub(_escape, text)


def visible_lines(text: str) -> str:
    """The same for a text with several lines, whose line ends are kept."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    r"""JSON with the same characters as JSON escapes; line ends stay only between values.

    >>> print(visible_json('["a\x9b2J"]'))
    ["a\u009b2J"]
    """
    return OBEYED.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
