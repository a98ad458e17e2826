"""The list that a plan is made for: every problem at once, by its line."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from khook.cli import namespace_list
from khook.cli.namespace_list import MOST_PROBLEMS, BadList, read
from khook.supervisor.load import weight


def problems(text: str) -> list[str]:
    with pytest.raises(BadList) as caught:
        read(text.splitlines(), name="list.txt")
    return caught.value.problems


def test_a_namespace_weighs_by_the_supervisors_rule_and_comments_are_nothing() -> None:
    lines = ["# all of them", "", "shop 40", "  payments\t2.5  # the busy one\r\n", "search", "a 0"]
    expected = {"shop": weight(40), "payments": weight(2.5), "search": weight(0), "a": weight(0)}
    assert read(lines, name="list.txt") == expected


def test_every_problem_is_named_by_its_line() -> None:
    assert problems("Shop_1\nshop\n\nshop 2\nbank fast\nbank -1\nbank nan\na b c\n-x") == [
        "list.txt:1: 'Shop_1' is not a namespace name",
        "list.txt:4: shop stands in line 2 already",
        "list.txt:5: 'fast' is not a number of lines a second, such as 2.5",
        "list.txt:6: '-1' is not a number of lines a second, such as 2.5",
        "list.txt:7: 'nan' is not a number of lines a second, such as 2.5",
        "list.txt:8: more than a namespace and its lines a second",
        "list.txt:9: '-x' is not a namespace name",
    ]


def test_an_empty_list_is_a_problem() -> None:
    assert problems("# none\n") == ["list.txt: names no namespace"]


def test_a_file_of_another_kind_is_not_told_line_by_line_for_ever_nor_word_by_word() -> None:
    told = problems("\n".join(["X" * 5000] * 5000))
    assert len(told) == MOST_PROBLEMS + 1
    assert told[-1] == f"list.txt:{MOST_PROBLEMS}: not read any further"
    assert max(map(len, told)) < 200


def test_more_namespaces_than_can_be_meant_are_not_read() -> None:
    lines = (f"n{number}" for number in range(10**9))
    with pytest.raises(BadList, match="not read any further"):
        read(lines, name="list.txt")
    assert namespace_list.MOST_NAMESPACES == 100_000


@given(st.lists(st.text(max_size=20), max_size=10))
def test_any_lines_are_a_list_or_named_problems(lines: list[str]) -> None:
    named: list[str] = []
    weights: dict[str, float] = {}
    try:
        weights = read(lines, name="list.txt")
    except BadList as error:
        named = error.problems
    assert bool(named) != bool(weights)
    assert all(problem.startswith("list.txt:") for problem in named)
    assert all(one > 0 for one in weights.values())
