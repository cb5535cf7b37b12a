"""As much of D-Bus as it takes to call a method on a unix socket, and to wait for a signal. D-Bus Specification 0.41.

A library would be imported for each container with a limit, and costs more than the call: dbus-python and PyGObject are
not packages that pip can install everywhere, the pure ones load asyncio. Here are the handful of types that we send.

Values are marshalled as they are aligned: a string is its length, its bytes and a NUL; an array the length of its
elements, which begin at a multiple of their own alignment; a struct begins at a multiple of 8. We say who we are by the
socket alone (EXTERNAL without an id): in a user namespace we do not know our number outside.
"""

import _socket
import os

from rootless.errors import HostUnsupported

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_MAX_MESSAGE = 1 << 20
_HELLO = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
_SECONDS = 20.0
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class Writer:
    """Marshals values, little-endian, one after another."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        """Fill up to a multiple of *size*."""
        self.data += bytes(-len(self.data) % size)

    def uint32(self, value: int) -> None:
        """A `u`."""
        self.align(4)
        self.data += value.to_bytes(4, "little")

    def boolean(self, value: bool) -> None:
        """A `b`."""
        self.uint32(int(value))

    def string(self, text: str) -> None:
        """An `s`, or an `o`."""
        raw = text.encode()
        self.uint32(len(raw))
        self.data += raw + b"\0"

    def signature(self, text: str) -> None:
        """A `g`; and what a variant begins with."""
        raw = text.encode("ascii")
        self.data += bytes([len(raw)]) + raw + b"\0"

    def begin_array(self, alignment: int) -> tuple[int, int]:
        """An `a` of elements of this alignment; what is returned goes to end_array."""
        self.uint32(0)
        place = len(self.data) - 4
        self.align(alignment)
        return place, len(self.data)

    def end_array(self, begun: tuple[int, int]) -> None:
        """Its elements are written."""
        place, first = begun
        self.data[place : place + 4] = (len(self.data) - first).to_bytes(4, "little")


class Reader:
    """Takes strings and numbers out of a message's body."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self._at = data, at

    def uint32(self) -> int:
        """A `u`."""
        self._at += -self._at % 4
        self._at += 4
        return int.from_bytes(self._data[self._at - 4 : self._at], "little")

    def string(self) -> str:
        """An `s` or an `o`."""
        length = self.uint32()
        self._at += length + 1
        return self._data[self._at - length - 1 : self._at - 1].decode("utf-8", "replace")

    def fields(self, end: int) -> dict[int, "str | int"]:
        """The header's fields, up to *end*: of the types that headers have."""
        found: dict[int, str | int] = {}
        while self._at < end:
            self._at += -self._at % 8
            code = self._data[self._at]
            kind = self._data[self._at + 2 : self._at + 3]  # a signature of one letter
            self._at += 4
            if kind == b"g":
                length = self._data[self._at]
                found[code] = self._data[self._at + 1 : self._at + 1 + length].decode("ascii")
                self._at += length + 2
            else:
                found[code] = self.uint32() if kind == b"u" else self.string()
        return found


class Message:
    """What has come: a reply, an error or a signal."""

    __slots__ = ("body", "fields", "kind")

    def __init__(self, kind: int, fields: dict[int, "str | int"], body: bytes) -> None:
        self.kind, self.fields, self.body = kind, fields, body


class Connection:
    """To a bus, or (*peer*) to one program alone, which has a socket of its own. Raises HostUnsupported throughout."""

    def __init__(self, path: str, *, peer: bool = False) -> None:
        self._peer = peer
        self._serial = 0
        self._signals: list[Message] = []
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(path)
            self._socket.sendall(_HELLO)
            self._authenticate()
            if not peer:
                self.call(*_BUS, "Hello")
        except OSError as error:
            self.close()
            raise _unusable(path, error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """No more."""
        self._socket.close()

    def _authenticate(self) -> None:
        line = b""
        while not line.startswith(b"OK"):
            line = b""
            while not line.endswith(b"\r\n"):
                line += self._receive(1)
                if len(line) > 4096:
                    raise HostUnsupported("the session bus answers nonsense")
            if line.startswith((b"REJECTED", b"ERROR")):
                raise HostUnsupported("the session bus does not let us in")

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: bytes = b""
    ) -> Message:
        """Call a method, and return the reply; an error of its is raised in its words."""
        self._serial += 1
        serial = self._serial
        self._send(self._call(destination, path, interface, member, signature, body))
        while True:
            message = self._next()
            if message.kind == _SIGNAL:
                self._signals.append(message)
            elif message.fields.get(_REPLY_SERIAL) == serial:
                if message.kind == _ERROR:
                    raise HostUnsupported(f"{member}: {_error_text(message)}")
                return message

    def _call(self, destination: str, path: str, interface: str, member: str, signature: str, body: bytes) -> bytes:
        writer = Writer()
        writer.data += b"l" + bytes([_CALL, 0, 1]) + len(body).to_bytes(4, "little")
        writer.uint32(self._serial)
        fields = writer.begin_array(8)
        texts = [(_PATH, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", member)]
        if not self._peer:
            texts.append((_DESTINATION, "s", destination))
        for code, kind, text in texts:
            writer.align(8)
            writer.data.append(code)
            writer.signature(kind)
            writer.string(text)
        if signature:
            writer.align(8)
            writer.data.append(_SIGNATURE)
            writer.signature("g")
            writer.signature(signature)
        writer.end_array(fields)
        writer.align(8)
        return bytes(writer.data) + body

    def subscribe(self, rule: str) -> None:
        """Have the bus pass on the signals that match *rule*; a lone program sends all it has."""
        if not self._peer:
            writer = Writer()
            writer.string(rule)
            self.call(*_BUS, "AddMatch", "s", bytes(writer.data))

    def signal(self, member: str) -> Message:
        """The next signal of this name."""
        while True:
            message = self._signals.pop(0) if self._signals else self._next()
            if message.kind == _SIGNAL and message.fields.get(_MEMBER) == member:
                return message

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise HostUnsupported(f"the session bus takes no message: {error.strerror or error}") from error

    def _next(self) -> Message:
        start = self._receive(16)
        if start[:1] != b"l":
            raise HostUnsupported("the session bus answers in another byte order")
        body_length, fields_length = (int.from_bytes(start[at : at + 4], "little") for at in (4, 12))
        padded = fields_length + -fields_length % 8
        if body_length + padded > _MAX_MESSAGE:
            raise HostUnsupported("the session bus answers too much")
        rest = self._receive(padded + body_length)
        fields = Reader(start + rest, 16).fields(16 + fields_length)
        return Message(start[1], fields, rest[padded:])

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self._socket.recv(size - len(data))
            except OSError as error:
                raise HostUnsupported(f"the session bus does not answer: {error.strerror or error}") from error
            if not part:
                raise HostUnsupported("the session bus has closed the connection")
            data += part
        return data


def _unusable(path: str, error: OSError) -> HostUnsupported:
    return HostUnsupported(f"the session bus {path} cannot be used: {error.strerror or os.strerror(error.errno or 0)}")


def _error_text(message: Message) -> str:
    """What an error says; its name where it says nothing."""
    if str(message.fields.get(_SIGNATURE, "")).startswith("s"):
        return Reader(message.body).string()
    return str(message.fields.get(_ERROR_NAME, "error"))
