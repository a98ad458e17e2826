"""Strategic merge patch: a merge patch that knows which lists are sets of named things (containers, env, ports).

Within such a list an item is found by its merge key and merged, a new one is added, and one with `$patch: delete` is
taken out. The order follows the patch, or its `$setElementOrder`; what only the object has stays where it was among
them. Directives never reach the object. Pure; both documents stay as they were. Source: apimachinery
`pkg/util/strategicpatch`, and the "strategic merge patch" page of kubernetes/community.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from khook.sandbox.merge_keys import NOTHING, Rule, Rules

Json = dict[str, Any]
Key = Callable[[Any], Any]

PATCH: Final = "$patch"
RETAIN: Final = "$retainKeys"
ORDER: Final = "$setElementOrder/"
DELETE_FROM: Final = "$deleteFromPrimitiveList/"


class BadPatch(ValueError):
    """The patch contradicts itself or lacks what it must have; the text says what. The server answers 500."""


class BadRetainKeys(ValueError):
    """`$retainKeys` is no list of the patch's own keys. The server answers 400."""


def strategic_merged(target: Json, patch: Json, rules: Rules) -> Json:
    """The patched document. Raises BadPatch, BadRetainKeys."""
    match patch.get(PATCH, "merge"):
        case "replace":
            return {key: _plain(value) for key, value in patch.items() if key != PATCH}
        case "delete":
            return {}
        case "merge":
            pass
        case other:
            raise BadPatch(f"unknown patch type: {other} in map: {patch}")
    result = _retained(target, patch)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value, rules.get(key, NOTHING), patch.get(ORDER + key))
    for directive, values in patch.items():
        name = directive.partition("/")[2]
        items = result.get(name)
        if not isinstance(items, list):
            continue
        if directive.startswith(DELETE_FROM):
            result[name] = [one for one in items if one not in _listed(values)]
        elif directive.startswith(ORDER) and name not in patch:
            result[name] = _ordered(items, _listed(values), items, _key_of(rules.get(name, NOTHING)))
    return result


def _listed(values: Any) -> list[Any]:
    if isinstance(values, list):
        return values
    raise BadPatch(f"a directive about a list has no list: {values}")


def _retained(target: Json, patch: Json) -> Json:
    """`$retainKeys`: what is not listed goes, as when one kind of volume takes another's place."""
    if RETAIN not in patch:
        return dict(target)
    kept = patch[RETAIN]
    if not isinstance(kept, list) or any(key not in kept for key in patch if not key.startswith("$")):
        raise BadRetainKeys("invalid patch format of retainKeys")
    return {key: value for key, value in target.items() if key in kept}


def _merged(old: Any, new: Any, rule: Rule, order: list[Any] | None) -> Any:
    match old, new:
        case dict(), dict():
            return strategic_merged(old, new, rule.inside)
        case list() | None, list() if rule.key is not None:
            return _merged_list(old or [], new, rule, order)
        case _:
            return _plain(new)


def _merged_list(old: list[Any], new: list[Any], rule: Rule, order: list[Any] | None) -> list[Any]:
    key_of = _key_of(rule)
    wanted_order = new if order is None else _listed(order)
    if not rule.key:
        items = {key_of(one): one for one in [*old, *new]}
        return _ordered(list(items.values()), wanted_order, old, key_of)
    special = [one for one in new if isinstance(one, dict) and PATCH in one]
    wanted = [one for one in new if not (isinstance(one, dict) and PATCH in one)]
    if any(one[PATCH] == "replace" for one in special):
        return [_plain(one) for one in wanted]
    for one in special:
        if one[PATCH] != "delete":
            raise BadPatch(f"unknown patch type: {one[PATCH]} in map: {one}")
    gone = [key_of(one) for one in special]
    items = {key_of(one): one for one in old if key_of(one) not in gone}
    for one in wanted:
        items[key_of(one)] = _merged(items.get(key_of(one)), one, Rule(inside=rule.inside), None)
    return _ordered(list(items.values()), wanted if order is None else wanted_order, old, key_of)


def _key_of(rule: Rule) -> Key:
    name = rule.key

    def key(item: Any) -> Any:
        value = item
        if name:
            value = item.get(name) if isinstance(item, dict) else None
        if value is None or isinstance(value, dict | list):
            raise BadPatch(f"map: {item} does not contain declared merge key: {name}")
        return value

    return key


def _ordered(items: list[Any], wanted: Iterable[Any], old: list[Any], key_of: Key) -> list[Any]:
    """What the patch names in its order, and the rest put among it by the order that it had in the object."""
    order = [key_of(one) for one in wanted]
    before = [key_of(one) for one in old]
    named = sorted((one for one in items if key_of(one) in order), key=lambda one: order.index(key_of(one)))
    rest = [one for one in items if key_of(one) not in order]
    result: list[Any] = []
    while named and rest:
        first, other = key_of(rest[0]), key_of(named[0])
        stood_before = first in before and other in before and before.index(first) < before.index(other)
        result.append((rest if stood_before else named).pop(0))
    return [*result, *named, *rest]


def _plain(value: Any) -> Any:
    """Without directives and nulls: what is left of a patch where the object had nothing."""
    match value:
        case dict():
            if value.get(PATCH) == "delete":
                return {}
            return {key: _plain(one) for key, one in value.items() if not key.startswith("$") and one is not None}
        case list():
            return [_plain(one) for one in value if not (isinstance(one, dict) and one.get(PATCH) == "delete")]
        case _:
            return value
