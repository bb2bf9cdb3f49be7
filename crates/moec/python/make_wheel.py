#!/usr/bin/env python3
"""A wheel of the module and of programs that are built already: make_wheel.py VERSION FOLDER PROGRAM…

pip then installs the programs beside Python. The oldest C library that they run with is part of the wheel's name.
"""

import base64
import hashlib
import pathlib
import re
import subprocess
import sys
import zipfile

TIME = (1980, 1, 1, 0, 0, 0)  # the same input gives the same bytes


def oldest_glibc(programs):
    versions = set()
    for program in programs:
        symbols = subprocess.run(["objdump", "-T", program], check=True, capture_output=True, text=True).stdout
        versions |= {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+\.\d+)", symbols)}
    return max(versions)


def main(version, folder, *programs):
    here = pathlib.Path(__file__).resolve().parent
    major, minor = oldest_glibc(programs)
    tag = f"py3-none-manylinux_{major}_{minor}_x86_64"
    info, data = f"moec-{version}.dist-info", f"moec-{version}.data/scripts"
    files = {f"moec/{path.name}": (path.read_bytes(), 0o644) for path in sorted((here / "moec").iterdir()) if path.is_file()}
    files |= {f"{data}/{pathlib.Path(path).name}": (pathlib.Path(path).read_bytes(), 0o755) for path in programs}
    metadata = (
        f"Metadata-Version: 2.1\nName: moec\nVersion: {version}\n"
        "Summary: A compiler for mixture-of-experts architectures: the command, and compiled models as NumPy functions\n"
        "License: MIT OR Apache-2.0\nRequires-Python: >=3.9\nRequires-Dist: numpy>=1.23\n"
        "Provides-Extra: torch\nRequires-Dist: torch; extra == 'torch'\nRequires-Dist: safetensors; extra == 'torch'\n"
    )
    wheel = f"Wheel-Version: 1.0\nGenerator: make_wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files[f"{info}/METADATA"] = (metadata.encode(), 0o644)
    files[f"{info}/WHEEL"] = (wheel.encode(), 0o644)
    record = ""
    for name, (content, _) in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = (f"{record}{info}/RECORD,,\n".encode(), 0o644)
    path = pathlib.Path(folder) / f"moec-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (content, mode) in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    print(path)


main(*sys.argv[1:])
