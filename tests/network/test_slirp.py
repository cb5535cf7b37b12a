"""Starting the process of the networks and talking to it: against a stand-in that answers as the protocol says."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rootless.errors import Conflict, HostUnsupported, RootlessError
from rootless.network import slirp

# --socket PATH --ready-fd N --log PATH: listens, notes its pid, and answers each request by its name.
STAND_IN = r"""
import json, os, socket, struct, sys
where = dict(zip(sys.argv[1::2], sys.argv[2::2]))
path = where["--socket"]
try:
    os.unlink(path)
except FileNotFoundError:
    pass
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen(64)
with open(path + ".pids", "a") as file:
    print(os.getpid(), os.getsid(0) == os.getpid(), sorted(os.environ), file=file)
os.write(int(where["--ready-fd"]), b"ready\n")
def answer(client, request, fds):
    op = request["op"]
    if op == "leave":
        os._exit(0)
    if op == "many":
        for number in range(3):
            said = {"ok": True, "items": [number], "named": {str(number): number}, "more": number < 2}
            client.send(json.dumps(said).encode())
    elif op == "refuse":
        client.send(json.dumps({"ok": False, "kind": request["kind"], "error": "no", "hint": "try"}).encode())
    elif op == "nonsense":
        client.send(b"[]")
    else:
        client.send(json.dumps({"ok": True, "pid": os.getpid(), "fds": [os.fstat(fd).st_ino for fd in fds]}).encode())
import select
clients = {}
poll = select.poll()
poll.register(listener, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            client, _ = listener.accept()
            clients[client.fileno()] = client
            poll.register(client, select.POLLIN)
            continue
        client = clients[fd]
        data, fds, _, _ = socket.recv_fds(client, 1 << 17, 8)
        if data:
            answer(client, json.loads(data), fds)
        else:
            poll.unregister(client)
            clients.pop(fd).close()
"""


class StandIn:
    """A run directory, and the command line of what is started in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.argv = [sys.executable, "-I", "-S", "-c", STAND_IN]

    def ensure(self) -> slirp.Connection:
        return slirp.ensure(str(self.directory), self.argv)

    def started(self) -> list[list[str]]:
        """What each process that was started noted of itself."""
        return [line.split(maxsplit=2) for line in (self.directory / "slirp.pids").read_text().splitlines()]


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    if (tmp_path / "slirp.pids").exists():
        for pid, _, _ in made.started():
            try:
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def test_it_is_started_once_in_a_session_of_its_own_without_environment(stand_in: StandIn) -> None:
    pids = set()
    for _ in range(2):
        with stand_in.ensure() as connection:
            pids.add(connection.request("hello")["pid"])
    ((pid, leads_session, environment),) = stand_in.started()
    assert pids == {int(pid)}
    assert leads_session == "True"
    assert environment in ("[]", "['LC_CTYPE']")  # which Python sets itself in the C locale, PEP 538


def test_many_at_once_start_one(stand_in: StandIn) -> None:
    code = (
        "import sys\n"
        "from rootless.network import slirp\n"
        "print(slirp.ensure(sys.argv[1], sys.argv[2:]).request('hello')['pid'])\n"
    )

    def command(_: int) -> str:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        root = Path(slirp.__file__).parents[2]
        arguments = [sys.executable, "-c", code, str(stand_in.directory), *stand_in.argv]
        actions = [(os.POSIX_SPAWN_DUP2, write_fd, 1)]
        pid = os.posix_spawn(sys.executable, arguments, {"PYTHONPATH": str(root)}, file_actions=actions)
        os.close(write_fd)
        with open(read_fd, encoding="ascii") as file:
            said = file.read()
        os.waitpid(pid, 0)
        return said.strip()

    with ThreadPoolExecutor(8) as pool:
        pids = set(pool.map(command, range(12)))
    ((pid, _, _),) = stand_in.started()
    assert pids == {pid}


def test_a_process_that_was_killed_is_followed_by_another(stand_in: StandIn) -> None:
    with stand_in.ensure() as connection:
        pid = connection.request("hello")["pid"]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with pytest.raises(slirp.Gone):
            connection.request("hello")
    with stand_in.ensure() as connection:
        assert connection.request("hello")["pid"] != pid


def test_answers_in_several_parts_are_one(stand_in: StandIn) -> None:
    with stand_in.ensure() as connection:
        assert connection.request("many") == {"items": [0, 1, 2], "named": {"0": 0, "1": 1, "2": 2}}


def test_descriptors_ride_along(stand_in: StandIn, tmp_path: Path) -> None:
    with stand_in.ensure() as connection, (tmp_path / "file").open("w") as file:
        assert connection.request("plug", [file.fileno()])["fds"] == [os.fstat(file.fileno()).st_ino]


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("Conflict", Conflict), ("HostUnsupported", HostUnsupported), ("os", RootlessError), ("", RootlessError)],
)
def test_a_refusal_is_raised_as_its_kind_with_its_hint(
    kind: str, raised: type[RootlessError], stand_in: StandIn
) -> None:
    with stand_in.ensure() as connection, pytest.raises(RootlessError, match=r"^no$") as refused:
        connection.request("refuse", kind=kind)
    assert type(refused.value) is raised
    assert refused.value.hint == "try"


