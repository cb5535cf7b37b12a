"""Untrusted text on its way to a terminal: what would steer the terminal is shown instead.

Names, labels, registry errors and log fields come from strangers. An escape sequence in one of them can rewrite the
screen, set the clipboard (OSC 52) or answer as if the user had typed; a bidirectional override can show a line
that is not the one there. Files and pipes get the bytes as they are: a program on the other end has to see the truth.
A container's own stream is the one thing that reaches a terminal raw, and does not pass through here.
"""

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import TextIO

# C0, DEL and C1 controls; line and paragraph separators; bidirectional embeddings, overrides and isolates. Also lone
# surrogates: the bytes of a name that is not UTF-8, which os.fsdecode hides in U+DC80 to U+DCFF.
_ESCAPES: dict[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
    **{code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)},
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
_ESCAPES_BUT_LINES = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}


def visible(text: str, *, lines: bool = False) -> str:
    """*text* with everything escaped that steers a terminal; *lines* lets newlines and tabs through."""
    if text.isprintable():
        return text
    return text.translate(_ESCAPES_BUT_LINES if lines else _ESCAPES)


def for_stream(text: str, stream: "TextIO", *, lines: bool = False) -> str:
    """*text* as it may be written to *stream*: visible() on a terminal, unchanged elsewhere."""
    return visible(text, lines=lines) if stream.isatty() else text
