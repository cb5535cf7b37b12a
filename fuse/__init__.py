"""A union filesystem on pyfuse3, as a program of its own (`python -m fuse`). Nothing here yet."""
