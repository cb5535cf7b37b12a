"""login, logout: passwords for registries, which are never shown and never in our own command lines."""

import getpass
import sys

from rootless.cli import streams
from rootless.cli.command import Options, at_most, command, flag, text
from rootless.cli.opening import tell, use_config
from rootless.engine.login import known, parse_server
from rootless.engine.login import login as log_in
from rootless.engine.login import logout as log_out
from rootless.errors import InvalidInput, Unauthorized
from rootless.registry.config import DOCKER_HUB
from rootless.registry.credentials import Credential

_MAX_PASSWORD = 1 << 16  # characters; the longest are tokens


class LoginOptions(Options):
    """The options of login."""

    password: str = text("-p", "--password", help="Password, for all who can see this machine's processes")
    password_stdin: bool = flag("--password-stdin", help="Take the password from stdin")
    username: str = text("-u", "--username", help="Username")


@command(
    "login",
    "[SERVER]",
    LoginOptions,
    at_most(1),
    examples="""
        Docker Hub, asking for name and password:
            $ {path}
        A registry of one's own, in a script:
            $ {path} -u alice --password-stdin registry.example.org:5000 < password
    """,
)
def login(options: LoginOptions) -> None:
    """Authenticate to a registry"""
    use_config(options)
    registry = parse_server(options.arguments[0] if options.arguments else "")
    if options.changed("password") and options.password_stdin:
        raise InvalidInput("conflicting options: cannot specify both --password and --password-stdin")
    if options.password_stdin and not options.username:
        raise InvalidInput("the --password-stdin option requires --username to be set")
    if options.changed("password"):
        streams.write_error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    if _existing_is_good(options, registry):
        return
    where = log_in(registry, _asked(options, registry))
    if "/" in where:
        streams.write_error(
            f"\nWARNING! Your credentials are stored unencrypted in '{where}'.\n"
            "Configure a credential helper (credsStore) to have them kept elsewhere.\n\n"
        )
    streams.write("Login Succeeded\n")


def _existing_is_good(options: LoginOptions, registry: str) -> bool:
    """Whether nobody was named, and the registry takes what is kept for it; it is not stored again."""
    if options.username or options.changed("password") or options.password_stdin:
        return False
    kept = known(registry)
    if kept is None or not kept.password:
        return False
    streams.write(f"Authenticating with existing credentials... [Username: {kept.username}]\n")
    try:
        log_in(registry, kept)
    except Unauthorized as error:
        if not streams.is_tty(sys.stdin):
            raise
        tell(error)
        return False
    streams.write("Login Succeeded\n")
    return True


def _asked(options: LoginOptions, registry: str) -> Credential:
    """Name and password, from the command line, stdin, or who sits at the terminal."""
    if options.password_stdin:
        password = sys.stdin.read(_MAX_PASSWORD + 1).removesuffix("\n").removesuffix("\r")
        if not password or len(password) > _MAX_PASSWORD:
            raise InvalidInput("no password on stdin" if not password else "what comes from stdin is no password")
        return Credential(options.username, password)
    if not (options.username and options.password) and not streams.is_tty(sys.stdin):
        raise InvalidInput(
            "cannot perform an interactive login from a non-TTY device", hint="use --username and --password-stdin"
        )
    username = options.username or _ask_name(registry)
    password = options.password or getpass.getpass("Password: ", sys.stderr)
    if not password:
        raise InvalidInput("password is empty")
    return Credential(username, password)


def _ask_name(registry: str) -> str:
    kept = known(registry)
    default = kept.username if kept else ""
    if registry == DOCKER_HUB:
        streams.write("Log in with your Docker ID to push and pull images from Docker Hub.\n")
    streams.write(f"Username ({default}): " if default else "Username: ")
    streams.flush()
    name = sys.stdin.readline().strip() or default
    if not name:
        raise InvalidInput("username is empty")
    return name


@command("logout", "[SERVER]", Options, at_most(1))
def logout(options: Options) -> None:
    """Log out from a registry"""
    use_config(options)
    registry = parse_server(options.arguments[0] if options.arguments else "")
    shown = "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry
    if log_out(registry):
        streams.write(f"Removing login credentials for {shown}\n")
    else:
        streams.write(f"Not logged in to {shown}\n")
    if known(registry):
        streams.write_error(f"WARNING: there still are credentials for {shown}, in a file of another program\n")
