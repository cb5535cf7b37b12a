"""The loop of slirp: handlers, timers, and that no error ends it."""

import os
import select
import socket

from slirp.loop import Loop


def test_timers_run_in_the_order_they_are_due() -> None:
    loop, done = Loop(), []
    loop.later(0.02, lambda: done.append("second"))
    loop.later(0.01, lambda: done.append("first"))
    loop.later(0.03, loop.stop)
    loop.run()
    assert done == ["first", "second"]


def test_a_cancelled_timer_does_nothing_and_does_not_wake_the_loop() -> None:
    loop, done = Loop(), []
    loop.later(0.01, lambda: done.append("never")).cancel()
    loop.later(0.02, loop.stop)
    loop.run()
    assert done == []


def test_an_error_in_a_handler_is_told_and_the_others_are_served() -> None:
    told: list[str] = []
    loop = Loop(told.append)
    r, w = os.pipe()

    def fail(_: int) -> None:
        os.read(r, 1)
        raise ZeroDivisionError

    loop.watch(r, select.EPOLLIN, fail)
    loop.later(0, lambda: os.close(-1))
    loop.later(0.05, loop.stop)
    os.write(w, b"x")
    loop.run()
    assert loop.errors == 2
    assert any("ZeroDivisionError" in line for line in told)
    assert all("\n" not in line for line in told)
    loop.unwatch(r)
    os.close(r)
    os.close(w)


def test_a_descriptor_that_a_handler_closes_gets_no_event_of_the_same_round() -> None:
    loop, seen = Loop(), []
    a, b = socket.socketpair()
    c, d = socket.socketpair()

    def close_all(fd: int) -> None:
        seen.append(fd)
        for sock in (a, c):
            loop.unwatch(sock.fileno())
        a.close()
        c.close()

    for sock in (a, c):
        loop.watch(sock.fileno(), select.EPOLLIN, close_all)
    b.send(b"x")
    d.send(b"x")
    loop.turn(1)
    assert len(seen) == 1
    assert loop.errors == 0
    b.close()
    d.close()


def test_a_timer_of_no_seconds_that_sets_itself_again_lets_descriptors_through() -> None:
    loop = Loop()
    r, w = os.pipe()
    os.write(w, b"x")

    def again() -> None:
        loop.later(0, again)

    again()
    loop.watch(r, select.EPOLLIN, lambda _: loop.stop())
    loop.run()
    loop.unwatch(r)
    os.close(r)
    os.close(w)


def test_who_gets_the_number_of_a_closed_descriptor_does_not_get_its_events() -> None:
    loop = Loop()
    seen: list[str] = []
    pairs = [socket.socketpair() for _ in range(2)]
    others = socket.socketpair()

    def replace(_: int) -> None:
        """Whoever of the two is first puts another socket in the place of the second."""
        number = pairs[0][0].fileno() if seen else pairs[1][0].fileno()
        seen.append("first")
        loop.unwatch(pairs[0][0].fileno())
        loop.unwatch(pairs[1][0].fileno())
        os.dup2(others[0].fileno(), number)
        loop.watch(number, select.EPOLLIN, lambda _: seen.append("not its own"))

    for mine, peer in pairs:
        loop.watch(mine.fileno(), select.EPOLLIN, replace)
        peer.send(b"x")
    loop.turn(0)
    loop.turn(0)
    assert seen == ["first"]
    for sock in (*pairs[0], *pairs[1], *others):
        sock.close()


def test_what_can_wait_is_done_soon_and_an_error_of_one_is_not_the_others() -> None:
    told: list[str] = []
    loop, done = Loop(told.append), []
    loop.sometime(lambda: done.append(1))
    loop.sometime(lambda: os.close(-1))
    loop.sometime(lambda: done.append(2))
    loop.turn(1)
    assert (done, loop.errors) == ([1, 2], 1)
    loop.sometime(loop.stop)
    loop.run()
