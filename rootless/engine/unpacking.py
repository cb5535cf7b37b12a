"""The workers that unpack layers: started once per pull or load, each a process, used from any thread."""

import base64
import errno
import json
import os
import queue
from collections.abc import Callable
from typing import IO, Any

from rootless import errors
from rootless.errors import RootlessError
from rootless.runtime import sealed
from rootless.store.marks import WhiteoutStyle

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORKER = "rootless.store.unpack_worker"


class Worker:
    """One process: see store/unpack_worker.py."""

    def __init__(self, style: WhiteoutStyle) -> None:
        self._style = style
        to_read, self._to_write = os.pipe2(os.O_CLOEXEC)
        self._answers_fd, answers = os.pipe2(os.O_CLOEXEC)
        command = sealed.command(_WORKER, third_party=True)
        actions = [(os.POSIX_SPAWN_DUP2, to_read, 0), (os.POSIX_SPAWN_DUP2, answers, 1)]
        self.pid = os.posix_spawn(command[0], command, {}, file_actions=actions)
        os.close(to_read)
        os.close(answers)
        self._requests: IO[str] = os.fdopen(self._to_write, "w", encoding="ascii")
        self._answers: IO[str] = os.fdopen(self._answers_fd, encoding="ascii")

    def unpack(self, blob: str, target: str, progress: Callable[[int], None]) -> dict[str, Any]:
        """Unpack the layer; its answer. Raises what went wrong there: OSError for a full disk."""
        self._requests.write(json.dumps({"blob": blob, "target": target, "whiteouts": self._style.value}) + "\n")
        self._requests.flush()
        for line in self._answers:
            answer: dict[str, Any] = json.loads(line)
            if "done" in answer:
                progress(answer["done"])
            elif answer.get("errno") in DISK_FULL:
                raise OSError(answer["errno"], answer["message"])
            elif "error" in answer:
                raise getattr(errors, answer["error"], RootlessError)(answer["message"])
            else:
                for name in ("implicit", "marked"):
                    answer[name] = [base64.b64decode(path) for path in answer[name]]
                return answer
        raise RootlessError("the process that unpacks layers died", hint="perhaps the machine is short of memory")

    def abort(self) -> None:
        """Kill the process; whoever waits for its answer gets an error. It is closed later."""
        os.kill(self.pid, 9)

    def close(self) -> None:
        """End the process: at once if it has nothing to do, else by SIGKILL."""
        try:
            self._requests.close()
        except OSError:
            pass  # it is dead already
        self._answers.close()
        try:
            os.kill(self.pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)


class Workers:
    """As many as there are processors, at most *wanted*. Started before the caller has threads.

    *style* is how they mark what a layer takes away.
    """

    def __init__(self, wanted: int, style: WhiteoutStyle) -> None:
        count = max(1, min(wanted, len(os.sched_getaffinity(0))))
        self._all = [Worker(style) for _ in range(count)]
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._all:
            self._free.put(worker)

    def unpack(self, blob: str, target: str, progress: Callable[[int], None]) -> dict[str, Any]:
        """Have the next free worker unpack a layer; waits for one. From any thread."""
        worker = self._free.get()
        try:
            return worker.unpack(blob, target, progress)
        finally:
            self._free.put(worker)

    def abort(self) -> None:
        """Kill them all, so that no thread waits for one any longer."""
        for worker in self._all:
            worker.abort()

    def close(self) -> None:
        """End them all."""
        for worker in self._all:
            worker.close()
