"""What somebody may have meant who wrote a word that is not there."""

from collections.abc import Iterable
from itertools import islice


def near(word: str, known: Iterable[str]) -> str:
    """A hint that names the word of *known* which is like *word*; "" where none is."""
    import difflib  # 4 ms, and only wrong Dockerfiles need it

    # Neither a hostile word nor a long list of names may take seconds.
    found = difflib.get_close_matches(word[:64], list(islice(known, 200)), 1, 0.6)
    return f"did you mean {found[0]}?" if found else ""
