"""An application as people have them: a web service in Python, PostgreSQL and Redis, all from Debian's packages."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.account import wait_until
from tests.support.compose import Project
from tests.support.containers import Box

pytestmark = [pytest.mark.kernel, pytest.mark.registry, pytest.mark.slow]

PACKAGES = """FROM BASE
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \\
        postgresql python3-psycopg2 python3-redis redis-server && \\
    ln -s /usr/lib/postgresql/*/bin /opt/postgresql && install -d -o postgres /data && rm -rf /var/lib/apt/lists
"""
DATABASE = """#!/bin/sh -e
[ -s $PGDATA/PG_VERSION ] || {
    initdb --no-sync --auth=scram-sha-256 --username=app --pwfile=/run/secrets/password >/dev/null
    echo "host all all all scram-sha-256" >>$PGDATA/pg_hba.conf
}
exec postgres -F -k /tmp -c listen_addresses='*'
"""
APP = """
import http.server, os, socket, sys
import psycopg2, redis

with open("/run/secrets/password") as file:
    database = psycopg2.connect(host="db", dbname="postgres", user="app", password=file.read())
database.autocommit = True
cursor, cache = database.cursor(), redis.Redis("cache")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/notes":
            cursor.execute("SELECT text FROM notes ORDER BY id")
            self.answer(" ".join(text for text, in cursor.fetchall()))
        elif self.path == "/count":
            self.answer(str(cache.incr("count")))
        elif self.path == "/name":
            self.answer(socket.gethostname())
        else:
            with open("/app/page/index.html") as file:
                self.answer(os.environ["GREETING"] + file.read() + "VERSION")

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        cursor.execute("INSERT INTO notes (text) VALUES (%s)", (text,))
        self.answer("noted")

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

if sys.argv[1:] == ["migrate"]:
    cursor.execute("CREATE TABLE IF NOT EXISTS notes (id serial, text text)")
    print("migrated")
else:
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
COMPOSE = """
services:
  web:
    build: {context: ., dockerfile_inline: "FROM real-app\\nCOPY app.py /app/\\nCOPY page /app/page\\n"}
    command: python3 /app/app.py
    init: true
    ports: ["127.0.0.1::8000"]
    environment: {GREETING: hello}
    secrets: [password]
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_healthy}}
    healthcheck:
      test: python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:8000/name")'
      interval: 500ms
      retries: 100
    develop:
      watch:
        - {path: ./page, action: sync, target: /app/page}
        - {path: ./app.py, action: sync+restart, target: /app/app.py}
  db:
    image: real-app
    user: postgres
    command: [sh, /database]
    configs: [database]
    environment: {PGDATA: /data/db, PATH: "/opt/postgresql:/usr/bin:/bin"}
    secrets: [password]
    volumes: [data:/data]
    stop_signal: SIGINT
    healthcheck: {test: [CMD, pg_isready, -h, 127.0.0.1, -U, app], interval: 500ms, retries: 200}
  cache:
    image: real-app
    command: [redis-server, --bind, 0.0.0.0, --protected-mode, "no", --save, ""]
    healthcheck: {test: [CMD, redis-cli, ping], interval: 500ms, retries: 200}
configs: {database: {file: ./database}}
secrets: {password: {environment: PASSWORD}}
volumes: {data: }
"""


class App(Project):
    """The application in its directory."""

    def get(self, path: str, index: int = 1) -> str:
        """What a replica answers, over its published port."""
        where = self("port", "--index", str(index), "web", "8000").stdout.strip()
        with urllib.request.urlopen(f"http://{where}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def note(self, text: str) -> None:
        where = self("port", "web", "8000").stdout.strip()
        urllib.request.urlopen(f"http://{where}/", text.encode(), timeout=30).close()


@pytest.fixture(scope="module")
def app(shared_box: Box, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """It runs, migrated. Skips, with the reason, where Debian or its mirror cannot be had."""
    directory = tmp_path_factory.mktemp("app")
    _build(shared_box, image("debian"), directory)
    app = App(shared_box, directory)
    (directory / "page").mkdir()
    files = {"app.py": APP, "page/index.html": " world ", "database": DATABASE, ".env": "PASSWORD=sesame\n"}
    for name, text in files.items():
        (directory / name).write_text(text)
    (directory / "compose.yaml").write_text(COMPOSE)
    (directory / "compose.override.yaml").write_text("services: {web: {environment: {GREETING: good day}}}")
    try:
        assert "migrated" in app("run", "--rm", "-T", "--build", "web", "python3", "/app/app.py", "migrate").stdout
        app("up", "-d", "--wait")
        yield app
    finally:
        app("down", "-v", "-t", "5", "--rmi", "local", check=False)
        shared_box("image", "rm", "-f", "real-app", check=False)


def _build(box: Box, debian: str, directory: Path) -> None:
    (directory / "Dockerfile").write_text(PACKAGES.replace("BASE", debian))
    proxies = [f"--build-arg={key}" for key in os.environ if key.lower() in ("http_proxy", "https_proxy")]
    words = ("--progress=plain", "--network=bridge", *proxies, "-t", "real-app", str(directory))
    done = box("build", *words, check=False, timeout=300)
    if done.returncode and ("Failed to fetch" in done.stderr or "Unable to locate package" in done.stderr):
        pytest.skip(f"containers do not reach Debian's mirror: {done.stderr[-400:]}")
    assert done.returncode == 0, done.stderr[-4000:]


def test_it_answers_with_what_the_database_the_cache_and_the_override_have(app: App) -> None:
    assert app.get("/") == "good day world VERSION"
    app.note("first")
    app.note("second")
    assert app.get("/notes") == "first second"
    assert [app.get("/count"), app.get("/count")] == ["1", "2"]
    assert {row["Health"] for row in app.containers().values()} == {"healthy"}
    assert "sesame" not in json.dumps(app.box.inspect("p-web-1"))


def test_the_service_follows_its_files(app: App) -> None:
    running = app.start("watch", "--no-up")
    assert running.stderr is not None
    while b"Watch  enabled" not in (line := running.stderr.readline()):
        assert line
    try:
        (app.directory / "page" / "index.html").write_text(" moon ")
        assert wait_until(lambda: app.get("/") == "good day moon VERSION")
        (app.directory / "app.py").write_text(APP.replace("VERSION", "2"))
        assert wait_until(lambda: _answer(app) == "good day moon 2")
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)


def _answer(app: App) -> str:
    try:
        return app.get("/")
    except (OSError, AssertionError):  # it is being restarted
        return ""


def test_replicas_share_what_there_is_and_their_name_leads_to_all_of_them(app: App) -> None:
    app("up", "-d", "--wait", "--scale", "web=3")
    script = (
        "import socket, urllib.request as u\n"
        "found = {a[4][0] for a in socket.getaddrinfo('web', 8000, socket.AF_INET, socket.SOCK_STREAM)}\n"
        "print(len(found), len({u.urlopen(f'http://{a}:8000/name').read() for a in found}))\n"
    )
    assert app("exec", "-T", "cache", "python3", "-c", script).stdout == "3 3\n"
    assert len({app.get("/name", index) for index in (1, 2, 3)}) == 3
    counted = [int(app.get("/count", index)) for index in (1, 2, 3)]
    assert counted == list(range(counted[0], counted[0] + 3))


def test_volumes_survive_down_and_not_down_v(app: App) -> None:
    app("down")
    assert app.containers() == {}
    app("up", "-d", "--wait")
    assert app.get("/notes") == "first second"
    app("down", "-v")
    assert app.box("volume", "ls", "-q").stdout == ""
