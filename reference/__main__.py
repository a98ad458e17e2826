"""`python -m reference`: write every generated document; `make docs`."""

from pathlib import Path

from reference.documents import DOCUMENTS

ROOT = Path(__file__).parents[1]


def main() -> None:
    for name, made in DOCUMENTS.items():
        path = ROOT / name
        path.write_text(made(path.read_text(encoding="utf-8") if path.exists() else ""), encoding="utf-8")


if __name__ == "__main__":
    main()
