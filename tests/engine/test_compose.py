"""Projects of compose, from their files to containers that run, and to nothing."""

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable

import pytest

from tests.support.account import wait_until
from tests.support.compose import Project

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def test_services_start_when_what_they_depend_on_is_ready(project: Project) -> None:
    project.write(
        """
services:
  web:
    image: IMAGE
    command: STAYS
    depends_on: {db: {condition: service_healthy}, job: {condition: service_completed_successfully}}
  db:
    image: IMAGE
    command: [sh, -c, "sleep 0.3; touch /tmp/ready; while :; do sleep 0.1; done"]
    healthcheck: {test: [CMD, test, -f, /tmp/ready], interval: 50ms, retries: 200}
    stop_signal: KILL
    volumes: [data:/data]
  job: {image: IMAGE, command: [sh, -c, "echo done"], volumes: [data:/data]}
volumes: {data: }
"""
    )
    done = project("up", "-d", "--wait")
    lines = [line.strip() for line in done.stderr.splitlines()]
    for before in ("Container p-db-1  Healthy", "Container p-job-1  Exited"):
        assert lines.index(before) < lines.index("Container p-web-1  Starting")
    found = project.containers()
    assert {name: row["State"] for name, row in found.items()} == {
        "p-db-1": "running", "p-job-1": "exited", "p-web-1": "running",
    }  # fmt: skip
    assert found["p-db-1"]["Health"] == "healthy"
    down = [line.strip() for line in project("down").stderr.splitlines()]
    assert down.index("Container p-web-1  Stopped") < down.index("Container p-db-1  Stopping")
    assert down[-1] == "Network p_default  Removed"
    assert project.containers() == {}
    assert project.box("volume", "ls", "-q").stdout.split() == ["p_data"]
    project("down", "-v")
    assert project.box("volume", "ls", "-q").stdout == ""


def test_what_did_not_change_is_left_alone_and_anonymous_volumes_stay(project: Project) -> None:
    text = """
services:
  a: {image: IMAGE, command: STAYS, volumes: [/anon], environment: {V: "%s"}}
  b: {image: IMAGE, command: STAYS}
"""
    project.write(text % 1)
    project("up", "-d")
    a, b = project.id("p-a-1"), project.id("p-b-1")
    project("exec", "-T", "a", "touch", "/anon/kept")
    assert "Creat" not in project("up", "-d").stderr
    assert (project.id("p-a-1"), project.id("p-b-1")) == (a, b)
    project.write(text % 2)
    assert "Container p-a-1  Recreated" in project("up", "-d").stderr
    assert project.id("p-a-1") != a
    assert project.id("p-b-1") == b
    assert project("exec", "-T", "a", "ls", "/anon").stdout == "kept\n"
    project.write(text % 3)
    project("up", "-d", "--no-recreate")
    assert project.box.inspect("p-a-1")["Config"]["Env"].count("V=2") == 1
    project("up", "-d", "-V", "--force-recreate")
    assert project.id("p-b-1") != b
    assert project("exec", "-T", "a", "ls", "/anon").stdout == ""
    project("down", "-v")
    assert project.box("volume", "ls", "-q").stdout == ""


def test_a_name_has_the_addresses_of_all_replicas(project: Project) -> None:
    project.write("services: {web: {image: IMAGE, command: STAYS}, ask: {image: IMAGE, command: STAYS}}")
    project("up", "-d", "--scale", "web=3")
    assert sorted(project.containers()) == ["p-ask-1", "p-web-1", "p-web-2", "p-web-3"]
    addresses = {
        project.box.inspect(f"p-web-{n}")["NetworkSettings"]["Networks"]["p_default"]["IPAddress"] for n in (1, 2, 3)
    }
    answer = project("exec", "-T", "ask", "nslookup", "web", check=False).stdout
    assert {address for address in addresses if address in answer} == addresses
    project("scale", "web=1")
    assert sorted(project.containers()) == ["p-ask-1", "p-web-1"]
    project("up", "-d", "--scale", "web=0")
    assert sorted(project.containers()) == ["p-ask-1"]


