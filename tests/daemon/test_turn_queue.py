"""Turns: flows that wait take none, projects do not delay each other, processes are bounded."""

import threading

from engine.daemon.turn_queue import Turns


def took(turns: Turns, *flows: str) -> list[str]:
    """Return the flows that get a turn at once; a flow is its project's letter and a number."""
    return [flow for flow in flows if turns.take(flow, flow[0], timeout=0)]


def test_work_is_bounded() -> None:
    """At most `at_work` flows of a project work; the end of one lets the next one start."""
    turns = Turns(2)
    assert took(turns, "a1", "a2", "a3") == ["a1", "a2"]
    turns.release("a1")
    assert took(turns, "a3", "a4") == ["a3"]


def test_who_waits_takes_no_turn() -> None:
    """A flow that waits frees its turn, and works again without a new turn."""
    turns = Turns(2)
    assert took(turns, "a1", "a2", "a3") == ["a1", "a2"]
    turns.waits("a1")
    assert took(turns, "a3", "a4") == ["a3"]
    turns.works("a1")
    turns.release("a2")
    assert took(turns, "a4") == []  # two work: a1 and a3
    turns.release("a1")
    assert took(turns, "a4") == ["a4"]


def test_a_project_has_a_turn_beside_the_work_of_others() -> None:
    """A project without a turn gets one, until twice `at_work` flows work."""
    turns = Turns(2)
    assert took(turns, "a1", "a2", "b1", "b2", "c1", "d1") == ["a1", "a2", "b1", "c1"]


def test_processes_are_bounded_and_a_place_is_left_to_each_project() -> None:
    """Waiting flows of one project leave a place to each project without a process."""
    turns = Turns(2, places=4)
    turns.projects = {"a", "b", "c"}
    for flow in ("a1", "a2"):
        assert took(turns, flow) == [flow]
        turns.waits(flow)
    assert took(turns, "a3") == []
    assert took(turns, "b1") == ["b1"]
    turns.waits("b1")
    assert took(turns, "b2", "a3") == []
    assert took(turns, "c1", "d1") == ["c1"]
    turns.release("a1")
    assert took(turns, "d1") == ["d1"]


def test_more_projects_than_places() -> None:
    """With more projects than places, each project has one place at most."""
    turns = Turns(1, places=2)
    turns.projects = {"a", "b", "c"}
    assert took(turns, "a1") == ["a1"]
    turns.waits("a1")
    assert took(turns, "a2", "b1", "c1") == ["b1"]


def test_the_queue_goes_by_projects() -> None:
    """A project without a working flow comes before projects that came first."""
    turns = Turns(1)
    assert took(turns, "a1", "b1") == ["a1", "b1"]
    order: list[str] = []

    def want(flow: str) -> None:
        assert turns.take(flow, flow[0])
        order.append(flow)
        turns.release(flow)

    threads = []
    for flow in ("a2", "a3", "c1"):
        threads.append(threading.Thread(target=want, args=[flow]))
        threads[-1].start()
        while flow not in turns.queued() and threads[-1].is_alive():
            pass
    turns.release("b1")
    threads[2].join()
    assert order == ["c1"]
    turns.release("a1")
    for thread in threads:
        thread.join()
    assert order == ["c1", "a2", "a3"]


def test_the_end() -> None:
    """P8: `close` ends every wait for a turn at once, and no flow gets a turn after it."""
    turns = Turns(1)
    assert took(turns, "a1") == ["a1"]
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(turns.take("a2", "a")))
    thread.start()
    turns.close()
    thread.join(10)
    assert answers == [False]
    assert took(turns, "b1") == []
