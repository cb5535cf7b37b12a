"""--ssh: the agents that steps and repositories may ask.

An agent of the user's is a socket. Key files go into an agent of the build's own, begun when it is first needed: what
runs in a step may have something signed, and cannot read a key. It goes with the build, however that ends:

    ssh-agent -a agent sh     whose input is a pipe from the build: when that is closed, sh ends the agent
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock

from rootless.engine.build_options import Ssh
from rootless.errors import InvalidInput, NotFound

_SCRIPT = 'echo; cat >/dev/null; kill "$SSH_AGENT_PID"'
_PASSPHRASE = "a key with a passphrase has to be in your agent: ssh-add it, and say --ssh default"


class Agents:
    """The agents of one build; to be closed."""

    def __init__(self, asked: Sequence[Ssh], aside: Callable[[], str]) -> None:
        """*aside* makes a directory that goes with the build."""
        self._asked = {agent.id: agent for agent in asked}
        self._aside = aside
        self._sockets: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = Lock()

    def close(self) -> None:
        """End those of our own."""
        for process in self._processes:
            with process:
                if process.stdin:
                    process.stdin.close()

    def socket(self, name: str) -> str:
        """The socket of the agent *name*; empty where --ssh has none. Raises InvalidInput for what is none."""
        agent = self._asked.get(name)
        if agent is None:
            return ""
        with self._lock:
            if name not in self._sockets:
                self._sockets[name] = self._begin(agent) if agent.keys else _checked(agent)
            return self._sockets[name]

    def _begin(self, agent: Ssh) -> str:
        """An agent that has the keys."""
        if not (shutil.which("ssh-agent") and shutil.which("ssh-add")):
            raise NotFound(f"--ssh {agent.id}: ssh-agent is not installed", hint="install openssh-client")
        place = self._aside()
        begun = subprocess.Popen(
            ["ssh-agent", "-a", "agent", "sh", "-c", _SCRIPT],  # in *place*: a socket's path must be short
            cwd=place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(begun)
        if not begun.stdout or not begun.stdout.read(1):  # of sh, which comes when the agent is there
            raise InvalidInput(f"--ssh {agent.id}: ssh-agent does not start")
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "SSH_AUTH_SOCK": "agent"}
        environment["SSH_ASKPASS_REQUIRE"] = "never"
        for key in agent.keys:
            added = subprocess.run(
                ["ssh-add", "-q", key],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                start_new_session=True,  # without a terminal, at which it would ask
            )
            if added.returncode:
                said = added.stderr.decode(errors="replace").strip().splitlines()
                raise InvalidInput(f"--ssh {agent.id}: {key}: {said[-1] if said else 'no key'}", hint=_PASSPHRASE)
        return os.path.join(place, "agent")


def _checked(agent: Ssh) -> str:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(agent.socket).st_mode):
            return agent.socket
        raise InvalidInput(f"--ssh {agent.id}: {agent.socket} is neither an agent's socket nor a key")
    raise InvalidInput(f"--ssh {agent.id}: {agent.socket}: No such file or directory")
