"""A TCP connection (RFC 9293) as a pure core: what happens and the time go in, what is to be done comes out.

One end is a container, behind the tun; the other is a socket of the host, which the rim (tcp_user.py) holds. There are
no sockets and no clocks in here.

    in    arrived (a segment) · host_data, host_eof, host_reset · keep, host_took · timer, flush
    out   arrived gives the bytes for the host's socket, uncopied; `pending` holds those that it did not take
          take_segments · take_shutdown (no more bytes will come) · deadline (call `timer` then) · state, end

Acknowledgements are put together: `flush` sends the one that is due, at the end of each batch of packets. Sequence
numbers do not wrap in here. The kernel on the other end is a good one, over a link that loses little: no SACK and no
timestamps are offered, and urgent data is data like any other. A half-open connection is not one of these: see the rim.
"""

from collections import deque

from slirp.tcp_budget import TO_THE_CONTAINER, TO_THE_HOST, Budget, Holding
from slirp.tcp_receive import SCALE, Receiver
from slirp.tcp_send import NEVER, SMALLEST_MSS, Piece, Sender
from slirp.tcp_states import (
    AFTER_FIN_ACKED,
    AFTER_FIN_ARRIVED,
    AFTER_FIN_SENT,
    MASK,
    RECEIVING,
    SENDING,
    End,
    Limiter,
    Out,
    Sizes,
    State,
    nearest,
)
from slirp.wire.tcp import ACK, FIN, PSH, RST, SYN, Segment, syn_options

MOST_HANDSHAKES = 5  # repetitions of a SYN or SYN-ACK: 63 seconds in all
HANDSHAKE_TIMEOUT = 1.0
TIME_WAIT_SECONDS = 2.0  # nothing lives that long in a tun device; 2 MSL would be for a network of old
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, MOST_KEEPALIVES = 7200.0, 75.0, 9  # as Linux has them
ACKNOWLEDGE_EVERY = 512 << 10  # bytes, within a batch
MOST_CHALLENGES = 10  # per second and connection (RFC 5961, 7)


