#!/usr/bin/env bash
# The tarball in a clean root that has neither LLVM nor Rust: tests/install/clean_root.sh SUITE MIRROR [TRANSCRIPT]
#
#   sudo tests/install/clean_root.sh bookworm http://deb.debian.org/debian
#   sudo tests/install/clean_root.sh noble http://archive.ubuntu.com/ubuntu
#
# Needs root, debootstrap, and dist/ as `./dev release` makes it. Not a part of `./dev test`: it downloads a system.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ $# -ge 2 ] || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }
suite=$1 mirror=$2 transcript=${3:-/dev/stdout}
tarball=$(ls dist/moec-*.tar.xz) wheel=$(ls dist/moec-*.whl)
root=$(mktemp -d)
trap 'umount "$root/proc" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT

# Ubuntu's later releases are made as all since gutsy, whether this debootstrap knows their names or not; pkgconf and NumPy are
# in their second part.
how=() parts=main
if [ -e /usr/share/debootstrap/scripts/"$suite" ]; then :; else how=(gutsy) parts=main,universe; fi
# What `moec build` runs, a C program, and the wheel.
debootstrap --variant=minbase --components="$parts" \
    --include=binutils,gcc,libc6-dev,xz-utils,python3-venv,python3-numpy,pkgconf,ca-certificates \
    "$suite" "$root" "$mirror" "${how[@]}" >/dev/null
tar -C "$root/opt" -xJf "$tarball"
mv "$root"/opt/moec-* "$root/opt/moec"
cp "$wheel" "$root/opt/"
cp tests/install/run_fences.py "$root/opt/"
[ -e /etc/resolv.conf ] && cp /etc/resolv.conf "$root/etc/resolv.conf"

# A program finds what stands beside it by /proc/self/exe.
mount -t proc proc "$root/proc"
inside() { chroot "$root" env -i PATH=/opt/moec/bin:/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }
{
    inside sh -c '. /etc/os-release; echo "$PRETTY_NAME"; ls /usr/lib/llvm* 2>&1 | head -1; ldd /opt/moec/bin/moec'
    inside moec doctor
    # What needs neither Rust nor NumPy.
    for page in README docs/guides/{first-model,own-gate,fusion-report,import,deploy}; do
        inside python3 /opt/run_fences.py "/opt/moec/$page.md"
    done
    inside sh -c 'cd /root && python3 -m venv --system-site-packages venv && venv/bin/pip install -q --no-index /opt/*.whl && venv/bin/moec --version &&
        venv/bin/python -c "import moec; print(moec.__doc__.splitlines()[0])"'
} >"$transcript" 2>&1
