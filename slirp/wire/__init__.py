"""Headers: a module per protocol, bytes in, records out, and back.

Nothing in here knows of sockets, clocks or flows, and nothing trusts a byte: what a container sends is parsed to a
record or to None, which the caller drops and counts. No function raises for what stands in a packet, and none keeps
more of it than it was given.
"""
