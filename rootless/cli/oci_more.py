"""rootless-oci: exec, ps, list, pause, resume, update, events, spec, features."""

import json
import os
import sys
import time
from collections.abc import Sequence

from rootless.cli import oci_documents, streams
from rootless.cli.command import Options, flag, number, text, texts, value
from rootless.cli.oci import GlobalOptions, NoOptions, Verb, inherited, read
from rootless.cli.time_values import parse_duration
from rootless.engine import oci_exec, oci_limits
from rootless.engine.oci import Oci
from rootless.errors import InvalidInput
from rootless.spec import runtime_resources
from rootless.spec.runtime import Config


class ExecOptions(Options):
    """Of exec."""

    tty: bool = flag("-t", "--tty", help="With a terminal")
    user: str = text("-u", "--user", metavar="UID[:GID]", help="As this user")
    groups: list[str] = texts("-g", "--additional-gids", metavar="GID", help="In these groups too")
    env: list[str] = texts("-e", "--env", metavar="NAME=VALUE", help="With this in the environment")
    cwd: str = text("--cwd", metavar="DIR", help="In this directory")
    process: str = text("-p", "--process", metavar="FILE", help="The process, as config.json has it")
    detach: bool = flag("-d", "--detach", help="Do not wait for it")
    pid_file: str = text("--pid-file", metavar="FILE", help="Where the pid is written")
    console_socket: str = text("--console-socket", metavar="PATH", help="Where the terminal is sent")
    cap: list[str] = texts("-c", "--cap", metavar="CAP", help="With this capability too")
    no_new_privs: bool = flag("--no-new-privs", help="It gains none by executing files")
    preserve_fds: int = number("--preserve-fds", metavar="N", help="Hand on N descriptors from 3 on")
    apparmor: str = text("--apparmor", metavar="PROFILE", help="Under this AppArmor profile")
    process_label: str = text("--process-label", metavar="LABEL", help="With this SELinux label")
    ignore_paused: bool = flag("--ignore-paused", help="In a container that is paused, too")


class ListOptions(Options):
    """Of list."""

    quiet: bool = flag("-q", "--quiet", help="Ids only")
    format: str = text("-f", "--format", metavar="table|json", default="table", help="How")


class PsOptions(Options):
    """Of ps."""

    format: str = text("-f", "--format", metavar="table|json", default="table", help="How")


class UpdateOptions(Options):
    """Of update."""

    resources: str = text("-r", "--resources", metavar="FILE", help="linux.resources to set; - is stdin")
    memory: int = number("--memory", metavar="BYTES", help="memory.limit")
    memory_reservation: int = number("--memory-reservation", metavar="BYTES", help="memory.reservation")
    memory_swap: int = number("--memory-swap", metavar="BYTES", help="memory.swap: memory and swap together")
    cpu_period: int = number("--cpu-period", metavar="USEC", help="cpu.period")
    cpu_quota: int = number("--cpu-quota", metavar="USEC", help="cpu.quota")
    cpu_share: int = number("--cpu-share", metavar="SHARES", help="cpu.shares", aliases=("--cpu-shares",))
    cpuset_cpus: str = text("--cpuset-cpus", metavar="LIST", help="cpu.cpus")
    cpuset_mems: str = text("--cpuset-mems", metavar="LIST", help="cpu.mems")
    pids_limit: int = number("--pids-limit", metavar="N", help="pids.limit")
    blkio_weight: int = number("--blkio-weight", metavar="N", help="blockIO.weight")


class EventsOptions(Options):
    """Of events."""

    stats: bool = flag("--stats", help="Once")
    interval: float = value(
        "--interval", parse=lambda word: parse_duration(word) / 1e9, metavar="TIME", default=5.0, help="How often (5s)"
    )


class SpecOptions(Options):
    """Of spec."""

    bundle: str = text("-b", "--bundle", metavar="DIR", default=".", help="Where config.json is written")
    file: str = text("-f", "--file", metavar="FILE", default="config.json", help="Its name; - is stdout")
    rootless: bool = flag("--rootless", help="With a user namespace and your own id mapped, for other runtimes too")


