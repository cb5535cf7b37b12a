"""What is decided of containers, and tasks in forks."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.compose_plan import FORCE, NEVER, Existing, dependents, in_order, plan_service
from rootless.engine.compose_tasks import Task, Tell, run_tasks
from rootless.errors import Conflict, RootlessError

HASHES = st.sampled_from(["now", "old"])
EXISTING = st.lists(st.tuples(HASHES, st.booleans()), max_size=6).map(
    lambda rows: [Existing(f"id{n}", f"p-s-{n}", n, config, "i", live) for n, (config, live) in enumerate(rows, 1)]
)


@given(EXISTING, st.integers(0, 8))
def test_there_are_as_many_as_wanted_and_each_is_dealt_with_once(existing: list[Existing], wanted: int) -> None:
    plan = plan_service(existing, wanted, "now", "i")
    assert len(plan.keep) + len(plan.recreate) + len(plan.create) == wanted
    assert sorted(found.id for found in (*plan.keep, *plan.recreate, *plan.remove)) == sorted(e.id for e in existing)
    assert not set(plan.create) & {found.number for found in existing}
    assert all(found.config_hash == "now" for found in plan.keep)
    if plan.remove and plan.recreate:
        assert all(found.config_hash == "old" for found in plan.remove)


@given(EXISTING, st.integers(0, 8))
def test_nothing_or_everything_is_made_anew_where_that_is_asked(existing: list[Existing], wanted: int) -> None:
    assert plan_service(existing, wanted, "now", "i", NEVER).recreate == ()
    assert plan_service(existing, wanted, "now", "i", FORCE).keep == ()


def test_a_replacement_whose_original_is_there_goes() -> None:
    old = Existing("a", "p-s-1", 1, "old", "i", True)
    new = Existing("b", "a_p-s-1", 1, "now", "i", False, replaces="a")
    plan = plan_service([old, new], 1, "now", "i")
    assert (plan.recreate, plan.remove) == ((old,), (new,))
    assert plan_service([new], 1, "now", "i").keep == (new,)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef"))))
def test_names_come_behind_what_they_need_unless_that_is_a_circle(needed: dict[str, set[str]]) -> None:
    ordered = in_order(tuple(needed), needed)
    assert sorted(ordered) == sorted(needed)
    backwards = dependents(needed)
    for name in needed:
        reached: set[str] = set()
        pending = [name]
        while pending:
            for other in backwards[pending.pop()]:
                if other not in reached:
                    reached.add(other)
                    pending.append(other)
        for other in needed[name] & set(needed) - reached - {name}:
            assert ordered.index(other) < ordered.index(name)


def nobody(what: str, status: str) -> None:
    """Nobody is told."""


def test_tasks_run_behind_those_they_need_and_side_by_side() -> None:
    told: list[tuple[str, str]] = []

    def sleeper(tell: Tell) -> int:
        time.sleep(0.3)
        return os.getpid()

    tasks = [Task("a", sleeper), Task("b", sleeper), Task("c", lambda tell: tell("c", "done"), ("a", "b"))]
    began = time.monotonic()
    results = run_tasks(tasks, lambda what, status: told.append((what, status)), limit=2)
    assert time.monotonic() - began < 0.55
    assert results["a"] != results["b"] != os.getpid()
    assert told == [("c", "done")]


def test_the_first_failure_ends_the_others_and_is_raised_as_it_was() -> None:
    def fails(tell: Tell) -> None:
        raise Conflict("taken", hint="give it back")

    def waits(tell: Tell) -> None:
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(Conflict, match="taken") as caught:
        run_tasks([Task("w", waits, waiter=True), Task("f", fails), Task("n", fails, ("f",))], nobody)
    assert caught.value.hint == "give it back"
    assert time.monotonic() - began < 10


def test_with_keep_going_the_others_are_done_but_what_needs_the_failure(tmp_path: "os.PathLike[str]") -> None:
    def fails(tell: Tell) -> None:
        raise Conflict("taken")

    def touch(name: str) -> "Task":
        return Task(name, lambda tell: open(os.path.join(tmp_path, name), "w").close(), ("f",) if name == "n" else ())

    with pytest.raises(Conflict):
        run_tasks([Task("f", fails), touch("o"), touch("n")], nobody, keep_going=True)
    assert os.listdir(tmp_path) == ["o"]


def test_points_cost_no_fork_and_hold_their_place_in_the_order() -> None:
    told: list[tuple[str, str]] = []
    tasks = [
        Task("end", None, ("b",)),
        Task("b", lambda tell: tell("b", "done"), ("point",)),
        Task("point", None, ("a", "first")),
        Task("a", lambda tell: tell("a", "done"), ("first",)),
        Task("first", None),
    ]
    results = run_tasks(tasks, lambda what, status: told.append((what, status)))
    assert told == [("a", "done"), ("b", "done")]
    assert set(results) == {"a", "b", "end", "first", "point"}


def test_a_task_that_is_killed_is_an_error() -> None:
    with pytest.raises(RootlessError, match="died"):
        run_tasks([Task("k", lambda tell: os.kill(os.getpid(), 9))], nobody)
