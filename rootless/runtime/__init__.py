"""A bundle in, a process out: create, start, exec, kill, delete, and the monitor of a container. See docs/run.md."""
