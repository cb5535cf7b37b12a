"""The core of TCP: what it answers to which segment, in which state."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slirp.tcp import KEEPALIVE_IDLE, MOST_CHALLENGES, MOST_HANDSHAKES, TIME_WAIT_SECONDS, Connection
from slirp.tcp_budget import FLOOR, IN_ALL, PER_CONTAINER, TO_THE_CONTAINER, TO_THE_HOST, Budget, Holding
from slirp.tcp_send import LONGEST_STALL, MOST_TRIES
from slirp.tcp_states import End, Out, Sizes, State, nearest
from slirp.wire.tcp import ACK, FIN, PSH, RST, SYN, URG, Options, Segment

THEIRS, OURS = 1000, 5000  # the first sequence numbers


class Peer:
    """Speaks to a connection as a container would, with full control of what it says."""

    def __init__(self, mss: int = 1000, window: int = 60000, wscale: int | None = None, budget: int = IN_ALL) -> None:
        self.budget = Budget(budget)
        self.now = 0.0
        self.window = window
        syn = self.segment(SYN, THEIRS, options=Options(mss=mss, wscale=wscale))
        self.connection = Connection.answer(syn, OURS, Sizes(mss, mss), self.budget, self.now)
        self.syn = syn

    def segment(
        self, flags: int, sequence: int, ack: int = 0, payload: bytes = b"", options: Options | None = None
    ) -> Segment:
        sequence, ack = sequence & 0xFFFFFFFF, ack & 0xFFFFFFFF
        return Segment(1, 2, sequence, ack, flags, self.window, 0, options or Options(), memoryview(payload))

    def says(self, flags: int, sequence: int, ack: int = OURS + 1, payload: bytes = b"") -> bytes:
        """What the host's socket gets of it at once."""
        view = self.connection.arrived(self.segment(flags, sequence, ack, payload), self.now)
        return bytes(view) if view is not None else b""

    def hears(self) -> list[Out]:
        return self.connection.take_segments()

    def flags(self) -> list[int]:
        return [out.flags for out in self.hears()]

    def waits(self) -> list[Out]:
        """Until the next deadline, and what is said then."""
        assert self.connection.deadline < float("inf")
        self.now = self.connection.deadline
        self.connection.timer(self.now)
        return self.hears()

    @property
    def state(self) -> State:
        return self.connection.state

    def reached(self, state: State) -> bool:
        """Whether it is in that state; mypy takes `state` for what it was when it was last compared."""
        return self.connection.state is state


def established(mss: int = 1000, window: int = 60000, budget: int = IN_ALL) -> Peer:
    peer = Peer(mss, window, budget=budget)
    peer.says(ACK, THEIRS + 1)
    peer.hears()
    assert peer.state is State.ESTABLISHED
    return peer


def calling() -> Peer:
    peer = Peer()
    peer.connection = Connection.call(OURS, Sizes(1000, 1000), peer.budget, 0.0)
    return peer


# Handshakes


def test_the_syn_ack_offers_our_sizes_and_acknowledges_the_syn() -> None:
    (out,) = Peer(wscale=4).hears()
    assert (out.flags, out.sequence, out.acknowledgement) == (SYN | ACK, OURS, THEIRS + 1)
    assert out.options == bytes.fromhex("020403e801030307")
    assert out.window == 65535


def test_without_their_scale_we_offer_none() -> None:
    (out,) = Peer().hears()
    assert out.options == bytes.fromhex("020403e8")


def test_a_syn_ack_is_repeated_at_growing_intervals_and_then_given_up() -> None:
    peer = Peer()
    times = []
    while peer.state is State.SYN_RECEIVED:
        peer.hears()
        peer.waits()
        times.append(peer.now)
    assert times == [1, 3, 7, 15, 31, 63][: MOST_HANDSHAKES + 1]
    assert peer.connection.end is End.TIMED_OUT


