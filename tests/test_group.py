"""The connections between the processes of a training; here threads stand for processes."""

import contextlib
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_dogs.backends import devices
from keras_dogs.backends.devices import links
from keras_dogs.backends.devices.engine import Engine
from keras_dogs.backends.devices.group import Group
from keras_dogs.backends.devices.group import Processes
from keras_dogs.backends.devices.group import Rendezvous
from keras_dogs.data.loaders.batches import predict_in_batches
from keras_dogs.errors import UserError

pytestmark = pytest.mark.once

TOLD = {"--batch-size": 32, "keras": "3.15.1"}


def meeting_of(count: int, process: int, port: int) -> Rendezvous:
    return Rendezvous("127.0.0.1", port, count, process, "--coordinator")


def a_port() -> int:
    return random.SystemRandom().randrange(20_000, 30_000)  # a training seeds the usual one


def in_processes(count: int, do, timeout: float = 30.0, given=lambda process: TOLD) -> list:
    """What `do(group)` gives in each of `count` processes."""
    port = a_port()

    def run(process):
        group = Processes(meeting_of(count, process, port), given(process), timeout)
        try:
            return do(group)
        finally:
            group.close()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run, process) for process in range(count)]]


@pytest.mark.parametrize("count", [2, 3])
def test_what_processes_tell_each_other(count):
    def talk(group):
        everything = group.exchange(bytes([group.process] * 3))
        greatest = group.agree(group.process * 7)
        value, arrays = group.from_first(
            {"step": 3} if group.is_first else None, {"a": np.eye(2)} if group.is_first else None
        )
        gathered = group.gather(np.full(group.process, 1.5))
        return everything, greatest, value, arrays["a"].tolist(), [len(part) for part in gathered]

    expected = (
        [bytes([process] * 3) for process in range(count)],
        7 * (count - 1),
        {"step": 3},
        np.eye(2).tolist(),
        list(range(count)),
    )
    assert in_processes(count, talk) == [expected] * count


def test_another_service_at_the_port():
    """Its answer is not taken for a frame of ours, nor for its length."""
    meeting = meeting_of(2, 1, a_port())
    with socket.create_server((meeting.host, meeting.control_port)) as server, ThreadPoolExecutor(1) as pool:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answered = pool.submit(answer)
        with pytest.raises(UserError, match="is no process of a training"):
            Processes(meeting, TOLD, 10.0)
        answered.result()


def test_one_process_alone():
    group = Group()
    assert group.is_first and group.agree(3) == 3 and group.exchange(b"x") == [b"x"]
    assert group.from_first({"a": 1}) == ({"a": 1}, {})
    assert np.array_equal(group.gather(np.arange(3))[0], np.arange(3))


@pytest.mark.parametrize("count", [2, 3])
def test_every_picture_is_scored_once(count, monkeypatch):
    """8,580 pictures, as many as the test split of Stanford Dogs has; batches of 32, the last of 4."""
    pictures = np.random.default_rng(0).normal(size=(8_580, 6)).astype("float32")

    class Model:
        def __init__(self):
            self.seen = []

        def unread_outputs(self, batch):
            self.seen.append(len(batch))
            return batch @ np.arange(12.0).reshape(6, 2)

    alone = Model()
    expected, _ = predict_in_batches(alone, pictures, 32)
    here = threading.local()
    monkeypatch.setattr(devices, "current", lambda: here.engine)

    def score(group):
        here.engine, model = Engine(group), Model()
        outputs, rate = predict_in_batches(model, pictures, 32)
        assert rate > 0
        return outputs, len(model.seen)

    found = in_processes(count, score)
    assert sum(num_batches for _, num_batches in found) == len(alone.seen) == 269
    for outputs, _ in found:
        assert np.array_equal(outputs, expected)  # to the last bit: each batch is what it is in one process


def test_fewer_batches_than_processes(monkeypatch):
    class Model:
        def unread_outputs(self, batch):
            return batch[:, :1]

    here = threading.local()
    monkeypatch.setattr(devices, "current", lambda: here.engine)

    def score(group):
        here.engine = Engine(group)
        return predict_in_batches(Model(), np.arange(8.0).reshape(4, 2), 2)[0][:, 0].tolist()

    assert in_processes(3, score) == [[0.0, 2.0, 4.0, 6.0]] * 3


