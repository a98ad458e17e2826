"""What the Dockerfile promises before anything is built, and that our reader of it and of .dockerignore reads right."""

import re
from pathlib import Path

import pytest
from image.base import NoBase, debian_release
from image.context import Context
from image.dockerfile import NotUnderstood, Step, load, read

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DOCKERFILE = load(ROOT / "Dockerfile")
CONTEXT = Context.of(ROOT)


def commands(keyword: str = "RUN") -> list[str]:
    """Every command of every stage, with a line each for what `&&` joins."""
    steps = [step for stage in DOCKERFILE.stages for step in stage.all(keyword)]
    return [command.strip() for step in steps for command in step.text.split("&&")]


def test_every_package_from_pypi_is_taken_by_its_hash() -> None:
    installs = [command for command in commands() if re.search(r"\bpip\b.* install\b", command)]
    assert len(installs) == 3
    for command in installs:
        assert "--no-deps" in command
        assert "--no-index" in command or "--require-hashes" in command


@pytest.mark.parametrize("name", ["build", "run"])
def test_what_the_image_is_made_of_is_locked_with_hashes(name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^(\w.*)$", lock, re.MULTILINE)
    hashed = re.findall(r"^(\S+==.*)\n +--hash=sha256:", lock, re.MULTILINE)
    assert packages == hashed != []


def test_the_lock_does_not_depend_on_the_version_of_python() -> None:
    """So the SBOM, made with any Python, tells what is in the image."""
    lock = (ROOT / "requirements" / "run.lock").read_text(encoding="utf-8")
    markers = set(re.findall(r"^[^ #]+==\S+ ; (.*?) \\$", lock, re.MULTILINE))
    assert markers <= {"sys_platform == 'win32'"}


def test_the_build_tool_is_the_one_that_pyproject_names() -> None:
    (wanted,) = re.findall(r'^requires = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert re.search(
        rf"^{re.escape(wanted)} ", (ROOT / "requirements" / "build.lock").read_text(encoding="utf-8"), re.M
    )


def test_the_user_is_a_number_and_not_root() -> None:
    *_, user = DOCKERFILE.final.all("USER")
    uid, gid = user.text.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    after = DOCKERFILE.final.steps[DOCKERFILE.final.steps.index(user) :]
    assert not {step.keyword for step in after} & {"RUN", "COPY"}


def test_khook_run_is_the_default_and_tini_is_the_first_process() -> None:
    (entrypoint,), (command,) = DOCKERFILE.final.all("ENTRYPOINT"), DOCKERFILE.final.all("CMD")
    assert entrypoint.exec_form()[0] == "/usr/bin/tini"
    assert entrypoint.exec_form()[-1] == "/opt/khook/bin/khook"
    assert command.exec_form() == ("run",)


def test_every_stage_starts_from_one_base_with_a_tag_that_says_what_it_is() -> None:
    (base,) = {stage.base for stage in DOCKERFILE.stages}
    version, release = debian_release(base)
    assert version
    assert release


def test_another_base_can_be_named_by_its_digest() -> None:
    pinned = f"python:3.13-slim-trixie@sha256:{'0' * 64}"
    assert {stage.base for stage in load(ROOT / "Dockerfile", {"PYTHON_IMAGE": pinned}).stages} == {pinned}
    assert debian_release(pinned) == ("3.13", "trixie")


@pytest.mark.parametrize("image", ["python:latest", "python", "python:3.13-alpine", "debian:trixie"])
def test_a_base_that_no_debian_release_can_stand_in_for_is_refused(image: str) -> None:
    with pytest.raises(NoBase):
        debian_release(image)


def test_nothing_is_fetched_but_packages_and_no_secret_is_named() -> None:
    assert not re.search(r"https?://", "\n".join(commands()))
    names = " ".join(step.text for stage in DOCKERFILE.stages for step in [*stage.all("ARG"), *stage.all("ENV")])
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", names, re.IGNORECASE)


def test_no_layer_keeps_lists_of_packages() -> None:
    (installed,) = [step.text for step in DOCKERFILE.final.all("RUN") if "apt-get install" in step.text]
    assert "rm -rf /var/lib/apt/lists/*" in installed
    assert "--no-install-recommends" in installed


# .dockerignore


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "tests/unit/test_dockerfile.py",
        "bench/__main__.py",
        "Dockerfile",
        ".env",
        "kubeconfig",
        "khook/__pycache__/log.cpython-313.pyc",
        "khook/cli/__pycache__/app.cpython-313.pyc",
        "khook-0.1.0.tar.gz",
    ],
)
def test_the_build_does_not_see(path: str) -> None:
    assert not CONTEXT.holds(path)


@pytest.mark.parametrize(
    "path", ["khook/cli/app.py", "shards/ring.py", "requirements/run.lock", "LICENSE", "README.md"]
)
def test_the_build_sees(path: str) -> None:
    assert CONTEXT.holds(path)


def test_all_that_the_dockerfile_copies_is_seen() -> None:
    copied = [step.words({}) for stage in DOCKERFILE.stages for step in stage.all("COPY") if "--from" not in step.text]
    assert copied
    for *sources, _ in copied:
        assert all(any(CONTEXT.files(source)) for source in sources)


# The reader


def test_continued_lines_are_one_step_and_comments_between_them_are_none() -> None:
    (stage,) = read("FROM a:1 AS one\nRUN x \\\n# why\n && y\n", {}).stages
    assert (stage.name, stage.base) == ("one", "a:1")
    assert stage.steps == (Step(line=2, keyword="RUN", text="x && y"),)


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nADD https://example.com/x /x",
        "FROM a\nrun x",
        "FROM ${UNKNOWN}",
        "FROM --platform=linux/arm64 a",
        "FROM a\nRUN x \\",
        "RUN x\nFROM a",
        "",
    ],
)
def test_what_the_reader_does_not_know_it_refuses(text: str) -> None:
    with pytest.raises(NotUnderstood):
        read(text, {})


@pytest.mark.parametrize("form", ["khook run", '"khook"', "{}"])
def test_a_command_that_needs_a_shell_is_refused(form: str) -> None:
    with pytest.raises(NotUnderstood):
        Step(line=1, keyword="CMD", text=form).exec_form()


def test_a_step_that_asks_for_a_mount_or_a_heredoc_is_refused() -> None:
    """A shell would run both, and mean something else."""
    for text in ("--mount=type=cache,target=/x pip", "<<EOF"):
        with pytest.raises(NotUnderstood):
            read(f"FROM a\nRUN {text}", {})