def test_a_repeated_syn_gets_the_syn_ack_again() -> None:
    peer = Peer()
    peer.hears()
    peer.connection.arrived(peer.syn, 0.5)
    assert [(out.flags, out.sequence) for out in peer.hears()] == [(SYN | ACK, OURS)]


def test_an_acknowledgement_of_what_was_never_sent_is_reset_and_the_handshake_goes_on() -> None:
    peer = Peer()
    peer.hears()
    peer.says(ACK, THEIRS + 1, OURS + 99)
    assert [(out.flags, out.sequence) for out in peer.hears()] == [(RST, OURS + 99)]
    assert peer.state is State.SYN_RECEIVED


def test_a_call_is_answered_acknowledged_and_open() -> None:
    peer = calling()
    (syn,) = peer.hears()
    assert (syn.flags, syn.sequence) == (SYN, OURS)
    peer.connection.arrived(peer.segment(SYN | ACK, THEIRS, OURS + 1), 0.1)
    assert [(out.flags, out.acknowledgement) for out in peer.hears()] == [(ACK, THEIRS + 1)]
    assert peer.state is State.ESTABLISHED


def test_a_refused_call_has_ended_by_reset() -> None:
    peer = calling()
    peer.hears()
    peer.connection.arrived(peer.segment(RST | ACK, 0, OURS + 1), 0.1)
    assert (peer.state, peer.connection.end) == (State.CLOSED, End.RESET)


def test_a_reset_that_does_not_know_our_number_refuses_nothing() -> None:
    peer = calling()
    for flags, ack in ((RST | ACK, OURS), (RST, 0)):
        peer.connection.arrived(peer.segment(flags, 0, ack), 0.1)
    assert peer.state is State.SYN_SENT


def test_data_and_fin_with_the_last_step_of_the_handshake_count() -> None:
    peer = Peer()
    peer.hears()
    assert peer.says(ACK | FIN | PSH, THEIRS + 1, payload=b"all") == b"all"
    assert peer.reached(State.CLOSE_WAIT)
    assert peer.connection.take_shutdown()


# Data


def test_bytes_in_order_go_straight_to_the_host_and_are_acknowledged_together() -> None:
    peer = established()
    assert peer.says(ACK, THEIRS + 1, payload=b"abc") == b"abc"
    assert peer.says(ACK, THEIRS + 4, payload=b"de") == b"de"
    assert peer.hears() == []
    peer.connection.flush()
    assert [(out.flags, out.acknowledgement) for out in peer.hears()] == [(ACK, THEIRS + 6)]
    peer.connection.flush()
    assert peer.hears() == []


def test_an_answer_carries_the_acknowledgement() -> None:
    peer = established()
    peer.says(ACK, THEIRS + 1, payload=b"question")
    peer.connection.host_data(b"answer", 0.0)
    peer.connection.flush()
    assert [(bytes(out.payload), out.acknowledgement) for out in peer.hears()] == [(b"answer", THEIRS + 9)]


def test_early_bytes_wait_and_each_is_answered_at_once() -> None:
    peer = established()
    assert peer.says(ACK, THEIRS + 4, payload=b"def") == b""
    assert peer.says(ACK, THEIRS + 9, payload=b"ij") == b""
    assert [out.acknowledgement for out in peer.hears()] == [THEIRS + 1] * 2
    assert peer.says(ACK, THEIRS + 1, payload=b"abcde") == b""
    assert b"".join(peer.connection.pending) == b"abcdef"
    peer.says(ACK, THEIRS + 7, payload=b"gh")
    assert b"".join(peer.connection.pending) == b"abcdefghij"


def test_what_was_had_before_is_trimmed_and_repetitions_are_answered() -> None:
    peer = established()
    peer.says(ACK, THEIRS + 1, payload=b"abc")
    assert peer.says(ACK, THEIRS + 1, payload=b"abcde") == b"de"
    peer.hears()
    assert peer.says(ACK, THEIRS + 1, payload=b"abc") == b""
    assert [out.acknowledgement for out in peer.hears()] == [THEIRS + 6]


