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
