"""Dockerfiles as people write them, on Debian: packages by apt-get, a program in C with make, a service in Python."""

import os
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.containers import Box, Done

pytestmark = [pytest.mark.kernel, pytest.mark.registry, pytest.mark.slow]

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
INDEX = "https://pypi.org/simple"

PACKAGES = """# syntax=docker/dockerfile:1
FROM DEBIAN
RUN rm -f /etc/apt/apt.conf.d/docker-clean; \\
    echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    --mount=type=cache,target=/var/lib/apt,sharing=locked \\
    apt-get update && apt-get install -y --no-install-recommends \\
        gcc libc6-dev make python3 python3-venv
"""
LEFT = """FROM BASE
RUN --mount=type=cache,target=/var/cache/apt ls /var/cache/apt/archives
RUN ls -A /var/cache/apt /var/lib/apt > /layer
"""

PROGRAM = """# syntax=docker/dockerfile:1
FROM BASE AS build
WORKDIR /src
COPY Makefile *.c ./
ARG VERSION=dev
RUN make -j2 VERSION=$VERSION && make install DESTDIR=/out

FROM build AS test
RUN test "$(/out/usr/bin/hello)" = "hello from $VERSION"

FROM scratch
COPY --from=build /out/ /
USER 1000:1000
ENTRYPOINT ["/usr/bin/hello"]
"""
MAKEFILE = """
hello: hello.o
\t$(CC) -static -o $@ $^
hello.o: hello.c
\t$(CC) -O2 -Wall -DVERSION='"$(VERSION)"' -c -o $@ $<
install: hello
\tinstall -D -m 755 hello $(DESTDIR)/usr/bin/hello
"""
SOURCE = '#include <stdio.h>\nint main(void) { puts("hello from " VERSION); return 0; }\n'

SERVICE = """# syntax=docker/dockerfile:1
FROM BASE AS base
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS wheels
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY requirements.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt,required=true \\
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt pip install -r /tmp/requirements.txt

FROM base
RUN useradd --create-home --uid 1000 app
COPY --from=wheels --chown=app /venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /app
COPY --chown=app . .
USER app
EXPOSE 8000
HEALTHCHECK --interval=30s CMD ["python3", "-c", "import app"]
CMD ["python3", "app.py"]
"""
APP = """
import threading, urllib.request, wsgiref.simple_server
import bottle

@bottle.route("/")
def index():
    return "served"

server = wsgiref.simple_server.make_server("127.0.0.1", 8000, bottle.default_app())
threading.Thread(target=server.handle_request).start()
print(urllib.request.urlopen("http://127.0.0.1:8000/").read().decode())
"""


class Real:
    """A box, and directories to build in."""

    def __init__(self, box: Box, place: Path) -> None:
        self.box, self.place = box, place

    def build(self, name: str, dockerfile: str, files: dict[str, str], *options: str, check: bool = True) -> Done:
        """Build it, from what the test's fixture has built."""
        context = self.place / name
        context.mkdir(exist_ok=True)
        for file, content in {**files, "Dockerfile": dockerfile.replace("BASE", "real-base")}.items():
            (context / file).write_text(content)
        proxies = [f"--build-arg={key}" for key in os.environ if key.lower() in ("http_proxy", "https_proxy")]
        words = ("--progress=plain", "--network=bridge", *proxies, *options, "-t", name, str(context))
        return self.box("build", *words, check=check, timeout=300)


@pytest.fixture(scope="module")
def real(shared_box: Box, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Real:
    """With packages of Debian's, in caches. Skips, with the reason, where Debian or its mirror cannot be had."""
    debian = image("debian")
    real = Real(shared_box, tmp_path_factory.mktemp("real"))
    done = real.build("real-base", PACKAGES.replace("DEBIAN", debian), {}, check=False)
    if done.returncode and ("Failed to fetch" in done.stderr or "Unable to locate package" in done.stderr):
        pytest.skip(f"containers do not reach Debian's mirror: {done.stderr[-400:]}")
    assert done.returncode == 0, done.stderr[-4000:]
    return real


def test_caches_of_apt_keep_the_packages_and_the_layer_has_none(real: Real) -> None:
    said = real.build("left", LEFT, {}).stderr
    assert re.search(r" gcc-\d+_\S+\.deb$", said, re.MULTILINE)
    assert real.box("run", "--rm", "--network=none", "left", "cat", "/layer").stdout.count(".deb") == 0


def test_a_program_in_c_is_built_by_make_and_shipped_alone(real: Real) -> None:
    files = {"Makefile": MAKEFILE, "hello.c": SOURCE}
    real.build("hello", PROGRAM, files, "--build-arg", "VERSION=1.2")
    assert real.box("run", "--rm", "hello").stdout == "hello from 1.2\n"
    real.build("hello", PROGRAM, {**files, "hello.c": SOURCE.replace("hello from", "hallo von")})
    assert real.box("run", "--rm", "hello").stdout == "hallo von dev\n"
    tested = real.build("test", PROGRAM, files, "--build-arg=VERSION=1.2", "--target=test").stderr
    assert "CACHED" in tested


def test_a_service_in_python_is_built_by_pip_and_serves(real: Real) -> None:
    try:
        urllib.request.urlopen(f"{INDEX}/bottle/", timeout=10).close()
    except OSError as error:
        pytest.skip(f"there is no package index: {error}")
    files = {"requirements.txt": "bottle>=0.12\n", "app.py": APP, ".dockerignore": "Dockerfile\n"}
    real.build("service", SERVICE, files, "--secret", f"id=ca,src={CERTIFICATES}")
    assert real.box("run", "--rm", "--network=none", "service").stdout == "served\n"
