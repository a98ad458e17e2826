"""What one may ask about oneself: may I do this, what may I do, who am I. Answered, never stored.

`kubectl auth can-i` and `auth whoami` are these. The only rules here are the refusals that a test has switched on
(`ApiServer.forbid`); impersonation is not known, so `--as` changes nothing. Sources:
`staging/src/k8s.io/api/{authorization,authentication}/v1`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from khook.sandbox import api_errors
from khook.sandbox.bodies import read
from khook.sandbox.exchange import Request

Json = dict[str, Any]
May = Callable[[str, str, str], bool]
"""(verb, resource as `pods` or `hooks/status`, namespace or "")."""


@dataclass(frozen=True, slots=True)
class Review:
    group: str
    kind: str
    plural: str


ACCESS: Final = Review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
RULES: Final = Review("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews")
SUBJECT: Final = Review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews")
REVIEWS: Final = (ACCESS, RULES, SUBJECT)


def asked(request: Request) -> Review | None:
    """The review that is asked for, if any."""
    for review in REVIEWS:
        if request.method == "POST" and request.path == f"/apis/{review.group}/v1/{review.plural}":
            return review
    return None


def reviewed(review: Review, request: Request, *, user: str, may: May) -> Json:
    """The review with its answer. Raises ApiError 400 for what is no review."""
    spec = read(request, review.kind).get("spec") or {}
    try:
        status = _status(review, spec, user=user, may=may)
    except (AttributeError, TypeError):
        raise api_errors.bad_request(f"the object provided is unrecognized (must be of type {review.kind})") from None
    return {"kind": review.kind, "apiVersion": f"{review.group}/v1", "metadata": {}, "spec": spec, "status": status}


def _status(review: Review, spec: Json, *, user: str, may: May) -> Json:
    if review is SUBJECT:
        return {"userInfo": {"username": user, "groups": ["system:authenticated"]}}
    if review is RULES:
        return {
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False,
        }
    about = spec.get("resourceAttributes")
    if about is None:
        return {"allowed": True}
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    return {"allowed": may(about.get("verb", ""), resource, about.get("namespace", ""))}
