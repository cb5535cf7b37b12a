"""The proxies that steps are told of: `proxies.default` of the user's config.json, as docker/cli reads it.

    {"proxies": {"default": {"httpProxy": "http://proxy.example.org:3128", "noProxy": "localhost,.example.org"}}}

They are the predefined build arguments, in capitals and not: RUN has them in its environment, unless --build-arg says
otherwise; they are in no key, no history and no image.
"""

import os
from collections.abc import Mapping

from rootless.errors import InvalidInput
from rootless.spec.strict_json import parse_json

_LIMIT = 4 << 20  # bytes
_NAMES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "ftpProxy": "FTP_PROXY",
    "noProxy": "NO_PROXY",
    "allProxy": "ALL_PROXY",
}


def with_proxies(build_args: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """*build_args*, and the proxies of which they say nothing. Raises InvalidInput, CorruptData for the file."""
    home = environ.get("HOME") or os.path.expanduser("~")
    path = os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")
    given = {name.upper() for name in build_args}
    found = {name: value for name, value in _proxies(path).items() if name not in given}
    return {**found, **{name.lower(): value for name, value in found.items()}, **build_args}


def _proxies(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    section = parse_json(data, limit=_LIMIT, what=path) if data.strip() else {}
    for name in ("proxies", "default"):
        section = section.get(name) if isinstance(section, dict) else None
        if section is None:
            return {}
    if not isinstance(section, dict) or not all(isinstance(value, str) for value in section.values()):
        raise InvalidInput(f"{path}: proxies.default is not an object of texts")
    return {_NAMES[name]: value for name, value in section.items() if name in _NAMES and value}
