"""The files by which a container knows names: /etc/hosts, /etc/hostname, /etc/resolv.conf. Text in, text out."""

from collections.abc import Sequence

_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def hostname(name: str) -> str:
    """/etc/hostname."""
    return f"{name}\n"


def hosts(name: str, domain: str, extra: Sequence[Sequence[str]], network: str) -> str:
    """/etc/hosts: what is local, what --add-host says, and the container itself."""
    lines = list(_host_lines()) if network == "host" else list(_LOCAL)
    if network != "host":
        lines.append(f"127.0.1.1\t{name}.{domain} {name}" if domain else f"127.0.1.1\t{name}")
    lines += [f"{address}\t{host}" for host, address in extra]
    return "\n".join(lines) + "\n"


def _host_lines() -> list[str]:
    try:
        with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return list(_LOCAL)


def resolv_conf(servers: Sequence[str], search: Sequence[str], options: Sequence[str], network: str) -> str:
    """/etc/resolv.conf: the options', else the host's where its network is used, else nothing that could answer."""
    lines = []
    if not servers and network == "host":
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
                lines = [line.rstrip("\n") for line in file if not _overridden(line, search, options)]
        except OSError:
            lines = []
    lines += [f"nameserver {server}" for server in servers]
    if search:
        lines.append("search " + " ".join(domain for domain in search if domain != "."))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n" if lines else ""


def _overridden(line: str, search: Sequence[str], options: Sequence[str]) -> bool:
    key = line.split(maxsplit=1)[:1]
    return (key in (["search"], ["domain"]) and bool(search)) or (key == ["options"] and bool(options))
