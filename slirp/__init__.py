"""The networks of a user, in user space, as a program of its own: `python -m slirp` (docs/slirp.md).

Two processes. The hub has the privileges of the user's namespace and hears only the user's own commands; the stack has
none, and meets what containers and the world send. Python decides, the kernel carries: bridges between containers,
transparent sockets and splice(2) on the way out and in.
"""