def test_aliases_and_several_networks_and_one_that_others_made(project: Project) -> None:
    project.box("network", "create", "theirs")
    project.write(
        """
services:
  a: {image: IMAGE, command: STAYS, networks: {front: {aliases: [www]}, ext: }}
  b: {image: IMAGE, command: STAYS, networks: [front]}
  c: {image: IMAGE, command: [sh, -c, "hostname; ip -o addr | wc -l"], network_mode: "service:a"}
networks: {front: {internal: true}, ext: {external: true, name: theirs}}
"""
    )
    project("up", "-d")
    assert project("exec", "-T", "b", "nslookup", "www", check=False).returncode == 0
    assert set(project.box.inspect("p-a-1")["NetworkSettings"]["Networks"]) == {"p_front", "theirs"}
    assert wait_until(lambda: project.containers()["p-c-1"]["State"] == "exited")
    assert project.box.inspect("p-c-1")["HostConfig"]["NetworkMode"] == f"container:{project.id('p-a-1')}"
    project("down")
    assert "theirs" in project.box("network", "ls", "--format", "{{.Name}}").stdout.split()
    project.box("network", "rm", "theirs")
    failed = project("up", "-d", check=False)
    assert failed.returncode == 1
    assert "network theirs declared as external, but could not be found" in failed.stderr


def test_secrets_and_configs_have_their_content_owner_and_mode(project: Project) -> None:
    (project.directory / "file").write_text("from a file")
    (project.directory / ".env").write_text("TOKEN=sesame\n")
    project.write(
        """
services:
  a:
    image: IMAGE
    command: STAYS
    secrets: [s, {source: t, target: named, uid: "7", gid: "8", mode: 0440}]
    configs: [{source: c, target: /etc/c.conf}, f]
secrets: {s: {file: ./file}, t: {environment: TOKEN}}
configs: {c: {content: "token ${TOKEN}"}, f: {file: ./file}}
"""
    )
    project("up", "-d")
    script = "cd /run/secrets; cat s named /etc/c.conf /f; stat -c ' %a %u:%g' named /etc/c.conf; echo x >/etc/c.conf"
    done = project("exec", "-T", "a", "sh", "-c", script, check=False)
    assert done.stdout == "from a filesesametoken sesamefrom a file 440 7:8\n 444 0:0\n"
    assert done.returncode == 1
    before = project.id("p-a-1")
    (project.directory / ".env").write_text("TOKEN=other\n")
    project("up", "-d")
    assert project.id("p-a-1") != before
    assert project("exec", "-T", "a", "cat", "/run/secrets/named").stdout == "other"
    project("down")
    assert not (project.box.store / "compose" / "p").exists()


def test_labels_are_those_that_other_tools_read(project: Project) -> None:
    (project.directory / ".env").write_text("A=1\n")
    project.write(
        """
services:
  a: {image: IMAGE, command: STAYS, labels: {own: x}, depends_on: [b]}
  b: {image: IMAGE, command: STAYS}
"""
    )
    project("up", "-d")
    labels = project.labels("p-a-1")
    image = json.loads(project.box("image", "inspect", project.box.image).stdout)[0]["Id"]
    prefix = "com.docker.compose."
    digest = project("config", "--hash", "a").stdout.split()[1]
    ours = {key.removeprefix(prefix): text for key, text in labels.items() if key.startswith(prefix)}
    version = ours.pop("version")
    assert re.fullmatch(r"[0-9.]+.*", version)
    assert ours == {
        "project": "p",
        "service": "a",
        "container-number": "1",
        "oneoff": "False",
        "config-hash": digest,
        "depends_on": "b:service_started:false",
        "image": image,
        "project.config_files": str(project.directory / "compose.yaml"),
        "project.working_dir": str(project.directory),
        "project.environment_file": str(project.directory / ".env"),
    }
    assert labels["own"] == "x"
    network = json.loads(project.box("network", "inspect", "p_default").stdout)[0]["Labels"]
    assert network["com.docker.compose.network"] == "default"
    assert network["com.docker.compose.project"] == "p"


def test_a_dependency_that_is_not_well_keeps_others_from_starting(project: Project) -> None:
    project.write(
        """
services:
  web: {image: IMAGE, command: STAYS, depends_on: {db: {condition: service_healthy}}}
  db: {image: IMAGE, command: STAYS, healthcheck: {test: "false", interval: 50ms, retries: 2}}
"""
    )
    failed = project("up", "-d", check=False)
    assert failed.returncode == 1
    assert "dependency failed to start: container p-db-1 is unhealthy" in failed.stderr
    assert project.containers()["p-web-1"]["State"] == "created"