def test_urgent_bytes_are_bytes() -> None:
    assert established().says(ACK | URG, THEIRS + 1, payload=b"a!") == b"a!"


def test_what_the_host_does_not_take_closes_the_window_and_opens_it_again() -> None:
    peer = established()
    sent = 0
    window = 65535
    while window:
        payload = bytes(min(window, 1000))
        view = peer.connection.arrived(peer.segment(ACK, THEIRS + 1 + sent, OURS + 1, payload), 0.0)
        if view is not None:
            peer.connection.keep(view)
        sent += len(payload)
        peer.connection.flush()
        window = min(65535, TO_THE_HOST - sent)
    assert peer.hears()[-1].window == 0
    assert peer.budget.used == sent == TO_THE_HOST
    peer.says(ACK, THEIRS + 1 + sent, payload=b"x")  # a probe
    assert [out.acknowledgement for out in peer.hears()] == [THEIRS + 1 + sent]
    while peer.connection.pending:
        peer.connection.host_took(len(peer.connection.receiver.head()))
        peer.connection.flush()
    assert peer.hears()[0].window > 0
    assert peer.budget.used == 0


def test_many_small_early_pieces_are_few_and_counted() -> None:
    peer = established(budget=100000)
    for number in range(1000):
        peer.says(ACK, THEIRS + 3 + 2 * number, payload=b"x")
    assert 0 < peer.budget.used < 10000
    peer.connection.host_reset()
    assert peer.budget.used == 0


def test_small_pieces_that_wait_do_not_cost_an_object_each() -> None:
    peer = established()
    for number in range(5000):
        view = peer.connection.arrived(peer.segment(ACK, THEIRS + 1 + number, OURS + 1, b"x"), 0.0)
        peer.connection.keep(view if view is not None else memoryview(b""))
    assert len(peer.connection.pending) == 1


# The host's stream


def test_fin_follows_the_last_byte_from_the_host() -> None:
    peer = established(mss=536)
    peer.connection.host_data(bytes(800), 0.0)
    peer.connection.host_eof(0.0)
    assert [(len(out.payload), bool(out.flags & FIN)) for out in peer.hears()] == [
        (536, False),
        (264, False),
        (0, True),
    ]
    assert peer.state is State.FIN_WAIT_1


def test_no_more_is_sent_than_the_window_takes() -> None:
    peer = established(window=1500)
    peer.connection.host_data(bytes(5000), 0.0)
    assert [len(out.payload) for out in peer.hears()] == [1000]  # 500 would be a sliver
    peer.window = 0
    peer.says(ACK, THEIRS + 1, OURS + 1001)
    assert peer.hears() == []


def test_a_closed_window_is_probed_for_as_long_as_the_probes_are_answered() -> None:
    peer = established()
    peer.window = 0
    peer.says(ACK, THEIRS + 1)
    peer.connection.host_data(b"x" * 10, 0.0)
    assert peer.hears() == []
    for _ in range(50):
        (probe,) = peer.waits()
        assert (probe.sequence, bytes(probe.payload), probe.flags) == (OURS, b"", ACK)
        peer.says(ACK, THEIRS + 1)
    peer.window = 100
    peer.says(ACK, THEIRS + 1)
    assert [bytes(out.payload) for out in peer.hears()] == [b"x" * 10]


def test_a_closed_window_is_not_waited_for_for_ever() -> None:
    peer = established()
    peer.window = 0
    peer.says(ACK, THEIRS + 1)
    peer.connection.host_data(b"x", 0.0)
    while peer.state is not State.CLOSED:
        assert peer.now < 2 * LONGEST_STALL
        peer.waits()
        peer.says(ACK, THEIRS + 1)
    assert peer.connection.end is End.TIMED_OUT


def test_unanswered_probes_end_it_sooner() -> None:
    peer = established()
    peer.window = 0
    peer.says(ACK, THEIRS + 1)
    peer.connection.host_data(b"x", 0.0)
    while peer.state is not State.CLOSED:
        peer.waits()
    assert peer.now < 3600


