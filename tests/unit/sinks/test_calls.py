"""A call of an inline sink: whatever it does, there is one answer, in one process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

import pytest

from lonedot.sinks.calls import FORKED, answer_of


def test_what_it_returns_and_how_long_it_took() -> None:
    answer = answer_of(len, "four")
    assert (answer.returned, answer.error) == (4, None)
    assert answer.took_seconds > 0


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(1), GeneratorExit()])
def test_what_it_raises_is_an_answer(raised: BaseException) -> None:
    def sink(_: str) -> object:
        raise raised

    assert answer_of(sink, "").error is raised


def test_ctrl_c_is_nobodys_answer() -> None:
    def sink(_: str) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_of(sink, "")


def _raises_in_the_child(shown: int) -> int:
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the child")
    return pid


@pytest.mark.parametrize("sink", [lambda _: os.fork(), _raises_in_the_child], ids=["returns", "raises"])
def test_who_comes_back_from_a_fork_ends(sink: Callable[[int], object]) -> None:
    pid = answer_of(sink, 0).returned
    assert isinstance(pid, int) and pid > 0
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == FORKED


def test_a_relay_that_was_forked_itself_calls_its_sinks() -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put(answer_of(len, "four").returned))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert answers.get() == 4
