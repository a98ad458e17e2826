"""What is kept of an agent's answer: one plain line, without our secrets, at most 1 KiB."""

from khook.agents.answer import kept
from khook.agents.outcome import MAX_RESULT_BYTES
from khook.log import register_secret

SECRET = "an-answer's-own-secret"


def test_no_half_of_a_secret_is_left_where_the_answer_is_cut() -> None:
    register_secret(SECRET)
    before = "x" * (MAX_RESULT_BYTES - 8)
    assert kept(f"{before}{SECRET} and more") == f"{before}[redacte"


def test_a_secret_with_control_characters_in_it_is_one_still() -> None:
    register_secret(SECRET)
    assert kept(f" the key\nis {SECRET[:5]}\x00{SECRET[5:]} ") == "the key is [redacted]"