def test_lost_bytes_are_sent_again_at_growing_intervals_and_then_given_up() -> None:
    peer = established()
    peer.connection.host_data(b"abc", 0.0)
    peer.hears()
    times = []
    while peer.state is State.ESTABLISHED:
        sent = peer.waits()
        times.append(peer.now)
        if peer.state is State.ESTABLISHED:
            assert [bytes(out.payload) for out in sent] == [b"abc"]
    assert len(times) == MOST_TRIES + 1
    assert times[:4] == [1, 3, 7, 15]
    assert sent[-1].flags == RST | ACK


def test_three_repetitions_of_an_acknowledgement_send_the_first_piece_again() -> None:
    peer = established()
    peer.connection.host_data(bytes(5000), 0.0)
    peer.hears()
    for _ in range(2):
        peer.says(ACK, THEIRS + 1)
    assert peer.hears() == []
    peer.says(ACK, THEIRS + 1)
    assert [(out.sequence, len(out.payload)) for out in peer.hears()] == [(OURS + 1, 1000)]
    peer.says(ACK, THEIRS + 1, OURS + 2001)  # one more was lost
    assert [(out.sequence, len(out.payload)) for out in peer.hears()] == [(OURS + 2001, 1000)]
    peer.says(ACK, THEIRS + 1, OURS + 5001)
    assert peer.connection.deadline > 1000


def test_round_trips_set_the_timeout_but_not_those_of_what_was_sent_twice() -> None:
    peer = established()
    peer.connection.host_data(b"a", 0.0)
    peer.waits()
    peer.now += 5.0
    peer.says(ACK, THEIRS + 1, OURS + 2)
    assert peer.connection.sender.smoothed is None
    peer.connection.host_data(b"b", peer.now)
    peer.now += 0.5
    peer.says(ACK, THEIRS + 1, OURS + 3)
    assert peer.connection.sender.smoothed == pytest.approx(0.5)
    assert peer.connection.sender.timeout == pytest.approx(1.5)


def test_the_host_is_not_read_beyond_what_may_be_held() -> None:
    peer = established(window=0)
    taken = 0
    while room := peer.connection.room():
        size = min(room, 60000)
        peer.connection.host_data(bytes(size), 0.0)
        taken += size
    assert TO_THE_CONTAINER - 5000 < taken <= TO_THE_CONTAINER
    assert peer.budget.used == taken


# Ends


def test_the_container_ends_first() -> None:
    peer = established()
    peer.says(FIN | ACK, THEIRS + 1)
    assert peer.connection.take_shutdown()
    assert not peer.connection.take_shutdown()
    peer.connection.flush()
    assert [out.acknowledgement for out in peer.hears()] == [THEIRS + 2]
    peer.connection.host_data(b"rest", 0.0)
    peer.connection.host_eof(0.0)
    assert peer.state is State.LAST_ACK
    peer.says(ACK, THEIRS + 2, OURS + 6)
    assert (peer.state, peer.connection.end) == (State.CLOSED, End.FINISHED)


def test_the_host_ends_first_and_a_repeated_fin_is_answered_in_time_wait() -> None:
    peer = established()
    peer.connection.host_eof(0.0)
    peer.hears()
    peer.says(ACK, THEIRS + 1, OURS + 2)
    assert peer.state is State.FIN_WAIT_2
    assert peer.says(FIN | ACK, THEIRS + 1, OURS + 2, b"last") == b"last"
    assert peer.reached(State.TIME_WAIT)
    assert peer.flags() == [ACK]
    peer.now = TIME_WAIT_SECONDS / 2
    peer.says(FIN | ACK, THEIRS + 5, OURS + 2)
    assert peer.flags() == [ACK]
    peer.waits()
    assert peer.now == TIME_WAIT_SECONDS * 1.5
    assert (peer.state, peer.connection.end) == (State.CLOSED, End.FINISHED)


