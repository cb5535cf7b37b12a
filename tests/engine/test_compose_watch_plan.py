"""What changed files mean for services, as functions of paths."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.compose.records import Build, Hook, Project, Service, Watch
from rootless.engine.compose_watch_plan import Deed, Rule, decide, is_left_alone, outermost, rules_of
from rootless.errors import InvalidInput


def rules(*watches: Watch, ignored: str = "none", **service: Any) -> list[Rule]:
    services = {"web": Service("web", {}, watch=watches, build=Build("/p"), **service)}
    project = Project("p", "/p", (), {}, services, {}, {}, {}, {}, {}, ())
    return rules_of(project, ["web"], {"web": lambda path: path.startswith(f"/p/{ignored}")})


def sync(path: str, **more: Any) -> Watch:
    return Watch(path, "sync", "/app", **more)


def sent(found: list[Rule], *paths: str) -> list[tuple[str, str]]:
    """What of the paths is sent, and where to."""
    return [
        (path, rule.target_of(path)) for deed in decide(found, paths) for rule, there in deed.syncs for path in there
    ]


def test_a_path_below_the_rules_is_at_the_same_place_below_the_target() -> None:
    found = rules(sync("/p/src"))
    assert sent(found, "/p/src/a/b.py", "/p/srcs/x", "/p", "/q") == [("/p/src/a/b.py", "/app/a/b.py")]
    assert sent(found, "/p/src") == [("/p/src", "/app")]


def test_a_file_has_the_targets_name() -> None:
    assert sent(rules(Watch("/p/a.txt", "sync", "/etc/b.conf")), "/p/a.txt") == [("/p/a.txt", "/etc/b.conf")]


def test_what_is_ignored_by_the_rule_the_build_or_everybody_is_left_out() -> None:
    found = rules(sync("/p", ignore=("node_modules/", "*.log")), ignored="secret")
    left_out = ("/p/node_modules/x/y", "/p/a.log", "/p/secret/key", "/p/.git/HEAD", "/p/src/.a.py.swp", "/p/src/a~")
    assert sent(found, *left_out, "/p/src/b") == [("/p/src/b", "/app/src/b")]
    assert is_left_alone(found, "/p/node_modules")
    assert is_left_alone(found, "/p/.git")
    assert not is_left_alone(found, "/p/src")
    assert not is_left_alone(found, "/")


def test_what_is_to_be_included_is_all_there_is() -> None:
    found = rules(sync("/p", include=("*.py", "lib")))
    assert sent(found, "/p/a.py", "/p/b.txt", "/p/lib/c") == [("/p/a.py", "/app/a.py"), ("/p/lib/c", "/app/lib/c")]
    assert found[0].wants("/p/deep", is_directory=True)
    assert not found[0].wants("/p/b.txt", is_directory=False)


def test_a_service_that_is_built_anew_needs_nothing_else() -> None:
    found = rules(sync("/p"), Watch("/p/requirements.txt", "rebuild"))
    assert decide(found, ["/p/a", "/p/requirements.txt"]) == [Deed("web", rebuild=True)]


def test_services_are_restarted_or_told_after_files_are_sent() -> None:
    hook = Hook(("reload",))
    found = rules(
        Watch("/p", "sync+exec", "/app", hook), Watch("/p/conf", "sync+restart", "/etc"), Watch("/p/r", "restart")
    )
    (deed,) = decide(found, ["/p/a"])
    assert (len(deed.syncs), deed.restart, deed.hooks) == (1, False, (hook,))
    (deed,) = decide(found, ["/p/conf/a"])
    assert (len(deed.syncs), deed.restart, deed.hooks) == (2, True, (hook,))
    (deed,) = decide(rules(Watch("/p/r", "restart")), ["/p/r"])
    assert (deed.syncs, deed.restart) == ((), True)


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "a.b", "-"]), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p)))
)
def test_the_outermost_paths_are_those_that_all_others_are_in(paths: list[str]) -> None:
    found = outermost(paths)
    assert set(found) <= set(paths)
    for path in paths:
        assert sum(path == top or path.startswith(f"{top}/") for top in found) == 1


@pytest.mark.parametrize(
    "watch, message",
    [
        (Watch("/p", "sync"), "needs an absolute path"),
        (Watch("/p", "sync+exec", "/app"), "needs a section exec"),
        (Watch("/p", "sync", "/app", ignore=("[",)), "watch\\[0\\]"),
    ],
)
def test_rules_that_cannot_be_are_refused(watch: Watch, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rules(watch)


def test_watching_needs_something_to_watch() -> None:
    with pytest.raises(InvalidInput, match="none of the selected services"):
        rules()
