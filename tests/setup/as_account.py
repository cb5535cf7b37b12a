#!/usr/bin/env python3
"""Usage: as_account.py COMMAND..., as root. Runs COMMAND in a copy of this tree as the account rootless-test.

The copy has what git tracks and what is new; .venv in it stays from one run to the next. The environment is a fresh
one, but for what pip needs to reach its index, ARGS, CI and ROOTLESS_*. Ends with COMMAND's exit status.
"""

import fcntl
import os
import pwd
import re
import subprocess
import sys

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ACCOUNT = pwd.getpwnam("rootless-test")
COPY = os.path.join(ACCOUNT.pw_dir, "rootless")
AS_ACCOUNT = ["runuser", "-u", ACCOUNT.pw_name, "--"]
OF_PIP = "PIP_.*|SSL_CERT_.*|(REQUESTS|CURL)_CA_BUNDLE|(https?|no)_proxy"
PASSED_ON = re.compile(f"ARGS|CI|ROOTLESS_.*|{OF_PIP}", re.IGNORECASE)


def environment() -> dict[str, str]:
    """What COMMAND gets to know; ROOTLESS_TESTS_PREPARED makes a test fail that would be skipped elsewhere."""
    own = {
        "HOME": ACCOUNT.pw_dir,
        "LANG": "C.UTF-8",
        "LOGNAME": ACCOUNT.pw_name,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "ROOTLESS_TESTS_PREPARED": "1",
        "SHELL": ACCOUNT.pw_shell,
        "USER": ACCOUNT.pw_name,
        "XDG_RUNTIME_DIR": f"/run/user/{ACCOUNT.pw_uid}",
    }
    return {**{name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}, **own}


def copy_tree() -> None:
    """Make COPY the same as the work tree. Ownership is the account's: its own tar writes the files."""
    ask = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(ask, cwd=TREE, check=True, stdout=subprocess.PIPE).stdout.split(b"\0")
    present = [name for name in names if name and os.path.lexists(os.path.join(os.fsencode(TREE), name))]
    run_as_account("mkdir", "-p", COPY)
    all_but_venv = ["-mindepth", "1", "-maxdepth", "1", "!", "-name", ".venv"]
    run_as_account("find", COPY, *all_but_venv, "-exec", "rm", "-rf", "{}", "+")
    pack = ["tar", "--create", "--null", "--verbatim-files-from", "--files-from=-"]
    packed = subprocess.run(pack, cwd=TREE, check=True, input=b"\0".join(present), stdout=subprocess.PIPE).stdout
    subprocess.run([*AS_ACCOUNT, "tar", "--extract", "--directory", COPY], check=True, input=packed)


def run_as_account(*command: str) -> None:
    subprocess.run([*AS_ACCOUNT, *command], check=True)


with open("/run/rootless-test.lock", "w") as lock:  # one at a time: there is one copy
    fcntl.flock(lock, fcntl.LOCK_EX)
    copy_tree()
    done = subprocess.run([*AS_ACCOUNT, *sys.argv[1:]], cwd=COPY, env=environment())
sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
