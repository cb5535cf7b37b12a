"""Compose files: text in, typed services out. Nothing here yet."""