def test_processes_that_were_told_different_things():
    with pytest.raises(UserError, match="process 1 has batch_size 16, process 0 has 32; start all processes alike"):
        in_processes(2, lambda group: None, given=lambda process: {**TOLD, "--batch-size": 16 if process else 32})


def test_two_processes_of_one_number():
    port = a_port()

    def come(process):
        return Processes(meeting_of(3, process, port), TOLD, 10)

    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(come, process) for process in (0, 1, 1)]
    with pytest.raises(UserError, match="two processes call themselves 1"):
        found[0].result()
    for other in found[1:]:
        with pytest.raises(UserError, match="one already|two processes"):
            other.result()


def test_the_other_hears_of_it_too():
    port, said = a_port(), []

    def knock():
        try:
            Processes(meeting_of(2, 1, port), {**TOLD, "keras": "3.14"}, 10)
        except UserError as error:
            said.append(str(error))

    other = threading.Thread(target=knock)
    other.start()
    with pytest.raises(UserError, match="keras 3.14"):
        Processes(meeting_of(2, 0, port), TOLD, 10)
    other.join()
    assert said == ["process 1 has keras 3.14, process 0 has 3.15.1; start all processes alike"]


def test_a_process_that_does_not_come():
    with pytest.raises(UserError, match="process 1, 2 of 3 did not come within 0.3 s: start it, or give peer_timeout"):
        Processes(meeting_of(3, 0, a_port()), TOLD, 0.3)


def test_a_first_process_that_does_not_answer():
    with pytest.raises(UserError, match="no answer from process 0 at 127.0.0.1:.* within 0.3 s"):
        Processes(meeting_of(2, 1, a_port()), TOLD, 0.3)


def test_a_port_in_use():
    port = a_port()
    with socket.create_server(("127.0.0.1", port + 1000)):
        with pytest.raises(UserError, match=f"port {port + 1000}: Address already in use"):
            Processes(meeting_of(2, 0, port), TOLD, 1)
    with socket.create_server(("", port)):
        with pytest.raises(UserError, match=f"port {port} of TF_CONFIG: Address already in use; choose another"):
            Rendezvous("127.0.0.1", port, 2, 1, "TF_CONFIG", port).check_port()


def test_strangers_are_shown_out():
    """Something that tries ports is no process of the training, whatever it sends."""
    port = a_port()

    def visit():
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"H" + bytes(7) + b"\x02{}"):
            with connect() as stranger, contextlib.suppress(ConnectionResetError, BrokenPipeError):
                stranger.sendall(greeting)
                assert stranger.recv(1) == b""  # shown out, one way or the other

    def connect():
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port + 1000), 20)
            except ConnectionRefusedError:
                time.sleep(0.01)

    def come():
        visit()
        with_others(1)

    def with_others(process):
        group = Processes(meeting_of(2, process, port), TOLD, 20)
        assert group.agree(process) == 1
        group.close()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(with_others, 0), pool.submit(come)]:
            future.result()


def test_the_first_error_reaches_all(monkeypatch):
    def fail(group):
        if group.process == 2:
            group.close("--dataset dogs: no such folder")
            return "failed"
        with pytest.raises(UserError, match="^process 2: dataset dogs: no such folder$"):
            group.exchange(b"")
        return group.why()

    assert in_processes(3, fail)[:2] == ["process 2: --dataset dogs: no such folder"] * 2


def test_signs_of_life_come_in_time():
    """Where no more than a second may pass without one."""
    assert in_processes(2, lambda group: group.why(2.5), timeout=1.0) == ["", ""]


def test_silence_counts_as_an_end(monkeypatch):
    """As of a host that has lost its power: the connection stays, nothing comes."""
    monkeypatch.setattr(links.Link, "send_sign", lambda link: None)

    def wait(group):
        if group.process:
            return group.why(10)
        with pytest.raises(UserError, match="process 1 has given no sign for"):
            group.exchange(b"")
        return group.error

    assert all("no sign" in why for why in in_processes(2, wait, timeout=1.0))
