"""A Ray cluster started as a user would start it."""

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RAY = str(Path(sys.executable).parent / "ray")


@contextmanager
def started_cluster(project) -> Iterator[str]:
    """Its address; what the project runs from then on has its token, as docs/scale.md asks for."""
    project.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**project.environment, "RAY_USAGE_STATS_ENABLED": "0"}
    # short, for its sockets; new, for Ray would join a killed cluster whose state stands there
    state = tempfile.mkdtemp(prefix="ray")
    command = [
        RAY, "start", "--head", "--port", "0", "--num-cpus", "2", "--include-dashboard", "false",
        "--object-store-memory", "100000000", "--temp-dir", state,
    ]  # fmt: skip
    try:
        started = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=state)
        assert started.returncode == 0, started.stdout + started.stderr
        yield re.search(r"ray start --address='([\d.]+:\d+)'", started.stdout)[1]
    finally:
        subprocess.run([RAY, "stop", "--force"], env=environment, capture_output=True)
        shutil.rmtree(state, ignore_errors=True)
