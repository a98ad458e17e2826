"""`shards` stands alone: its README's example runs as it is printed, and it imports nothing it does not declare."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECLARED = {"shards", "msgspec", "uvloop"}


def test_the_example_in_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "shards/README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "mailboxes.py").write_text(blocks[0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)  # with it a line is several writes, and two workers' lines may mix
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import mailboxes; mailboxes.run()"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    polling, rest = ran.stdout.splitlines()[:3], ran.stdout.splitlines()[3:]
    assert sorted(polling) == ["polling ann", "polling bob", "polling cyd"]
    assert rest[:2] == ["{'ann': 'w1', 'bob': 'w0', 'cyd': 'w0'}", "left bob"]
    assert sorted(rest[2:]) == ["w0 ended: exit 0", "w1 ended: exit 0"]


def test_it_imports_the_standard_library_msgspec_and_uvloop_and_nothing_else() -> None:
    imported: set[str] = set()
    for path in (ROOT / "shards").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} imports relatively"
                imported.add(str(node.module).partition(".")[0])
    assert imported - sys.stdlib_module_names == DECLARED
