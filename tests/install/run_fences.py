#!/usr/bin/env python3
"""Runs the commands of Markdown pages: run_fences.py PAGE.md…

Each `console` block is a session: lines after `$ ` are given to one shell for the page, in a folder that is empty but for
`examples` and `crates`, links to those of the repository (or of the tarball). Commands must succeed. A block that another
language marks with `file=NAME` becomes that file. What a block needs and is not here (`needs=torch`, `needs=cargo`) leaves
it out, with a word.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```", re.M | re.S)


def here(need):
    return shutil.which(need) is not None or importlib.util.find_spec(need) is not None


def script(page):
    """The page as one script, and how many commands it has."""
    lines, count = [], 0
    for language, marks, text in FENCE.findall(page.read_text()):
        marks = dict(mark.split("=", 1) for mark in marks.split() if "=" in mark)
        if "needs" in marks and not here(marks["needs"]):
            print(f"{page.name}: a block is left out: no {marks['needs']} here")
        elif "file" in marks:
            lines.append(f"mkdir -p $(dirname {marks['file']}); cat > {marks['file']} <<'END_OF_BLOCK'\n{text}END_OF_BLOCK")
        elif language == "console":
            for command in re.findall(r"^\$ (.*?(?:\\\n.*?)*)$", text, re.M):
                count += 1
                lines.append(f"printf '%s\\n' '$ '{quoted(command)}\n{command}")
    # The Python that was asked whether it has what blocks need.
    python = f"python3() {{ {quoted(sys.executable)} \"$@\"; }}"
    return "\n".join(["set -e", python, *lines]), count


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def run(page):
    home = next(folder for folder in page.resolve().parents if (folder / "examples").is_dir())
    text, count = script(page)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("examples", "crates"):
            (pathlib.Path(folder) / name).symlink_to(home / name)
        print(f"== {page.name}: {count} commands", flush=True)
        module = home / "crates/moec/python"
        path = {"PYTHONPATH": str(module)} if module.is_dir() else {}
        ended = subprocess.run(["bash", "-c", text], cwd=folder, stdin=subprocess.DEVNULL, env=os.environ | path)
    if ended.returncode:
        print(f"{page.name}: the last command ended with {ended.returncode}", file=sys.stderr)
    return ended.returncode == 0


sys.stdout.reconfigure(line_buffering=True)
sys.exit(0 if all([run(pathlib.Path(page)) for page in sys.argv[1:]]) else 1)