def _exec(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = ExecOptions()
    container_id, *arguments = read(options, words, "exec [OPTIONS] ID COMMAND …", interspersed=False)
    record = Oci(settings.root).states.load(container_id)
    preserved, environment = inherited(options.preserve_fds)
    if options.process:
        process = oci_exec.process_of(options.process)
        process = {**process, "env": [*(process.get("env") or ()), *environment]}
    else:
        process = _process(record.config()["process"], arguments, options, environment)
    asked = oci_exec.Exec(
        process, options.detach, options.pid_file, options.console_socket, preserved, options.ignore_paused
    )
    return oci_exec.run(record, asked)


def _process(base: Config, arguments: list[str], options: ExecOptions, environment: tuple[str, ...]) -> Config:
    """The process of the command line's words."""
    if not arguments:
        raise InvalidInput("exec: a command is required, or --process FILE")
    changes: Config = {"terminal": options.tty}
    for member, given in (
        ("cwd", options.cwd),
        ("apparmorProfile", options.apparmor),
        ("selinuxLabel", options.process_label),
        ("noNewPrivileges", options.no_new_privs),
    ):
        if given:
            changes[member] = given
    if options.user or options.groups:
        changes["user"] = _user(base.get("user") or {}, options)
    return oci_exec.process_like(base, arguments, changes, [*options.env, *environment], options.cap)


def _user(base: Config, options: ExecOptions) -> Config:
    uid, colon, gid = (options.user or str(base.get("uid", 0))).partition(":")
    numbers = [uid, *([gid] if colon else []), *options.groups]
    if not all(word.isascii() and word.isdigit() for word in numbers):
        raise InvalidInput(f"--user and --additional-gids take numbers: {options.user}")
    changes: Config = {"uid": int(uid)}
    if colon:
        changes["gid"] = int(gid)
    if options.groups:
        changes["additionalGids"] = [int(word) for word in options.groups]
    return {**base, **changes}


def _list(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = ListOptions()
    read(options, words, "list [OPTIONS]", least=0)
    states = [record.state() for record in Oci(settings.root).states.all()]
    if options.quiet:
        streams.write("".join(f"{state['id']}\n" for state in states))
    elif _wants_json(options.format):
        streams.write(json.dumps(states, indent=2) + "\n")
    else:
        rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        rows += [tuple(str(s[key]) for key in ("id", "pid", "status", "bundle", "created")) for s in states]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            streams.write(line.rstrip() + "\n")
    return 0


def _wants_json(form: str) -> bool:
    if form not in ("table", "json"):
        raise InvalidInput(f"invalid format {form!r}: table or json")
    return form == "json"


def _ps(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = PsOptions()
    container_id, *arguments = read(options, words, "ps [OPTIONS] ID [OPTIONS OF PS]", interspersed=False)
    as_json = _wants_json(options.format)
    pids = Oci(settings.root).processes(container_id)
    streams.write(json.dumps(pids) + "\n" if as_json else oci_documents.process_table(pids, arguments or ["-ef"]))
    return 0


def _pause(settings: GlobalOptions, words: Sequence[str]) -> int:
    Oci(settings.root).pause(read(NoOptions(), words, "pause ID")[0])
    return 0


def _resume(settings: GlobalOptions, words: Sequence[str]) -> int:
    Oci(settings.root).resume(read(NoOptions(), words, "resume ID")[0])
    return 0


def _update(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = UpdateOptions()
    record = Oci(settings.root).states.load(read(options, words, "update [OPTIONS] ID")[0])
    resources = _resources(options)
    runtime_resources.check(resources, "resources")
    oci_limits.update(record, resources)
    return 0


def _resources(options: UpdateOptions) -> Config:
    """linux.resources of a file, or of the options that are given."""
    if options.resources:
        with open("/dev/stdin" if options.resources == "-" else options.resources, "rb") as file:
            try:
                document = json.loads(file.read())
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"{options.resources}: {error}") from error
        return document if isinstance(document, dict) else {"memory": document}
    found: Config = {}
    for name, section, member in (
        ("memory", "memory", "limit"),
        ("memory_reservation", "memory", "reservation"),
        ("memory_swap", "memory", "swap"),
        ("cpu_period", "cpu", "period"),
        ("cpu_quota", "cpu", "quota"),
        ("cpu_share", "cpu", "shares"),
        ("cpuset_cpus", "cpu", "cpus"),
        ("cpuset_mems", "cpu", "mems"),
        ("pids_limit", "pids", "limit"),
        ("blkio_weight", "blockIO", "weight"),
    ):
        if options.changed(name):
            found.setdefault(section, {})[member] = getattr(options, name)
    return found


def _events(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = EventsOptions()
    states, container_id = Oci(settings.root).states, read(options, words, "events [OPTIONS] ID")[0]
    while True:
        record = states.load(container_id)
        if record.status == "stopped":
            if options.stats:
                raise InvalidInput(f"container {container_id} is not running")
            return 0
        streams.write(json.dumps(oci_limits.statistics(record)) + "\n")
        sys.stdout.flush()
        if options.stats:
            return 0
        time.sleep(options.interval)


def _spec(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = SpecOptions()
    read(options, words, "spec [OPTIONS]", least=0)
    document = json.dumps(oci_documents.example(rootless=options.rootless), indent=2) + "\n"
    if options.file == "-":
        streams.write(document)
        return 0
    path = os.path.join(options.bundle, options.file)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(document)
    except FileExistsError:
        raise InvalidInput(f"{path} is there already") from None
    return 0


def _features(settings: GlobalOptions, words: Sequence[str]) -> int:
    read(NoOptions(), words, "features", least=0)
    streams.write(json.dumps(oci_documents.features(), indent=2) + "\n")
    return 0


VERBS: dict[str, Verb] = {
    "exec": _exec,
    "list": _list,
    "ps": _ps,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
    "spec": _spec,
    "features": _features,
}
