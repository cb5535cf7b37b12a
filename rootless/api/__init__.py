"""Speaks with programs: the Docker Engine API on a unix socket. Nothing here yet."""
