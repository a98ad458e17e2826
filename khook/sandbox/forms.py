"""What form of answer a request wants: the object itself, its metadata alone, or a Table with a row for it.

The client lists what it takes in its Accept header, best first, and gets the first that can be had; asking for a form
is a parameter of `application/json`. This server answers JSON only. Source: apiserver
`pkg/endpoints/handlers/negotiation` and `response.go`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from khook.sandbox import api_errors
from khook.sandbox.exchange import Request

ACCEPTED: Final = ("application/json",)
_ANYTHING: Final = frozenset({"", "*/*", "application/*"})


class Shape(StrEnum):
    OBJECT = ""
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"
    TABLE = "Table"


class Include(StrEnum):
    """What of the object a Table's row carries."""

    METADATA = "Metadata"
    OBJECT = "Object"
    NONE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    shape: Shape = Shape.OBJECT
    version: str = "v1"
    """Of the group meta.k8s.io."""
    include: Include = Include.METADATA

    @property
    def partial(self) -> bool:
        return self.shape in (Shape.PARTIAL, Shape.PARTIAL_LIST)

    @property
    def table(self) -> bool:
        return self.shape is Shape.TABLE

    @property
    def group_version(self) -> str:
        return f"meta.k8s.io/{self.version}"


PLAIN: Final = Form()


def wanted(request: Request, *, verb: str) -> Form:
    """Raises ApiError 406 when nothing of what is asked for can be had, 400 for a bad `includeObject`."""
    accept = request.headers.get("accept", "")
    if accept in _ANYTHING or accept == ACCEPTED[0]:
        return PLAIN
    for clause in accept.split(","):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        if media_type not in _ANYTHING and media_type not in ACCEPTED:
            continue
        asked = dict(part.partition("=")[::2] for part in parameters)
        form = _form(asked.get("as", ""), asked.get("v", "v1"), asked.get("g", "meta.k8s.io"))
        if form is not None:
            return _fitting(form, request, verb)
    raise api_errors.not_acceptable(f"only the following media types are accepted: {', '.join(ACCEPTED)}")


def _form(shape: str, version: str, group: str) -> Form | None:
    if not shape:
        return PLAIN
    known = shape in list(Shape) and group == "meta.k8s.io" and version in ("v1", "v1beta1")
    return Form(shape=Shape(shape), version=version) if known else None


def _fitting(form: Form, request: Request, verb: str) -> Form:
    if form.shape is Shape.PARTIAL and verb == "list":
        raise api_errors.not_acceptable("you requested PartialObjectMetadata, but the requested object is a list")
    if form.shape is Shape.PARTIAL_LIST and verb not in ("list", "watch"):
        raise api_errors.not_acceptable("you requested PartialObjectMetadataList, but the requested object is no list")
    asked = request.query.get("includeObject", "")
    if not form.table or not asked:
        return form
    if asked not in list(Include):
        raise api_errors.bad_request(
            f'Unable to convert to Table as requested: includeObject: Invalid value: "{asked}": must be '
            "'Metadata', 'Object', 'None', or empty"
        )
    return Form(shape=form.shape, version=form.version, include=Include(asked))