def test_nonsense_is_an_error(stand_in: StandIn) -> None:
    with stand_in.ensure() as connection, pytest.raises(RootlessError, match="nonsense"):
        connection.request("nonsense")


def test_one_that_leaves_while_it_is_asked_is_gone(stand_in: StandIn) -> None:
    with stand_in.ensure() as connection, pytest.raises(slirp.Gone):
        connection.request("leave")


def test_what_keeps_it_from_starting_is_told(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('slirp: no /dev/net/tun\\n2023-11-14T22:13:20Z leaving\\n'); sys.exit(1)"
    argv = [sys.executable, "-I", "-S", "-c", code]
    with pytest.raises(HostUnsupported, match=r"does not start: no /dev/net/tun$") as refused:
        slirp.ensure(str(tmp_path), argv)
    assert refused.value.hint == f"its log is {tmp_path}/slirp.log; --network none and --network host do without it"


def test_what_ends_it_before_it_answers_is_told(tmp_path: Path) -> None:
    code = STAND_IN.replace("def answer", "sys.stderr.write('slirp: STACK does not start\\n'); sys.exit(1)\ndef answer")
    with pytest.raises(slirp.Gone, match=r"ends as soon as it starts: STACK does not start$"):
        slirp.begin(str(tmp_path), [sys.executable, "-I", "-S", "-c", code], None, "hello")


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostUnsupported, match=r"does not start: .*No such file"):
        slirp.ensure(str(tmp_path), ["/nonexistent"])


def test_what_is_to_be_done_before_is_done_in_the_process_and_its_failure_told(tmp_path: Path) -> None:
    def before() -> None:
        raise OSError(f"not in {os.getpid() != own}")

    own = os.getpid()
    with pytest.raises(HostUnsupported, match="does not start: not in True"):
        slirp.ensure(str(tmp_path), [sys.executable], before)


def test_a_socket_without_a_process_is_nobody(stand_in: StandIn) -> None:
    assert slirp.connect(str(stand_in.directory)) is None
    with stand_in.ensure() as connection:
        pid = connection.request("hello")["pid"]
        with pytest.raises(slirp.Gone):
            connection.request("leave")
    os.waitpid(pid, 0)
    assert (stand_in.directory / "slirp").exists()
    assert slirp.connect(str(stand_in.directory)) is None


def test_a_directory_whose_path_is_too_long_for_a_socket_will_do_to_connect(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.ensure().close()
    long = tmp_path / ("d" * 150)
    long.mkdir()
    (long / "slirp").symlink_to(tmp_path / "slirp")
    connection = slirp.connect(str(long))
    assert connection is not None
    connection.close()
