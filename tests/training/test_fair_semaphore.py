"""A fair semaphore admits the given number of threads, in their order."""

import threading
import time

from miiii_search.training.fair_semaphore import FairSemaphore


def test_no_more_than_its_places_and_nobody_starves() -> None:
    semaphore, turns, inside, most = FairSemaphore(2), [0] * 6, 0, 0
    lock, enough = threading.Lock(), threading.Event()

    def take_turns(k: int) -> None:
        nonlocal inside, most
        while not enough.is_set():
            with semaphore:
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with lock:
                    inside -= 1
                    turns[k] += 1
                    if min(turns) >= 20:
                        enough.set()

    threads = [threading.Thread(target=take_turns, args=(k,), daemon=True) for k in range(6)]
    for thread in threads:
        thread.start()
    assert enough.wait(600), turns
    for thread in threads:
        thread.join(600)
    assert most == 2


def test_first_come_first_served() -> None:
    """A thread that releases the semaphore and asks again at once is served after all that wait."""
    semaphore, order, threads = FairSemaphore(1), list[int](), list[threading.Thread]()

    def enter_twice(k: int) -> None:
        for _ in range(2):
            with semaphore:
                order.append(k)

    with semaphore:
        for k in range(6):
            threads.append(threading.Thread(target=enter_twice, args=(k,), daemon=True))
            threads[k].start()
            while len(semaphore._waiting) <= k:
                time.sleep(0.001)
    for thread in threads:
        thread.join(600)
    assert order[:6] == list(range(6)) and sorted(order[6:]) == list(range(6)), order


def test_a_place_is_free_again_after_an_error() -> None:
    semaphore = FairSemaphore(1)
    for _ in range(3):
        try:
            with semaphore:
                raise KeyError
        except KeyError:
            pass
    with semaphore:
        pass
