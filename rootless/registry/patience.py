"""Trying again: what may be passing (5xx, 429, a broken connection, silence) is given time, and not for ever."""

from collections.abc import Callable
from random import random
from typing import TypeVar

from rootless.errors import RegistryFailure
from rootless.registry.answers import TemporaryFailure
from rootless.registry.connections import Watch

T = TypeVar("T")


def patiently(watch: Watch, action: Callable[[], T], attempts: int | None = None) -> T:
    """What *action* brings, tried again after a growing pause while it fails in ways that pass.

    Raises the last failure after *attempts* (those of the watch's timing), and RegistryFailure where all is called off.
    """
    attempts = watch.timing.attempts if attempts is None else attempts
    failures = 0
    while True:
        try:
            return action()
        except TemporaryFailure as failure:
            failures = failures + failure.cost if failure.cost else 1
            if failures >= attempts:
                raise
            _pause(watch, failures, failure)


def _pause(watch: Watch, failures: int, failure: TemporaryFailure) -> None:
    wait = watch.timing.backoff * 2.0 ** (failures - 1) * (0.75 + random() / 2)
    if failure.retry_after is not None:
        if failure.retry_after > watch.timing.longest_wait:
            raise RegistryFailure(
                f"{failure}: it wants to be asked again in {failure.retry_after:.0f} seconds", hint=failure.hint
            ) from None
        wait = max(wait, failure.retry_after)
    if watch.cancelled.wait(wait):
        raise RegistryFailure("cancelled") from None
