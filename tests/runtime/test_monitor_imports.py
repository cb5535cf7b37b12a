"""Every container has a monitor, so what a monitor imports is paid for as often as there are containers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = {"typing", "dataclasses", "inspect", "socket", "subprocess", "logging", "hashlib", "pathlib", "click"}


def test_a_monitor_loads_nothing_heavy() -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); import rootless.runtime.monitor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True).stdout
    assert "rootless.runtime.jsonlog" in loaded.split()
    assert HEAVY & set(loaded.split()) == set()
