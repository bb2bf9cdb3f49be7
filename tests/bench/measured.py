"""What the tables made of `moec explain --check` share: calls of moec, and what the machine is."""

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("MOEC", str(REPOSITORY / "target/release/moec"))


def roofs(spec, sizes, tokens, quant, threads=None, past=0):
    """`moec explain --check` of a spec: one roof for each number of tokens."""
    sets = [word for name, size in sizes.items() for word in ("--set", f"{name}={size}")]
    command = [COMPILER, "explain", str(spec), *sets, "--tokens", ",".join(map(str, tokens)), "--past", str(past), "--check", "--json"]
    if quant:
        command += ["--quant", quant]
    # Who may use fewer CPUs uses fewer threads.
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ended.stderr}")
    return json.loads(ended.stdout)["roofs"]


def measured(roof, steps=None):
    """Seconds of a pass, or of some of its steps."""
    return sum(line["measured_seconds"] for line in roof["lines"] if steps is None or line["steps"] in steps)


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())


def now():
    return f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {cpu()}"


def others_busy():
    """The load of the machine: what runs or waits to."""
    return os.getloadavg()[0]
