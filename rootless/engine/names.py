"""Ids, and names for containers that were given none: an adjective and somebody who deserves to be remembered."""

import os

_MOODS = ["able", "bold", "brave", "bright", "brisk", "calm", "clever", "cosy", "crisp", "deft", "eager", "epic", "fair", "fearless", "fine", "firm", "fluent", "fond", "frank", "frosty", "gentle", "glad", "golden", "graceful", "handy", "happy", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "robust", "serene", "sharp", "silent", "sincere", "smart", "steady", "stoic", "sunny", "swift", "tidy", "tranquil", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty"]  # a list of words reads better so
_PEOPLE = ["allen", "babbage", "backus", "bartik", "bell", "boole", "borg", "brooks", "cerf", "chandra", "clarke", "codd", "cray", "curie", "dijkstra", "easley", "engelbart", "estrin", "euler", "faraday", "feinler", "floyd", "gauss", "goldberg", "hamilton", "hamming", "hopper", "holberton", "jacobson", "johnson", "kahn", "kay", "keller", "kernighan", "kilby", "knuth", "lamarr", "lamport", "leibniz", "liskov", "lovelace", "mccarthy", "meitner", "moore", "morse", "naur", "newton", "noether", "noyce", "perlman", "pike", "postel", "ritchie", "sammet", "shannon", "shaw", "sinoussi", "stallman", "tanenbaum", "tesla", "thompson", "torvalds", "turing", "wing", "wirth", "wilkes", "zuse"]  # a list of words reads better so


def random_id() -> str:
    """A new id: 64 hexadecimal digits."""
    return os.urandom(32).hex()


def random_name() -> str:
    """A new name. There are some thousands: the caller tries again where it is taken."""
    number = int.from_bytes(os.urandom(4), "little")
    mood, person = _MOODS[number % len(_MOODS)], _PEOPLE[number // len(_MOODS) % len(_PEOPLE)]
    return f"{mood}_{person}"