def test_both_end_at_the_same_time() -> None:
    peer = established()
    peer.connection.host_eof(0.0)
    peer.hears()
    peer.says(FIN | ACK, THEIRS + 1)
    assert peer.state is State.CLOSING
    peer.says(ACK, THEIRS + 2, OURS + 2)
    assert peer.reached(State.TIME_WAIT)


def test_a_fin_that_is_early_waits_for_what_comes_before_it() -> None:
    peer = established()
    peer.says(FIN | ACK, THEIRS + 4, payload=b"de")
    assert peer.state is State.ESTABLISHED
    peer.says(ACK, THEIRS + 1, payload=b"abc")
    assert peer.reached(State.CLOSE_WAIT)
    assert not peer.connection.take_shutdown()  # the host has yet to take it
    peer.connection.host_took(5)
    assert peer.connection.take_shutdown()


def test_data_after_a_fin_is_not_data() -> None:
    peer = established()
    peer.says(FIN | ACK, THEIRS + 1, payload=b"a")
    assert peer.says(ACK, THEIRS + 3, payload=b"more") == b""
    assert peer.connection.receiver.received == 1
    peer = established()
    peer.says(ACK, THEIRS + 5, payload=b"beyond")
    peer.says(FIN | ACK, THEIRS + 1, payload=b"ab")
    assert peer.connection.receiver.received == 2
    assert peer.reached(State.CLOSE_WAIT)


def test_a_lost_fin_is_sent_again() -> None:
    peer = established()
    peer.connection.host_eof(0.0)
    peer.hears()
    assert [(out.flags, out.sequence) for out in peer.waits()] == [(FIN | ACK, OURS + 1)]


def test_a_syn_that_is_newer_may_take_the_place_of_time_wait() -> None:
    peer = established()
    peer.connection.host_eof(0.0)
    peer.says(FIN | ACK, THEIRS + 1, OURS + 2)
    assert peer.reached(State.TIME_WAIT)
    assert peer.connection.replaceable(peer.segment(SYN, THEIRS + 100))
    assert not peer.connection.replaceable(peer.segment(SYN, THEIRS))


def test_silence_for_hours_is_asked_about_and_then_the_end() -> None:
    peer = established()
    (probe,) = peer.waits()
    assert peer.now == KEEPALIVE_IDLE
    assert (probe.sequence, probe.flags) == (OURS, ACK)
    peer.says(ACK, THEIRS + 1)
    assert peer.connection.deadline == 2 * KEEPALIVE_IDLE
    while peer.state is State.ESTABLISHED:
        peer.waits()
    assert peer.connection.end is End.TIMED_OUT
    assert peer.now < 2 * KEEPALIVE_IDLE + 1000


# Resets and liars (RFC 5961)


def test_a_reset_with_the_next_number_ends_it() -> None:
    peer = established()
    peer.says(RST, THEIRS + 1)
    assert (peer.state, peer.connection.end) == (State.CLOSED, End.RESET)


def test_a_reset_elsewhere_in_the_window_is_asked_about_and_outside_of_it_ignored() -> None:
    peer = established()
    peer.says(RST, THEIRS + 100)
    assert [(out.flags, out.acknowledgement) for out in peer.hears()] == [(ACK, THEIRS + 1)]
    peer.says(RST, THEIRS - 100)
    assert peer.hears() == []
    assert peer.state is State.ESTABLISHED


@pytest.mark.parametrize("sequence", [THEIRS, THEIRS + 1, THEIRS + 5000, THEIRS + (1 << 31)])
def test_a_syn_in_the_middle_is_asked_about(sequence: int) -> None:
    peer = established()
    peer.says(SYN, sequence)
    assert [(out.flags, out.acknowledgement) for out in peer.hears()] == [(ACK, THEIRS + 1)]
    assert peer.state is State.ESTABLISHED


