"""The ports of EXPOSE: `80`, `53/udp`, `8000-8003/tcp`.

An address or a port of the host before it, `127.0.0.1:8080:80`, is accepted as Docker does, and means nothing.
"""

from collections.abc import Iterable

from rootless.dockerfile.instructions import DockerfileError

_PROTOCOLS = ("tcp", "udp", "sctp")
_MOST = 65535


def parse_ports(words: Iterable[str]) -> tuple[str, ...]:
    """ "80/tcp" and the like, each once, ranges as all their ports. Raises DockerfileError."""
    return tuple(dict.fromkeys(port for word in words for port in _ports(word)))


def _ports(word: str) -> list[str]:
    numbers, slash, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise DockerfileError(f"EXPOSE {word}: the protocol is one of {', '.join(_PROTOCOLS)}")
    first_text, dash, last_text = numbers.partition("-")
    first = _port(first_text, word)
    last = _port(last_text, word) if dash else first
    if last < first:
        raise DockerfileError(f"EXPOSE {word}: the range ends before it begins")
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def _port(text: str, word: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= _MOST):
        raise DockerfileError(
            f"EXPOSE {word}: not a port", hint="PORT[-PORT][/PROTOCOL], like 80, 53/udp or 8000-8010/tcp"
        )
    return int(text)
