"""A terminal that is closed (SIGHUP) ends a command as Ctrl-C does, unless nohup said that it must not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from exits import exit_code

from robozarr import cli

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that hang up")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def hang_up(**options: object) -> int:
    os.kill(os.getpid(), signal.SIGHUP)
    return 0


@pytest.mark.parametrize(("handler", "code"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)], ids=["a terminal", "nohup"])
def test_a_terminal_that_is_closed(
    handler: signal.Handlers, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGHUP, handler)
    monkeypatch.setattr(cli, "app", hang_up)
    assert exit_code(["info", "a.zarr"]) == code
    assert capsys.readouterr().err == ("robozarr: interrupted\n" if code else "")
