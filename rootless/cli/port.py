"""port: what is published of a container, and changing that while it runs."""

from rootless.cli import streams
from rootless.cli.command import Arity, Options, command, texts
from rootless.cli.opening import engine_of
from rootless.engine.ports import add_ports, bindings, published, remove_ports
from rootless.errors import InvalidInput
from rootless.network.ports import Port, lines, parse_private, parse_publish

_VERBS = ("add", "rm")


class PortOptions(Options):
    """The options of port."""

    publish: list[str] = texts(
        "-p", "--publish", help="With add and rm: a container's port, as for run", metavar="list"
    )


@command(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    PortOptions,
    Arity(1, None),
    examples="""
        Where port 80 of a container is on this machine:
            $ {path} web 80
        Publish one more port of a container that runs, and stop publishing it:
            $ {path} add web 8443:443
            $ {path} rm web 8443:443
    """,
)
def port(options: PortOptions) -> None:
    """List port mappings or a specific mapping for the container

    With `add CONTAINER SPEC...` and `rm CONTAINER SPEC...`, change what is published. A SPEC is what -p of run takes. A
    container called "add" or "rm" is meant where no SPEC follows.
    """
    first, *rest = options.arguments
    if first in _VERBS and (len(rest) > 1 or (rest and options.publish)):
        _change(options, first, rest[0], [*options.publish, *rest[1:]])
        return
    if options.publish:
        raise InvalidInput("-p goes with add and rm: port add CONTAINER -p SPEC")
    if len(rest) > 1:
        raise InvalidInput('"rootless port" requires at least 1 and at most 2 arguments.')
    _show(options, first, "".join(rest))


def _show(options: PortOptions, container: str, private: str) -> None:
    engine = engine_of(options)
    if private:
        streams.write("".join(f"{line}\n" for line in bindings(engine, container, parse_private(private))))
    else:
        streams.write("".join(f"{line}\n" for line in lines(published(engine, container))))


def _change(options: PortOptions, verb: str, container: str, texts: list[str]) -> None:
    ports: list[Port] = [port for text in texts for port in parse_publish(text)]
    action = add_ports if verb == "add" else remove_ports
    streams.write("".join(f"{line}\n" for line in lines(action(engine_of(options), container, ports))))