class Connection:
    """One connection. Made by `answer` or `call`."""

    __slots__ = (
        *("_acknowledged", "_challenges", "_handshakes", "_heard", "_iss", "_out", "_probes", "_scale"),
        *("_shut", "_sizes", "_until", "ack_due", "end", "receiver", "sender", "state"),
    )

    def __init__(self, iss: int, irs: int, sizes: Sizes, budget: Budget, now: float) -> None:
        self._sizes = sizes
        self._iss = iss
        self._scale = 0  # of the windows that the container offers
        self.sender = Sender(iss + 1, Holding(budget, TO_THE_CONTAINER))
        self.receiver = Receiver(irs + 1, Holding(budget, TO_THE_HOST), 0)
        self.state = State.CLOSED
        self.end: End | None = None
        self.ack_due = False
        self._acknowledged = irs + 1  # what we have said that we have
        self._out: list[Out] = []
        self._shut = False
        self._handshakes = 0
        self._heard = now
        self._probes = 0
        self._until = NEVER  # of the handshake, or of TIME-WAIT
        self._challenges = Limiter(MOST_CHALLENGES)

    @classmethod
    def answer(cls, syn: Segment, iss: int, sizes: Sizes, budget: Budget, now: float) -> "Connection":
        """The container's SYN is answered: the host's side is connected."""
        connection = cls(iss, syn.sequence, sizes, budget, now)
        connection._learn(syn)
        connection._handshake(State.SYN_RECEIVED, now)
        return connection

    @classmethod
    def call(cls, iss: int, sizes: Sizes, budget: Budget, now: float) -> "Connection":
        """The container is called."""
        connection = cls(iss, -1, sizes, budget, now)
        connection.receiver.scale = SCALE
        connection._handshake(State.SYN_SENT, now)
        return connection

    # What is to be done

    def take_segments(self) -> list[Out]:
        """The segments to send, in order."""
        out, self._out = self._out, []
        return out

    def take_shutdown(self) -> bool:
        """True once, when the container has ended its stream and the host's socket has all of it."""
        if not self._shut or self.receiver.pending:
            return False
        self._shut = False
        return True

    @property
    def pending(self) -> "deque[bytearray]":
        """What the host's socket has yet to take; see `head`, `took` of the receiver."""
        return self.receiver.pending

    @property
    def deadline(self) -> float:
        """When `timer` is to be called; infinite: never."""
        if self._until != NEVER or self.state is State.CLOSED:
            return self._until
        return min(self.sender.deadline, self._heard + KEEPALIVE_IDLE + self._probes * KEEPALIVE_INTERVAL)

    def room(self) -> int:
        """How many bytes of the host's socket are welcome."""
        return self.sender.room() if self.state in (State.ESTABLISHED, State.CLOSE_WAIT) else 0

    # The host's side

    def host_data(self, data: bytes, now: float) -> None:
        """Bytes from the host's socket, at most `room`."""
        self.sender.put(data)
        self._transmit(now)

    def host_eof(self, now: float) -> None:
        """The host's socket has no more."""
        self.sender.finish()
        self._transmit(now)

    def host_took(self, size: int) -> None:
        """The host's socket took so many of the first pending bytes."""
        self.receiver.took(size)
        if not self.ack_due and self.state in RECEIVING:
            self.ack_due = self.receiver.worth_telling()

    def keep(self, payload: memoryview) -> None:
        """What the host's socket did not take of what `arrived` gave."""
        self.receiver.keep(payload)

    def host_reset(self) -> None:
        """The host's side is gone: so is this connection, with a reset."""
        if self.state not in (State.CLOSED, State.TIME_WAIT, State.SYN_SENT):
            self._emit(RST | ACK, self.sender.nxt)
        self._close(End.ABORTED)

    def forget(self) -> None:
        """Hold nothing any more."""
        self.sender.drop()
        self.receiver.drop()

    # Time

    def flush(self) -> None:
        """Send the acknowledgement that is due."""
        if self.ack_due:
            self._emit(ACK, self.sender.nxt)

    def timer(self, now: float) -> None:
        """Time has passed; nothing happens before the deadline."""
        if now < self.deadline:
            return
        if self.state is State.TIME_WAIT:
            self._close(End.FINISHED)
        elif self._until != NEVER:
            self._repeat_handshake(now)
        elif now >= self.sender.deadline:
            self._sender_timer(now)
        else:
            self._keepalive()

    def _repeat_handshake(self, now: float) -> None:
        if self._handshakes > MOST_HANDSHAKES:
            if self.state is State.SYN_RECEIVED:
                self._emit(RST | ACK, self.sender.nxt)
            self._close(End.TIMED_OUT)
        else:
            self._handshake(self.state, now)

    def _sender_timer(self, now: float) -> None:
        probe = self.sender.expire(now)
        if self.sender.hopeless(now):
            self._give_up()
            return
        if probe is not None:
            self._send(probe)
        self._transmit(now)

    def _keepalive(self) -> None:
        self._probes += 1
        if self._probes > MOST_KEEPALIVES:
            self._give_up()
        else:
            self._emit(ACK, self.sender.nxt - 1)

    def _give_up(self) -> None:
        self._emit(RST | ACK, self.sender.nxt)
        self._close(End.TIMED_OUT)

    # Segments out

    def _emit(self, flags: int, sequence: int, payload: bytes | memoryview = b"") -> None:
        receiver = self.receiver
        self.ack_due = False
        self._acknowledged = receiver.next
        window = receiver.window()
        self._out.append(Out(flags, sequence & MASK, receiver.next & MASK, window, b"", payload))

    def _send(self, piece: Piece) -> None:
        sequence, payload, fin = piece
        self._emit(ACK | FIN if fin else ACK | PSH if payload else ACK, sequence, payload)
        if fin:
            self.state = AFTER_FIN_SENT.get(self.state, self.state)

    def _transmit(self, now: float) -> None:
        if self.state in SENDING:
            for piece in self.sender.transmit(now):
                self._send(piece)

    def _challenge(self, now: float) -> None:
        """Say what we expect (RFC 5961): a true peer answers with a number that fits, and a liar learns little."""
        if self._challenges.allows(now):
            self._emit(ACK, self.sender.nxt)

    def _handshake(self, state: State, now: float) -> None:
        """Send SYN or SYN-ACK, the first time or again."""
        self.state = state
        self._until = now + HANDSHAKE_TIMEOUT * (1 << self._handshakes)
        self._handshakes += 1
        flags, acknowledgement = (SYN, 0) if state is State.SYN_SENT else (SYN | ACK, self.receiver.next & MASK)
        scale = SCALE if state is State.SYN_SENT or self.receiver.scale else None
        window = self.receiver.first_window()
        options = syn_options(self._sizes.mss, scale)
        self._out.append(Out(flags, self._iss & MASK, acknowledgement, window, options, b""))

    # Segments in

    def _learn(self, syn: Segment) -> None:
        """What the other end's SYN says: where its numbers start, and what it is capable of."""
        options = syn.options
        self.receiver.next = self.receiver.edge = self._acknowledged = syn.sequence + 1
        self.receiver.scale = 0 if options.wscale is None else SCALE
        self.receiver.mss = self._sizes.mss
        mss = min(options.mss or SMALLEST_MSS, self._sizes.mss)
        self._scale = options.wscale or 0
        self.sender.set_sizes(mss, self._sizes.largest if mss == self._sizes.mss else mss)
        self.sender.update_window(syn.window, syn.sequence, self._iss)

    def arrived(self, segment: Segment, now: float) -> memoryview | None:
        """A segment of the container. Bytes that are given back are for the host's socket; the rest is for `keep`."""
        self._heard = now
        self._probes = 0
        if self.state is State.CLOSED:
            return None
        if self.state is State.SYN_SENT:
            self._arrived_in_syn_sent(segment, now)
            return None
        sequence = nearest(segment.sequence, self.receiver.next)
        if not self._admitted(segment, sequence, now):
            return None
        if self.state is State.SYN_RECEIVED and not self._open(segment, sequence):
            return None
        if not self._take_acknowledgement(segment, sequence, now):
            return None
        bytes_for_host = self._take_payload(segment, sequence) if segment.payload else None
        if segment.flags & FIN:
            self.receiver.note_fin(sequence + len(segment.payload))
        if self.receiver.fin is not None and self.state in RECEIVING and self.receiver.take_fin():
            self._fin_arrived(now)
        self._transmit(now)
        return bytes_for_host

    def replaceable(self, syn: Segment) -> bool:
        """Whether the container may have begun anew with this SYN, though we remember the old connection (RFC 6191)."""
        return self.state is State.TIME_WAIT and nearest(syn.sequence, self.receiver.next) > self.receiver.next

    def _admitted(self, segment: Segment, sequence: int, now: float) -> bool:
        """RFC 9293, 3.10.7.4, up to the ACK bit, with what RFC 5961 makes of it."""
        receiver = self.receiver
        flags = segment.flags
        length = len(segment.payload) + (flags & FIN)
        if not receiver.acceptable(sequence, length):
            self._refuse(segment, sequence, now)
            return False
        if flags & RST:
            if sequence == receiver.next:
                self._close(End.RESET)
            else:
                self._challenge(now)
            return False
        if flags & SYN:
            self._challenge(now)
            return False
        return bool(flags & ACK)

    def _refuse(self, segment: Segment, sequence: int, now: float) -> None:
        """Outside of the window: a repetition, a probe, or an attack."""
        flags = segment.flags
        if flags & RST:
            return
        if flags & (SYN | ACK) == SYN and self.state is State.SYN_RECEIVED and sequence == self.receiver.next - 1:
            if self._challenges.allows(now):
                self._repeat_syn_ack(now)
            return
        if self.state is State.TIME_WAIT and flags & FIN:
            self._until = now + TIME_WAIT_SECONDS
        if flags & ACK and sequence == self.receiver.next and self.state is not State.SYN_RECEIVED:
            self._take_acknowledgement(segment, sequence, now)  # also with a closed window
            self._transmit(now)
        if segment.payload:
            self._emit(ACK, self.sender.nxt)
        else:
            self._challenge(now)

    def _repeat_syn_ack(self, now: float) -> None:
        handshakes, until = self._handshakes, self._until
        self._handshake(State.SYN_RECEIVED, now)
        self._handshakes, self._until = handshakes, until

    def _open(self, segment: Segment, sequence: int) -> bool:
        """Our SYN is acknowledged, or something that we never sent."""
        if nearest(segment.acknowledgement, self._iss) != self._iss + 1:
            self._out.append(Out(RST, segment.acknowledgement, 0, 0, b"", b""))
            return False
        self.state = State.ESTABLISHED
        self._until = NEVER
        self.sender.update_window(segment.window << self._scale, sequence, self._iss + 1)
        return True

    def _arrived_in_syn_sent(self, segment: Segment, now: float) -> None:
        flags = segment.flags
        acknowledged = bool(flags & ACK)
        if acknowledged and nearest(segment.acknowledgement, self._iss) != self._iss + 1:
            if not flags & RST:
                self._out.append(Out(RST, segment.acknowledgement, 0, 0, b"", b""))
        elif flags & RST:
            if acknowledged:
                self._close(End.RESET)
        elif flags & SYN:
            self._learn(segment)
            if not acknowledged:  # both have called at the same time
                self._handshakes = 0
                self._handshake(State.SYN_RECEIVED, now)
                return
            self.state = State.ESTABLISHED
            self._until = NEVER
            self._emit(ACK, self.sender.nxt)
            self._transmit(now)

    def _take_acknowledgement(self, segment: Segment, sequence: int, now: float) -> bool:
        """RFC 9293, 3.10.7.4, the ACK bit; False where the segment is to be dropped."""
        sender = self.sender
        number = nearest(segment.acknowledgement, sender.una)
        if number > sender.top or number < sender.una - max(sender.window_largest, 1):
            self._challenge(now)
            return False
        sender.heard()
        if number < sender.una:
            return True
        window = segment.window << self._scale
        again = None
        if number > sender.una:
            again = sender.acknowledge(number, now)
        elif sender.nxt > number and window == sender.window and not segment.payload and not segment.flags & FIN:
            again = sender.duplicate()
        sender.update_window(window, sequence, number)
        if again is not None:
            self._send(again)
        if sender.fin is not None and sender.finished():
            self._fin_acknowledged(now)
        return self.state is not State.CLOSED

    def _fin_acknowledged(self, now: float) -> None:
        state = AFTER_FIN_ACKED.get(self.state)
        if state is State.CLOSED:
            self._close(End.FINISHED)
        elif state is not None:
            self._enter(state, now)

    def _fin_arrived(self, now: float) -> None:
        self._shut = True
        self.ack_due = True
        self._enter(AFTER_FIN_ARRIVED[self.state], now)

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        if state is State.TIME_WAIT:
            self.flush()
            self._until = now + TIME_WAIT_SECONDS

    def _take_payload(self, segment: Segment, sequence: int) -> memoryview | None:
        receiver = self.receiver
        expected = receiver.next
        bytes_for_host = None
        if self.state in RECEIVING:
            bytes_for_host = receiver.accept(sequence, segment.payload)
        if sequence != expected or receiver.next == expected or receiver.early():
            self._emit(ACK, self.sender.nxt)  # out of order: the sender should hear of each (RFC 5681, 4.2)
        elif receiver.next - self._acknowledged >= ACKNOWLEDGE_EVERY:
            self._emit(ACK, self.sender.nxt)
        else:
            self.ack_due = True
        return bytes_for_host

    def _close(self, end: End) -> None:
        self.state = State.CLOSED
        self.end = end
        self._until = NEVER
        self.ack_due = False
        self.sender.drop()
        if end is not End.FINISHED:
            self.receiver.drop()
            self._shut = False
