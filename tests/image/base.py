"""A stand-in for the official Python image: Debian of the same release, with its own Python of the same version.

The official image comes from a registry that needs a container engine; Debian's packages do not. The stand-in differs
in this: its Python is Debian's, in /usr instead of /usr/local. What the Dockerfile has to deal with in the official
image is put in: no bytecode in the standard library, a pip in `purelib`, ensurepip.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

MIRROR: Final = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
BUILT_WITHIN_S: Final = 300
PACKAGES: Final = "python3,python3-venv,ca-certificates"
# What stands in the official image and not in Debian's Python.
_LIKE_THE_OFFICIAL: Final = r"""
find "$1/usr/lib/python3" "$1"/usr/lib/python3.* -name __pycache__ -prune -exec rm -rf {} +
site="$1$(chroot "$1" python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
mkdir -p "$site/pip"
: > "$site/pip/__init__.py"
: > "$1/usr/local/bin/pip3"
"""
_FROM_THE_MACHINE: Final = re.compile(r"(PIP_(?!FIND_LINKS)\w+|SSL_CERT_FILE|(https?|no)_proxy)", re.IGNORECASE)


class NoBase(Exception):
    """The stand-in cannot be made here; the text says why."""


def debian_release(image: str) -> tuple[str, str]:
    """`python:3.13-slim-trixie` → (`3.13`, `trixie`)."""
    match = re.fullmatch(r"python:(3\.\d+)\S*-slim-([a-z]+)(@sha256:[0-9a-f]{64})?", image)
    if match is None:
        raise NoBase(f"{image} is no python:3.x-slim-RELEASE, so no Debian release can stand in for it")
    return match[1], match[2]


def base_archive(image: str, folder: Path) -> Path:
    """The archive of a root file system that stands in for `image`; made if `folder` does not hold it yet."""
    version, release = debian_release(image)
    archive = folder / f"base-{release}-{version}.tar"
    if archive.exists():
        return archive
    if shutil.which("mmdebstrap") is None:
        raise NoBase("mmdebstrap is missing: apt-get install mmdebstrap (and debian-archive-keyring, on Ubuntu)")
    folder.mkdir(parents=True, exist_ok=True)
    half = archive.with_suffix(".half.tar")
    hook = folder / "like-the-official"
    hook.write_text(f"#!/bin/sh\nset -eu\n{_LIKE_THE_OFFICIAL}", encoding="utf-8")
    hook.chmod(0o755)
    (folder / "apt.conf").write_text(apt_configuration(), encoding="utf-8")
    options = ["--mode=root", "--variant=minbase", f"--include={PACKAGES}", f"--aptopt={folder / 'apt.conf'}"]
    command = ["mmdebstrap", *options, f"--customize-hook={hook}", release, str(half), MIRROR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILT_WITHIN_S, check=False)
    if done.returncode != 0:
        raise NoBase(f"mmdebstrap {release} from {MIRROR} failed:\n{done.stderr[-2000:]}")
    half.rename(archive)
    return archive


def apt_configuration() -> str:
    """How this machine reaches its Debian mirror (a proxy, say), for the apt in the stand-in."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    wanted = re.compile(r"Acquire::(https?::|Check-)")
    return "".join(line + "\n" for line in dump.splitlines() if wanted.match(line))


def lend(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Put into `root` how this machine reaches PyPI and Debian, as an engine lends its proxy; the variables for it.

    Certificates and the like are copied to /run/lent. `take_back` removes it all.
    """
    lent = root / "run" / "lent"
    lent.mkdir()
    (lent / "apt.conf").write_text(apt_configuration(), encoding="utf-8")
    variables = {"APT_CONFIG": "/run/lent/apt.conf"}
    for name, value in environ.items():
        if _FROM_THE_MACHINE.fullmatch(name):
            if Path(value).is_file():
                shutil.copy(value, lent / name)
                value = f"/run/lent/{name}"  # noqa: PLW2901 - the same thing, by the name that it has in there
            variables[name] = value
    resolver = root / "etc" / "resolv.conf"
    resolver.unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", resolver)
    return variables


def take_back(root: Path) -> None:
    shutil.rmtree(root / "run" / "lent")
