"""A secret mounted as the kubelet mounts it: versions in folders of their own, and one link that moves."""

import shutil
from pathlib import Path


class SecretVolume:
    """`write` replaces the whole secret at once, as in Kubernetes' pkg/volume/util/atomic_writer.go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = 0
        self.write()

    def write(self, **contents: str) -> None:
        """The secret is now this: `api_key=...` for the file `api-key`."""
        files = {name.replace("_", "-"): text for name, text in contents.items()}
        self.stage(files)
        self.switch()
        for name in {entry.name for entry in self.path.iterdir() if not entry.name.startswith("..")} - set(files):
            (self.path / name).unlink()

    def stage(self, files: dict[str, str]) -> Path:
        """The folder of the next version, which nobody reads yet."""
        self._versions += 1
        folder = self.path / f"..version-{self._versions}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
            link = self.path / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        return folder

    def switch(self) -> None:
        """The staged version becomes the secret; the one before is deleted."""
        data, new = self.path / "..data", self.path / "..data_tmp"
        before = data.readlink() if data.is_symlink() else None
        new.symlink_to(f"..version-{self._versions}")
        new.replace(data)
        if before is not None:
            shutil.rmtree(self.path / before)
