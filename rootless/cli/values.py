"""What people type as values: sizes, signals, policies, names with values, files of them. Docker's rules and words.

Functions from text to values; they raise InvalidInput, whose text follows 'invalid argument "x" for "--flag" flag:'
when they are the parser of an option. Times are in time_values.py, mounts and devices in mount_values.py. Sources:
docker/go-units, docker/cli's opts, moby's api/types/container and moby/sys/signal.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from rootless.errors import InvalidInput

# --- sizes

_SIZE = re.compile(r"(?P<number>[0-9.eE+-]*[0-9.]) ?(?P<suffix>[^0-9. ]*)", re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def parse_memory(text: str) -> int:
    """Bytes from "64m", "1.5GB", "1 kib" or "512": all units are powers of 1024 (go-units' RAMInBytes)."""
    return _parse_size(text, 1024)


def parse_size(text: str) -> int:
    """Bytes from the same, with powers of 1000 (go-units' FromHumanSize): sizes of files and downloads."""
    return _parse_size(text, 1000)


def parse_memory_swap(text: str) -> int:
    """As parse_memory(), and -1 for no limit."""
    return -1 if text == "-1" else parse_memory(text)


def _parse_size(text: str, base: int) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidInput(f"invalid size: '{text}'")
    suffix = found["suffix"].lower()
    if re.fullmatch("b?|[kmgtp](?:i?b)?", suffix) is None:
        raise InvalidInput(f"invalid suffix: '{suffix}'")
    try:
        size = float(found["number"]) * base ** _POWERS.get(suffix[:1], 0)
    except ValueError:
        raise InvalidInput(f"invalid size: '{text}'") from None
    if not 0 <= size < 1 << 63 or text.startswith("-"):
        raise InvalidInput(f"invalid size: '{text}'")
    return int(size)


def human_size(size: int, digits: int = 4) -> str:
    """*size* bytes as Docker prints them, "1.23MB", in powers of 1000; `docker images` has 3 digits."""
    return _human(size, digits, 1000, _DECIMAL_UNITS)


def bytes_size(size: int, digits: int = 4) -> str:
    """*size* bytes in powers of 1024: "17MiB"."""
    return _human(size, digits, 1024, _BINARY_UNITS)


def _human(size: float, digits: int, base: int, units: tuple[str, ...]) -> str:
    number = float(size)
    for unit in units:
        # Compared as rounded, or 999,999 bytes were "1e+03kB": 1000 where the next unit has 1.
        if float(f"{number:.{digits}g}") < base or unit == units[-1]:
            return f"{float(f'{number:.{digits}g}'):.15g}{unit}"
        number /= base
    raise AssertionError("the last unit takes every size")


# --- numbers and words


def parse_cpus(text: str) -> int:
    """Billionths of a CPU from "1.5", as the API has them (NanoCpus). Raises InvalidInput for a finer number."""
    found = re.fullmatch(r"(\d*)(?:\.(\d*))?", text, re.ASCII)
    if found is None or not (found[1] or found[2]):
        raise InvalidInput(f"failed to parse {text} as a rational number")
    fraction = (found[2] or "").rstrip("0")
    if len(fraction) > 9 or len(found[1]) > 9:
        raise InvalidInput("value is too precise")
    return int(found[1] or 0) * 1_000_000_000 + int(fraction.ljust(9, "0"))


class RestartPolicy(NamedTuple):
    """When a container is started again. name: "no", "always", "unless-stopped", "on-failure"; retries: 0 for ever."""

    name: str
    retries: int


def parse_restart(text: str) -> RestartPolicy:
    """A policy from "always" or "on-failure:3"."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise InvalidInput("invalid restart policy format: no policy provided before colon")
    if count and not re.fullmatch(r"-?\d{1,9}", count, re.ASCII):
        raise InvalidInput("invalid restart policy format: maximum retry count must be an integer")
    retries = int(count or 0)
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidInput(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if retries and name != "on-failure":
        raise InvalidInput("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if retries < 0:
        raise InvalidInput("invalid restart policy: maximum retry count cannot be negative")
    return RestartPolicy(name or "no", retries)


def parse_attach(text: str) -> str:
    """A stream to attach to: "stdin", "stdout" or "stderr"."""
    stream = text.lower()
    if stream not in ("stdin", "stdout", "stderr"):
        raise InvalidInput("valid streams are STDIN, STDOUT and STDERR")
    return stream


# --- names of hosts


def is_ip(text: str) -> bool:
    """Whether *text* is an IPv4 or IPv6 address, as Go's net.ParseIP sees it: no zone, no leading zeros."""
    return _is_ipv4(text) or _is_ipv6(text)


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(
        re.fullmatch(r"0|[1-9]\d{0,2}", part, re.ASCII) and int(part) < 256 for part in parts
    )


def _is_ipv6(text: str) -> bool:
    head, double, tail = text.partition("::")
    groups = [*(head.split(":") if head else ()), *(tail.split(":") if tail else ())]
    if groups and _is_ipv4(groups[-1]):
        groups[-1:] = ["0", "0"]
    count_fits = len(groups) < 8 if double else len(groups) == 8
    return count_fits and all(re.fullmatch(r"[0-9a-fA-F]{1,4}", group) for group in groups)


def parse_ip(text: str) -> str:
    """An address, as typed: for --dns."""
    if not is_ip(text):
        raise InvalidInput(f"IP address is not correctly formatted: {text}")
    return text


class ExtraHost(NamedTuple):
    """A line for /etc/hosts. address may be "host-gateway": the host, by whatever address it has."""

    name: str
    address: str


def parse_add_host(text: str) -> ExtraHost:
    """A name and an address from "db:10.0.0.1", "db=::1" or "db:[::1]"."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not name:
        raise InvalidInput(f'bad format for add-host: "{text}"')
    if address[:1] == "[" and address[-1:] == "]":
        address = address[1:-1]
    if address != "host-gateway" and not is_ip(address):
        raise InvalidInput(f'invalid IP address in add-host: "{address}"')
    return ExtraHost(name, address)


# --- names with values


def parse_key_value(text: str) -> tuple[str, str]:
    """The two sides of "key=value"; the value is empty where there is no sign: annotations, log and driver options."""
    key, _, value = text.partition("=")
    if not key:
        raise InvalidInput(f"invalid key-value pair '{text}': empty name")
    return key, value


def parse_label(text: str) -> tuple[str, str]:
    """A label's name and value."""
    if not text.partition("=")[0]:
        raise InvalidInput(f"invalid label '{text}': empty name")
    return parse_key_value(text)


def parse_environment(text: str) -> str:
    """A variable for the container: "A=b" as it is, "A" with the value that it has here.

    Without one here it stays "A": that takes it away from what the image sets.
    """
    name, sign, _ = text.partition("=")
    if not name:
        raise InvalidInput(f"invalid environment variable: {text}")
    return f"{name}={os.environ[name]}" if not sign and name in os.environ else text


def load_environment_file(path: str) -> list[str]:
    """The variables of an --env-file, "A=b"; a name alone takes the value that it has here, and is left out without.

    Raises InvalidInput, with the file's name and line.
    """
    return list(parse_environment_lines(_read(path), path, os.environ))


def parse_environment_lines(data: bytes, path: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The variables in *data*, the content of *path*. No quotes, no expansion: what follows `=` is the value."""
    for where, line in _lines(data, path):
        name, sign, value = line.partition("=")
        _check_name(name, line, where)
        if sign:
            yield f"{name}={value}"
        elif name in environment:
            yield f"{name}={environment[name]}"


def load_label_file(path: str) -> list[tuple[str, str]]:
    """The labels of a --label-file; a name alone has the empty value. Raises InvalidInput."""
    return list(parse_label_lines(_read(path), path))


def parse_label_lines(data: bytes, path: str) -> Iterator[tuple[str, str]]:
    """The labels in *data*, the content of *path*."""
    for where, line in _lines(data, path):
        name, _, value = line.partition("=")
        _check_name(name, line, where)
        yield name, value


def merge_pairs(*sources: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One mapping of pairs from files and options: the last value of a name wins, in the place of its first."""
    return {name: value for source in sources for name, value in source}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput(f"open {path}: {(error.strerror or '').lower()}") from error


def _lines(data: bytes, path: str) -> Iterator[tuple[str, str]]:
    """The lines that say something, without the white space before them, each with "file:number"."""
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path}:{number}"
        try:
            line = raw.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError:
            raise InvalidInput(f"invalid env file ({where}): this is no UTF-8") from None
        if line and not line.startswith("#"):
            yield where, line


def _check_name(name: str, line: str, where: str) -> None:
    if not name:
        raise InvalidInput(f"invalid env file ({where}): no variable name on line '{line}'")
    if " " in name or "\t" in name:
        raise InvalidInput(f"invalid env file ({where}): variable '{name}' contains whitespaces")


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of *choices* and nothing else."""

    def parse(text: str) -> str:
        if text not in choices:
            raise InvalidInput(f"must be one of {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return parse
