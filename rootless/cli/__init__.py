"""Speaks with people. The table says which module has which command; only that module is imported."""

# command (and management command) -> the module of this room that has it; see main.py.
TABLE: dict[str, str] = {}
