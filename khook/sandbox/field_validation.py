"""`fieldValidation`: what becomes of fields that a kind does not have. Refused (Strict), warned about, or dropped.

Asked for by `kubectl create` and `apply`. A real server also warns where nothing is asked for; this one then looks at
nothing, so that whoever asks for nothing pays for nothing. Types of built-in fields are checked for people's requests
only, which name a field manager, for the same reason; custom resources have their schema anyway. Source: apiserver
`pkg/endpoints/handlers/{create,patch}.go`, KEP-2885.
"""

from enum import StrEnum
from typing import Any, Final

import orjson

from khook.sandbox import api_errors, builtin_schemas
from khook.sandbox.exchange import Request
from khook.sandbox.field_checks import duplicate_fields, unknown_fields, wrong_type
from khook.sandbox.kinds import Kind
from khook.sandbox.patches import Patching

Json = dict[str, Any]

# The patch is quoted in the refusal; nobody reads more of it.
_QUOTED: Final = 2_000


class Level(StrEnum):
    NONE = ""
    IGNORE = "Ignore"
    WARN = "Warn"
    STRICT = "Strict"


class Findings:
    """The checks of one request; `warnings` is what its answer says beside the object."""

    def __init__(self, kind: Kind, request: Request) -> None:
        """Raises ApiError 422 for a `fieldValidation` that there is not."""
        self.warnings: list[str] = []
        self._kind = kind
        self._request = request
        asked = request.query.get("fieldValidation", "")
        if asked and asked not in list(Level):
            supported = ", ".join(f'"{level}"' for level in sorted(Level))
            raise api_errors.bad_option(request.method, "fieldValidation", f'"{asked}"', supported)
        self._level = Level(asked) if asked else Level.NONE
        self._typed = not kind.custom and (bool(asked) or "fieldManager" in request.query)

    def check_body(self, body: Json) -> None:
        """A new object, or one to replace another. Raises ApiError 400."""
        wrong = (self._typed and self._wrong_type(body)) or self._strictly(body, sent=self._request.body)
        if wrong:
            raise self._unfit(wrong)

    def explained(self, body: Json, error: Exception) -> Exception:
        """What a body did that nobody looked at: of a wrong type, it is the client's error; else it is our own."""
        wrong = None if self._kind.custom else self._wrong_type(body)
        return self._unfit(wrong) if wrong else error

    def _unfit(self, wrong: str) -> api_errors.ApiError:
        kind = self._kind
        return api_errors.bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {wrong}'
        )

    def checking(self, how: Patching) -> Patching:
        """The same way to patch, which looks at what comes out. Raises ApiError 422."""
        if not self._typed and self._level in (Level.NONE, Level.IGNORE):
            return how

        def checked(target: Json, patch: Any) -> Any:
            patched = how(target, patch)
            wrong = self._typed and self._wrong_type(patched)
            if wrong := wrong or self._strictly(patched, sent=b""):
                raise api_errors.bad_patch(orjson.dumps(patch).decode()[:_QUOTED], wrong)
            return patched

        return checked

    def _wrong_type(self, item: Json) -> str | None:
        schema, components = self._schema()
        return wrong_type(item, schema, components, owner=self._kind.kind)

    def _strictly(self, item: Json, *, sent: bytes) -> str | None:
        """The sentence of a refusal; or the warnings are noted."""
        if self._level in (Level.NONE, Level.IGNORE):
            return None
        schema, components = self._schema()
        unknown = list(unknown_fields(item, schema, components))
        if self._kind.custom:
            unknown.sort()
        said = [f'duplicate field "{path}"' for path in duplicate_fields(sent)]
        said += [f'unknown field "{path}"' for path in unknown]
        if said and self._level is Level.STRICT:
            return f"strict decoding error: {', '.join(said)}"
        self.warnings += said
        return None

    def _schema(self) -> tuple[Json, Json]:
        if self._kind.schema is None:
            components = builtin_schemas.schemas(self._kind)
            return components[builtin_schemas.root(self._kind)], components
        head = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        components = builtin_schemas.object_meta()
        head["metadata"] = components[builtin_schemas.OBJECT_META]
        return self._kind.schema | {"properties": (self._kind.schema.get("properties") or {}) | head}, components
