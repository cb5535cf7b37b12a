"""Threads that move data, and end together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


class CancellingPool(ThreadPoolExecutor):
    """*count* threads. An exception in the main thread, Ctrl-C too, ends all of them: by *cancel*, their jobs fail."""

    def __init__(self, count: int, cancel: Callable[[], None]) -> None:
        super().__init__(count)
        self._cancel = cancel

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if kind is not None:
            self._cancel()
            self.shutdown(wait=True, cancel_futures=True)
        super().__exit__(kind, error, trace)
