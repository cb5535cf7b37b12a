"""Dockerfiles: text in, typed stages out. Nothing here yet."""