def test_a_job_that_fails_or_is_optional(project: Project) -> None:
    text = """
services:
  web: {image: IMAGE, command: STAYS, depends_on: {job: {condition: service_completed_successfully, required: %s}}}
  job: {image: IMAGE, command: [sh, -c, "exit 3"]}
"""
    project.write(text % "true")
    failed = project("up", "-d", check=False)
    assert failed.returncode == 1
    assert 'service "job" didn\'t complete successfully: exit 3' in failed.stderr
    project.write(text % "false")
    project("up", "-d")
    assert project.containers()["p-web-1"]["State"] == "running"


def test_attached_output_has_prefixes_and_ctrl_c_stops_in_order(project: Project) -> None:
    project.write(
        """
services:
  web:
    image: IMAGE
    command: [sh, -c, "echo hello; echo oops >&2; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"]
    depends_on: [database]
  database: {image: IMAGE, command: STAYS}
"""
    )
    running = project.start("up")
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == b"web-1       | hello\n"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert b"web-1       | oops\n" in err
    assert b"web-1       | bye\n" in out
    assert err.index(b"Container p-web-1  Stopped") < err.index(b"Container p-database-1  Stopping")
    assert {row["State"] for row in project.containers().values()} == {"exited"}


def test_a_second_ctrl_c_kills(project: Project) -> None:
    project.write(
        """
services:
  a:
    image: IMAGE
    command: [sh, -c, "trap '' TERM; echo up; while :; do sleep 0.1; done"]
    stop_grace_period: 60s
"""
    )
    running = project.start("up")
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == b"a-1  | up\n"
    running.send_signal(signal.SIGINT)
    while b"Stopping" not in (line := running.stderr.readline()) or b"Gracefully" in line:
        assert line
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    assert running.returncode == 130
    assert project.containers()["p-a-1"]["ExitCode"] == 137


def test_the_exit_code_of_one_service_is_the_commands(project: Project) -> None:
    project.write(
        """
services:
  test: {image: IMAGE, command: [sh, -c, "exit 7"], depends_on: [db]}
  db: {image: IMAGE, command: STAYS}
"""
    )
    done = project("up", "--exit-code-from", "test", check=False)
    assert done.returncode == 7
    assert "test-1 exited with code 7" in done.stderr
    assert {row["State"] for row in project.containers().values()} == {"exited"}


def test_up_ends_by_itself_when_all_services_have_ended(project: Project) -> None:
    project.write("services: {a: {image: IMAGE, command: echo one}, b: {image: IMAGE, command: echo two}}")
    done = project("up", "--no-color")
    assert sorted(done.stdout.splitlines()) == ["a-1  | one", "b-1  | two"]


def test_a_one_off_command_has_the_service_and_what_it_depends_on(project: Project) -> None:
    project.write(
        """
services:
  app:
    image: IMAGE
    command: STAYS
    environment: {A: "1"}
    depends_on: [db]
    ports: ["127.0.0.1:1:1"]
    container_name: fixed
  db: {image: IMAGE, command: STAYS}
"""
    )
    done = project(
        "run", "--rm", "-T", "-e", "B=2", "app", "sh", "-c", "echo $A$B; nslookup db >/dev/null && exit 5", check=False
    )
    assert (done.stdout, done.returncode) == ("12\n", 5)
    assert sorted(project.containers()) == ["p-db-1"]
    name = project("run", "-d", "--no-deps", "--name", "once", "app").stdout.strip()
    assert name == "once"
    assert project.labels("once")["com.docker.compose.oneoff"] == "True"
    assert "once" not in project("ps", "--format", "{{.Name}}").stdout
    assert "once" in project("ps", "-a", "--format", "{{.Name}}").stdout


def test_published_ports_answer(project: Project) -> None:
    project.write(
        """
services:
  web:
    image: IMAGE
    command: [sh, -c, "mkdir /w; echo page >/w/index.html; httpd -f -p 80 -h /w"]
    stop_signal: KILL
    ports: ["127.0.0.1::80"]
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/"], interval: 50ms}
"""
    )
    project("up", "-d", "--wait")
    where = project("port", "web", "80").stdout.strip()
    with urllib.request.urlopen(f"http://{where}/", timeout=5) as answer:
        assert answer.read() == b"page\n"
    missing = project("port", "web", "81", check=False)
    assert missing.returncode == 1