@pytest.mark.parametrize("ack", [OURS + 2, OURS + (1 << 30), OURS + 1 - 70000])
def test_data_that_acknowledges_what_cannot_be_is_not_taken(ack: int) -> None:
    peer = established()
    assert peer.says(ACK, THEIRS + 1, ack, b"forged") == b""
    assert peer.connection.receiver.received == 0


def test_liars_are_answered_only_so_often() -> None:
    peer = established()
    for _ in range(100):
        peer.says(SYN, THEIRS + 1)
    assert len(peer.hears()) == MOST_CHALLENGES
    peer.now = 1.5
    peer.says(SYN, THEIRS + 1)
    assert len(peer.hears()) == 1


def test_the_host_s_reset_is_handed_on() -> None:
    peer = established()
    peer.connection.host_data(b"abc", 0.0)
    peer.hears()
    peer.connection.host_reset()
    assert [(out.flags, out.sequence) for out in peer.hears()] == [(RST | ACK, OURS + 4)]
    assert peer.connection.end is End.ABORTED
    assert peer.budget.used == 0


segments = st.tuples(
    st.integers(0, 255),
    st.integers(-3, 70000) | st.integers(0, 0xFFFFFFFF),
    st.integers(-3, 3000) | st.integers(0, 0xFFFFFFFF),
    st.binary(max_size=20),
    st.integers(0, 65535),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(segments, st.integers(0, 5)), max_size=40), st.booleans())
def test_no_sequence_of_events_is_an_error_or_holds_more_than_it_counts(
    events: list[tuple[int, int, int, bytes, int] | int], inward: bool
) -> None:
    peer = calling() if inward else Peer(wscale=3)
    connection = peer.connection
    for event in events:
        peer.now += 0.05
        if isinstance(event, tuple):
            flags, sequence, ack, payload, peer.window = event
            view = connection.arrived(peer.segment(flags, THEIRS + sequence, OURS + ack, payload), peer.now)
            if view is not None and event[4] % 2:
                connection.keep(view)
        elif event == 0 and connection.room():
            connection.host_data(b"0123456789" * 100, peer.now)
        elif event == 1 and connection.room():
            connection.host_eof(peer.now)
        elif event == 2 and connection.pending:
            connection.host_took(1)
        elif event == 3:
            connection.flush()
        elif event == 4 and connection.deadline < float("inf"):
            peer.waits()
        for out in peer.hears():
            assert len(out.payload) <= 1000
            assert 0 <= out.window <= 65535
        kept = sum(map(len, connection.pending)) + connection.sender.queued
        assert kept <= peer.budget.used <= IN_ALL
    connection.forget()
    assert peer.budget.used == 0


# Numbers and budgets


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 1 << 40))
def test_a_number_of_the_wire_is_the_nearest(distance: int, reference: int) -> None:
    assert nearest((reference + distance) & 0xFFFFFFFF, reference) == reference + distance


def test_however_many_hold_on_something_is_left_for_the_next() -> None:
    everything = Budget(IN_ALL)
    for _ in range(4):
        container = Budget(PER_CONTAINER, everything)
        for _ in range(8192):  # both directions
            holding = Holding(container, TO_THE_HOST)
            holding.take(holding.room())
            assert holding.size >= FLOOR
        assert Holding(Budget(PER_CONTAINER, everything), TO_THE_HOST).room() >= FLOOR
    assert everything.used <= 64 << 20


def test_what_is_held_by_containers_that_never_let_go_leaves_others_their_part() -> None:
    everything = Budget(IN_ALL)
    for _ in range(3):
        container = Budget(PER_CONTAINER, everything)
        for _ in range(100):
            holding = Holding(container, TO_THE_HOST)
            holding.take(holding.room())
    assert Holding(Budget(PER_CONTAINER, everything), TO_THE_HOST).room() > 300000


def test_a_connection_by_itself_has_the_whole_window() -> None:
    assert Holding(Budget(PER_CONTAINER, Budget(IN_ALL)), TO_THE_HOST).room() == TO_THE_HOST
