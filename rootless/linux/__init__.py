"""System calls, one function each under its own name, and the idioms made of them. ctypes is nowhere else."""
