"""The mutants stand in the source as it is: a mutant that changes nothing proves nothing. `make sim` runs them."""

import pytest

from sim.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_what_a_mutant_replaces_stands_once_in_its_file(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_still_python(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text().replace(mutant.old, mutant.new)
    compile(text, mutant.file, "exec")


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