def test_containers_of_services_that_are_gone_are_told_of_and_removed(project: Project) -> None:
    project.write("services: {a: {image: IMAGE, command: STAYS}, old: {image: IMAGE, command: STAYS}}")
    project("up", "-d")
    project.write("services: {a: {image: IMAGE, command: STAYS}}")
    assert "Found orphan containers (p-old-1)" in project("up", "-d").stderr
    assert "p-old-1" in project.containers() or project.box("ps", "-q", "--filter", "name=p-old-1").stdout
    project("up", "-d", "--remove-orphans")
    assert project.box("ps", "-aq", "--filter", "name=p-old-1").stdout == ""


def test_stop_start_restart_pause_kill_rm(project: Project) -> None:
    project.write(
        """
services:
  a: {image: IMAGE, command: STAYS, depends_on: {b: {condition: service_started, restart: true}}}
  b: {image: IMAGE, command: STAYS}
"""
    )

    def states() -> list[str]:
        return [row["State"] for row in project.containers().values()]

    def begun(name: str) -> str:
        return str(project.box.state(name)["StartedAt"])

    project("create")
    assert states() == ["created", "created"]
    project("start")
    assert states() == ["running", "running"]
    before = begun("p-a-1")
    project("restart", "b")
    assert begun("p-a-1") != before
    project("pause", "a")
    assert states() == ["paused", "running"]
    project("unpause")
    project("stop", "a")
    assert states() == ["exited", "running"]
    project("kill", "b")
    assert states() == ["exited", "exited"]
    assert project.containers()["p-b-1"]["ExitCode"] == 137
    project("rm", "-f", "a")
    assert sorted(project.containers()) == ["p-b-1"]
    failed = project("start", "a", check=False)
    assert 'service "a" has no container to start' in failed.stderr


def test_logs_ps_top_images_ls_and_wait(project: Project) -> None:
    project.write(
        'services: {a: {image: IMAGE, command: [sh, -c, "echo 1; echo 2; exit 3"]}, b: {image: IMAGE, command: STAYS}}'
    )
    project("up", "-d")
    assert project("wait", "a", check=False).stdout == "3\n"
    assert project("logs", "--no-color", "-n", "1", "a").stdout == "a-1  | 2\n"
    assert project("logs", "--no-log-prefix", "a").stdout == "1\n2\n"
    assert project("ps", "--services").stdout == "b\n"
    assert project("ps", "--status", "exited", "-q").stdout.strip() == project.id("p-a-1")
    assert "p-b-1" in project("images").stdout
    assert re.search(r"^b +1 ", project("top").stdout, re.MULTILINE)
    [row] = json.loads(project("ls", "--format", "json", "-a").stdout)
    assert (row["Name"], row["Status"]) == ("p", "exited(1), running(1)")
    assert row["ConfigFiles"] == str(project.directory / "compose.yaml")


def test_a_project_whose_files_are_gone_is_ended_by_its_name(project: Project) -> None:
    project.write("services: {a: {image: IMAGE, command: STAYS, depends_on: [b]}, b: {image: IMAGE, command: STAYS}}")
    project("up", "-d")
    (project.directory / "compose.yaml").unlink()
    lines = [line.strip() for line in project("down").stderr.splitlines()]
    assert lines.index("Container p-a-1  Stopped") < lines.index("Container p-b-1  Stopping")


def test_an_up_that_was_killed_is_finished_by_the_next(project: Project) -> None:
    text = "services: {a: {image: IMAGE, command: STAYS, environment: {V: '%s'}}}"
    project.write(text % 1)
    project("up", "-d")
    old = project.id("p-a-1")
    project.write(text % 2)
    # What a kill leaves between making the new container and removing the old one.
    aside = f"{old[:12]}_p-a-1"
    labels = [f"--label={key}={value}" for key, value in project.labels("p-a-1").items()]
    project.box("create", "--name", aside, *labels, f"--label=com.docker.compose.replace={old}", project.box.image)
    project("up", "-d")
    assert sorted(project.containers()) == ["p-a-1"]
    assert project.id("p-a-1") != old
    # And after the old one was removed, before the name was handed on.
    project.box("rename", "p-a-1", aside)
    project("up", "-d")
    assert sorted(project.containers()) == ["p-a-1"]


