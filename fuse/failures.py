"""Mistakes of ours, told of on standard error."""

import sys
import traceback


class Failures:
    """Says of each place once that something went wrong there."""

    def __init__(self) -> None:
        self._seen: set[object] = set()

    def tell(self, error: Exception) -> None:
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = (type(error), last and (last.tb_frame.f_code, last.tb_lineno))
        if place not in self._seen:
            self._seen.add(place)
            sys.stderr.write("fuse: a mistake in the file system; whoever asked gets EIO:\n")
            traceback.print_exception(error)
            sys.stderr.flush()
