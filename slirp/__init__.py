"""The networks of a user, in user space, as a program of its own (`python -m slirp`). Nothing here yet."""