def test_images_are_pulled_where_they_are_missing(project: Project, image: Callable[[str], str]) -> None:
    name = image("whiteouts")
    text = (
        "services: {a: {image: '%s', pull_policy: %s, command: [echo, here]}, b: {image: '%s', command: [echo, here]}}"
    )
    project.write(text % (name, "never", name))
    failed = project("up", "-d", check=False)
    assert f"No such image: {name}" in failed.stderr
    project.write(text % (name, "missing", name))
    pulled = project("up", "-d").stderr
    assert pulled.count(f"Image {name}  Pulled") == 1
    assert "Pull" not in project("up", "-d").stderr
    assert f"Image {name}  Pulled" in project("up", "-d", "--pull", "always").stderr
    project("down", "--rmi", "all")
    assert project.box("images", "-q", name).stdout == ""
    assert f"Image {name}  Pulled" in project("pull").stderr
    project("pull", "--policy", "missing")
    project.box("rmi", name)
    project.write(text % (name.replace("whiteouts", "none"), "missing", name))
    assert project("pull", check=False).returncode == 1
    assert project("pull", "--ignore-pull-failures").returncode == 0


def test_a_service_is_built_from_its_directory(project: Project) -> None:
    (project.directory / "Dockerfile").write_text(f"FROM {project.box.image}\nARG V\nRUN echo built $V >/built\n")
    project.write("services: {app: {build: {context: ., args: {V: '1'}}, command: [cat, /built]}}")
    assert project("up", "--no-color").stdout == "app-1  | built 1\n"
    assert project("config", "--images").stdout == "p-app\n"
    project("build", "--build-arg", "V=2", "-q")
    assert project("up", "--no-color").stdout == "app-1  | built 2\n"
    project("down", "--rmi", "local")
    assert project.box("images", "-q", "p-app").stdout == ""


def test_hooks_run_after_the_start_and_before_the_stop(project: Project) -> None:
    project.write(
        """
services:
  a:
    image: IMAGE
    command: STAYS
    volumes: [./:/host]
    post_start: [{command: [sh, -c, "echo started >>/host/hooks"]}]
    pre_stop: [{command: [sh, -c, "echo $$X >>/host/hooks"], environment: {X: stopping}}]
"""
    )
    project("up", "-d")
    project("stop")
    assert (project.directory / "hooks").read_text() == "started\nstopping\n"


@pytest.mark.parametrize(
    "key, message",
    [
        ("gpus: all", "services.a.gpus cannot be had"),
        ("use_api_socket: true", "services.a.use_api_socket cannot be had"),
        ("isolation: hyperv", "services.a.isolation cannot be had"),
        ("image: none:such\n    pull_policy: never", "No such image: none:such"),
        ("volumes: [{type: bind, source: ./no, target: /x, bind: {create_host_path: false}}]", "does not exist"),
        ("secrets: [x]", "refers to undefined secret x"),
    ],
)
def test_what_cannot_be_is_an_error_and_nothing_is_left(project: Project, key: str, message: str) -> None:
    image = "" if key.startswith("image") else "image: IMAGE\n    "
    project.write(f"services:\n  a:\n    {image}command: STAYS\n    {key}\n")
    failed = project("up", "-d", check=False)
    assert failed.returncode != 0
    assert message in failed.stderr
    assert project.box("ps", "-aq", "--filter", "label=com.docker.compose.project=p").stdout == ""


def test_containers_of_services_are_under_the_filter_of_system_calls(project: Project) -> None:
    project.write("services: {a: {image: IMAGE, command: [grep, 'Seccomp:', /proc/self/status]}}")
    assert project("up", "--no-log-prefix").stdout.split() == ["Seccomp:", "2"]
    assert project("run", "--rm", "-T", "a").stdout.split() == ["Seccomp:", "2"]


def test_a_sigterm_stops_the_services_as_ctrl_c_does(project: Project) -> None:
    project.write(
        """
services:
  a:
    image: IMAGE
    command: [sh, -c, "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"]
    tty: true
"""
    )
    running = project.start("up", "--no-color")
    assert running.stdout is not None
    assert running.stdout.readline() == b"a-1  | up\r\n"
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=20)
    assert running.returncode == 130
    assert project.containers()["p-a-1"]["State"] == "exited"


