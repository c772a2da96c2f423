"""Requests to stop that come inside blocks inside blocks."""

import os
import signal
import sys
from pathlib import Path

import pytest

from lupctl.core.errors import InterruptedRunError, StoppedError
from lupctl.core.system.jobs.stopping import never_stop, stop_at_once, stop_on_request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, StoppedError), (signal.SIGINT, InterruptedRunError)])
def test_a_request_that_comes_too_late_for_a_loop_ends_the_block_around_it(
    number: int, kind: type[StoppedError]
) -> None:
    before, reached = signal.getsignal(number), list[str]()

    def work() -> None:
        with stop_at_once(Path("net")):
            with stop_on_request():
                os.kill(os.getpid(), number)
                reached.append("end of the loop")
            reached.append("after the loop")

    with pytest.raises(StoppedError, match="net: not written") as caught:
        work()
    assert (type(caught.value), reached) == (kind, ["end of the loop"])
    assert signal.getsignal(number) == before


def test_a_request_that_comes_too_late_for_everything() -> None:
    reached = []
    with stop_at_once(Path("net")):
        with never_stop():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("written")
        reached.append("and said")
    assert reached == ["written", "and said"]


def test_a_mistake_in_a_block_is_no_request() -> None:
    with pytest.raises(ZeroDivisionError), stop_at_once(Path("net")):
        print(1 // 0)
