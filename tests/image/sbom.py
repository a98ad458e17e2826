"""The SBOM of the image's environment: what is installed, with licences and who needs whom, and the hashes of the lock.

cyclonedx-py tells the first from the environment and the second from the requirements file, and neither both. This
joins them by package URL, and writes nothing that the strict validator of CycloneDX does not accept or that lacks a
hash. Run by the Python of `requirements/sbom.lock` (`make sbom`).
"""

import json
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def joined(installed: dict[str, Any], locked: dict[str, Any]) -> dict[str, Any]:
    """`installed`, each of its components with the distributions that `locked` allows for it."""
    allowed = {one["purl"]: one.get("externalReferences", []) for one in locked["components"]}
    for component in installed["components"]:
        distributions = allowed.get(component["purl"], [])
        if not any(one.get("hashes") for one in distributions):
            raise SystemExit(f"sbom: {component['purl']} is installed, but not locked with a hash")
        component["externalReferences"] = [*component.get("externalReferences", []), *distributions]
    return installed


def main(installed: Path, locked: Path, result: Path) -> None:
    bom = joined(json.loads(installed.read_text("utf-8")), json.loads(locked.read_text("utf-8")))
    text = json.dumps(bom, indent=1) + "\n"
    error = JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(text)
    if error is not None:
        raise SystemExit(f"sbom: not valid CycloneDX: {error}")
    result.write_text(text, encoding="utf-8")
    print(f"{result}: {bom['metadata']['component']['name']} and {len(bom['components'])} packages, valid")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
