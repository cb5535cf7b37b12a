"""A union filesystem on pyfuse3, as a program of its own.

    python -m fuse -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT

It shows several directories as one and keeps what is changed in another, as the kernel's overlayfs does, where that is
refused. It knows nothing of containers. Whoever starts it speaks with it by its command line (fuse/command.py), a line
on --ready-fd once it can be used, --exit-fd, which unmounts when its other end is closed, and an exit status with one
line on standard error.
"""

VERSION = "0.1.0"