@pytest.mark.parametrize("name", ["../../x", "-rf", "a\nb", "a" * 300, "A", ""])
def test_names_that_lead_elsewhere_are_refused(project: Project, name: str) -> None:
    for words in (("-p", name, "down"), ("-p", name, "up", "-d")):
        done = project.box("compose", "--project-directory", str(project.directory / "none"), *words, check=False)
        assert done.returncode == 1
    for key in (
        "container_name: %s",
        "networks: [n]\nnetworks: {n: {name: %s}}",
        "volumes: ['v:/v']\nvolumes: {v: {name: %s}}",
    ):
        if name in ("A", ""):
            continue  # good names of containers, or none
        project.write("services:\n  a:\n    image: IMAGE\n    command: STAYS\n    " + key % json.dumps(name))
        assert project("up", "-d", check=False).returncode == 1
    assert project.box("ps", "-aq").stdout == ""


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(project: Project) -> None:
    project.write("services: {a: {image: IMAGE, command: STAYS, volumes: ['v:/v']}}\nvolumes: {v: }")

    def lines(*words: str) -> list[str]:
        done = project.box("compose", "--project-directory", str(project.directory), "-p", "p", "--dry-run", *words)
        return [line.strip().removeprefix("DRY-RUN MODE - ") for line in done.stderr.splitlines()]

    assert lines("up") == [
        "Network p_default  Creating", "Volume p_v  Creating", "Container p-a-1  Creating", "Container p-a-1  Starting",
    ]  # fmt: skip
    assert project.containers() == {}
    project("up", "-d")
    assert lines("up") == ["Container p-a-1  Running"]
    assert lines("up", "--force-recreate")[0] == "Container p-a-1  Recreate"
    assert lines("down") == [
        "Container p-a-1  Stopping", "Container p-a-1  Removing", "Network p_default  Removing",
    ]  # fmt: skip
    assert project.containers()["p-a-1"]["State"] == "running"


def test_limits_hold_or_are_told_of(project: Project) -> None:
    project.write(
        """
services:
  a: {image: IMAGE, command: STAYS, mem_limit: 64m, deploy: {resources: {limits: {cpus: '0.5', pids: 77}}}}
  b: {image: IMAGE, command: STAYS, mem_swappiness: 5, cgroup: host}
  c: {image: IMAGE, command: STAYS, mem_limit: 1m, profiles: [never]}
"""
    )
    done = project("up", "-d")
    assert "services.b.mem_swappiness  has no effect: version 2 of control groups" in done.stderr
    assert project.box.inspect("p-b-1")["HostConfig"]["CgroupnsMode"] == "host"
    given = project.box.inspect("p-a-1")["HostConfig"]
    if "services.a  runs without its limits" in done.stderr:
        assert (given["Memory"], given["NanoCpus"]) == (0, 0)
        refused = project.box("create", "--memory", "64m", project.box.image, check=False)
        assert "cannot be enforced" in refused.stderr
    else:
        assert (given["Memory"], given["NanoCpus"], given["PidsLimit"]) == (64 << 20, 500_000_000, 77)
    failed = project("up", "-d", "c", check=False)
    assert "services.c: Minimum memory limit allowed is 6MB" in failed.stderr


def test_rootless_compose_is_a_program_of_its_own(project: Project) -> None:
    program = project.box.installed.program.parent / "rootless-compose"
    if not program.exists():
        pytest.skip("the package was installed before it had this program")
    project.write("services: {a: {image: IMAGE}}")
    done = subprocess.run(
        [program, "--project-directory", project.directory, "config", "--services"],
        env=project.box.installed.env,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("a\n", 0)


def test_the_working_directory_and_its_parents_are_looked_in(project: Project) -> None:
    project.write("name: named\nservices: {a: {image: IMAGE}}")
    (project.directory / "deep" / "er").mkdir(parents=True)
    done = subprocess.run(
        project.box.installed.command("compose", "config", "--format", "json"),
        env=project.box.installed.env,
        cwd=project.directory / "deep" / "er",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["name"] == "named"
    assert os.fspath(project.directory) not in done.stderr
