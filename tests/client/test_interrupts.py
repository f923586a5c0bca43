"""Ctrl-C, put off while a change is made."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from p2premap.client.interrupts import PutOff


def test_it_comes_once_the_change_is_made() -> None:
    done = []

    def change() -> None:
        with PutOff():
            signal.raise_signal(signal.SIGINT)
            with PutOff():
                signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        change()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_has_its_own_way_with_it_keeps_that() -> None:
    heard = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGINT, hear)
    try:
        with PutOff():
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is hear
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_none() -> None:
    done = []

    def change() -> None:
        with PutOff():
            done.append(1)

    thread = threading.Thread(target=change)
    thread.start()
    thread.join(60)
    assert done
