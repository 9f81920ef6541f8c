"""The server: the same answers as `predict`, batches, refusals, and an end; the page in a browser."""

import contextlib
import http.client
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_answers import calibrated
from test_exports import needs

from keras_dogs.data.config import DataConfig
from keras_dogs.exporting import exporting
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from keras_dogs.serving import app
from keras_dogs.serving import connections
from keras_dogs.serving import running
from keras_dogs.serving import served
from keras_dogs.serving.config import ServeConfig


@contextlib.contextmanager
def killed_at_the_end(process: subprocess.Popen):
    with process:
        try:
            yield
        finally:
            process.kill()


def port_of(process: subprocess.Popen) -> int:
    """The port in the line that the command prints when it listens; others may come before."""
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError("".join(said))


class Server:
    """A server in a thread of this process, and a client of it."""

    def __init__(self, models, **flags):
        config = ServeConfig(runs=("models",), port=0, **flags)
        self.listener = running.listen(config)
        self.port = self.listener.getsockname()[1]
        self.service = app.Service(config, models)
        self.server = running.server_of(config, self.service)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    def __enter__(self):
        deadline = time.monotonic() + 120
        while self.ask("GET", "/readyz")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(60)
        self.listener.close()
        assert not self.thread.is_alive()

    def ask(self, method, path, body=None, kind="image/png", **headers):
        """Returns the status, what JSON says or the text, and the headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {**({"content-type": kind} if body is not None else {}), **headers})
            answer = connection.getresponse()
            text = answer.read().decode()
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.status, json.loads(text) if is_json else text, answer.headers

    def send(self, raw: bytes, is_broken_off: bool) -> bytes:
        """Returns what comes back on a connection on which bytes were sent, until it is closed or silent."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(raw)
                if is_broken_off:
                    connection.shutdown(socket.SHUT_WR)
            parts = []
            with contextlib.suppress(OSError):
                while part := connection.recv(65536):
                    parts.append(part)
            return b"".join(parts)


def form(*files: tuple[str, bytes], boundary: str = "parting") -> tuple[bytes, str]:
    """The body of a form with files, and its content type."""
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="pictures"; filename="{name}"\r\n\r\n'.encode() + content
        for name, content in files
    ]
    return b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def png(side: int = 32, seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def models(run_folder, tmp_path_factory):
    folder = calibrated(run_folder, tmp_path_factory.mktemp("served") / "dogs")
    return served.open_all((folder,))


@pytest.fixture(scope="module")
def server(models):
    with Server(models, max_batch=8, max_upload_mb=1, max_megapixels=2, timeout=10, max_queue=64) as it:
        yield it


def test_answers_are_those_of_predict(command, server, models, dogs, run_folder, tmp_path):
    """Sent by many at once, alone and several in a form."""
    files = sorted((dogs / "test").rglob("*.png"))
    copy = calibrated(run_folder, tmp_path / "dogs")
    _, out, _ = command("predict", copy, *files, "--json", "--coverage", "0.9")
    expected = [json.loads(line) for line in out.splitlines()]

    def one(index):
        file = files[index % len(files)]
        return index % len(files), server.ask("POST", "/predict?coverage=0.9", file.read_bytes())

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(4 * len(files))))
    body, kind = form(*((file.name, file.read_bytes()) for file in files[:8]))
    status, found, _ = server.ask("POST", "/predict?coverage=0.9", body, kind)
    assert status == 200 and [each["name"] for each in found["predictions"]] == [file.name for file in files[:8]]
    answers += [(index, (200, {"predictions": [each]}, None)) for index, each in enumerate(found["predictions"])]
    for index, (status, found, _) in answers:
        (said,) = found["predictions"]
        assert status == 200 and said["unfamiliar"] is expected[index]["unfamiliar"]
        assert list(said["breeds"]) == list(expected[index]["breeds"]) and said["set"] == expected[index]["set"]
        for name, share in said["breeds"].items():
            assert share == pytest.approx(expected[index]["breeds"][name], abs=1e-5)


def test_where_the_model_looked(server):
    status, found, _ = server.ask("POST", "/explain", png())
    heat = np.array(found["heat"])
    assert status == 200 and found["method"] == "Grad-CAM" and heat.ndim == 2
    assert 0 <= heat.min() <= heat.max() <= 1


@pytest.mark.once
def test_routes_about_the_server(server, models):
    assert server.ask("GET", "/healthz")[:2] == (200, "ok\n")
    status, found, _ = server.ask("GET", "/metadata")
    (model,) = found["models"]
    assert status == 200 and model["name"] == "dogs" and len(model["classes"]) == 3 and model["coverages"][40] == 0.9
    server.ask("POST", "/predict", png())
    status, text, headers = server.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain")
    assert 'keras_dogs_requests_total{route="/predict",status="200"}' in text
    assert 'keras_dogs_batch_size_count{model="dogs"}' in text


@pytest.mark.once
def test_the_open_inference_protocol(server, models):
    (model,) = models
    assert server.ask("GET", "/v2")[1]["name"] == "keras_dogs"
    assert server.ask("GET", "/v2/health/live")[0] == server.ask("GET", "/v2/models/dogs/ready")[0] == 200
    described = server.ask("GET", "/v2/models/dogs")[1]
    assert described["inputs"] == [{"name": "canvases", "datatype": "UINT8", "shape": [-1, *model.canvas_shape]}]
    canvases = np.random.default_rng(0).integers(0, 255, (3, *model.canvas_shape), np.uint8)
    for data in (canvases.tolist(), canvases.ravel().tolist()):
        given = {"name": "canvases", "datatype": "UINT8", "shape": list(canvases.shape), "data": data}
        asked = {"id": "mine", "inputs": [given], "outputs": [{"name": "probabilities"}, {"name": "logits"}]}
        status, found, _ = server.ask("POST", "/v2/models/dogs/infer", json.dumps(asked), "application/json")
        assert status == 200 and found["id"] == "mine" and found["model_name"] == "dogs"
        probabilities, logits = (np.reshape(each["data"], each["shape"]) for each in found["outputs"])
        np.testing.assert_allclose(logits, model.ask(canvases), atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def malformed(server) -> list[tuple[str, bytes, set[int]]]:
    """Requests that no careful client sends: what, the bytes, and the statuses that are right."""
    good, generator = png(), random.Random(0)

    def post(path, body=b"", kind="image/png", length=None, extra=""):
        head = f"POST {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-type: {kind}\r\n{extra}"
        return f"{head}content-length: {len(body) if length is None else length}\r\n\r\n".encode() + body

    cases = []
    for path in ("/predict", "/explain"):
        cases += [
            ("empty", post(path), {400}),
            ("text", post(path, b"not a picture"), {400}),
            ("too large by its length", post(path, b"", length=10**9), {413}),
            ("a length that is none", post(path, good, length="many"), {400}),
            ("a negative length", post(path, good, length=-1), {400}),
            ("bomb", post(path, _bomb()), {413}),
            ("a wrong content type", post(path, good, "application/json"), {415}),
            ("a content type of control characters", post(path, good, "text/\x01\x02"), {400, 415}),
            (
                "a content type in no encoding",
                post(path, good, "bin\udcffary".encode("utf-8", "replace").decode()),
                {415},
            ),
            ("a form without boundary", post(path, good, "multipart/form-data"), {400}),
            ("a form that is none", post(path, good, "multipart/form-data; boundary=x"), {400}),
            ("a form with no file", post(path, b"--x--\r\n", "multipart/form-data; boundary=x"), {400}),
            ("a form in no encoding", post(path, good, "multipart/form-data; boundary=x; charset=undefined"), {400}),
            ("PostScript", post(path, EPS), {400}),
            ("a form of fields", post(path, *form_of_fields(3)), {400}),
            ("a thousand fields", post(path, *form_of_fields(1000)), {400}),
            ("a thousand pictures", post(path, *form(*(("a.png", b"x") for _ in range(1000)))), {400}),
            ("an unknown model", post(f"{path}?model=none", good), {404}),
            ("a method", b"DELETE " + path.encode() + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", {405}),
            ("GET", b"GET " + path.encode() + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", {405}),
        ]
        for cut in range(15):
            cases.append((f"a picture cut at {cut}", post(path, good[: 3 + len(good) * cut // 15]), {400}))
            cases.append((f"bytes {cut}", post(path, generator.randbytes(200)), {400}))
    for value in ("0", "-1", "x", "1e3", "99999999999999999999", "%00", "१"):
        cases.append((f"top_k {value}", post(f"/predict?top_k={value}", good), {400}))
        cases.append((f"coverage {value}", post(f"/predict?coverage={value}", good), {400}))
    for path in (
        "/nowhere",
        "/predict/",
        "/..%2f..%2fetc/passwd",
        "/page.py",
        "/v2/models/none",
        "/v2/models/none/infer",
    ):
        cases.append((f"route {path}", post(path, b"{}", "application/json"), {404, 405}))
    shape = server.ask("GET", "/v2/models/dogs")[1]["inputs"][0]["shape"][1:]
    count = int(np.prod(shape))
    sound = {"name": "canvases", "datatype": "UINT8", "shape": [1, *shape], "data": [0] * count}
    for what, given in {
        "no JSON": b"{",
        "nested": b"[" * 100_000,
        "a number": b"1",
        "nothing": b"{}",
        "no inputs": {"inputs": []},
        "two inputs": {"inputs": [sound, sound]},
        "another name": {"inputs": [{**sound, "name": "x"}]},
        "another type": {"inputs": [{**sound, "datatype": "FP32"}]},
        "another shape": {"inputs": [{**sound, "shape": [1, 2, 3]}]},
        "no shape": {"inputs": [{**sound, "shape": []}]},
        "a shape of none": {"inputs": [{**sound, "shape": [0, *shape], "data": []}]},
        "a huge shape": {"inputs": [{**sound, "shape": [10**12, *shape]}]},
        "too little": {"inputs": [{**sound, "data": [0] * (count - 1)}]},
        "too large": {"inputs": [{**sound, "data": [256] * count}]},
        "negative": {"inputs": [{**sound, "data": [-1] * count}]},
        "floats": {"inputs": [{**sound, "data": [0.5] * count}]},
        "words": {"inputs": [{**sound, "data": ["a"] * count}]},
        "a long word": {"inputs": [{**sound, "data": ["a"] * (count - 1) + ["b" * 100_000]}]},
        "a long wrong id": {"inputs": [sound], "id": [1] * 100_000},
        "mixed": {"inputs": [{**sound, "data": [[0], 1, {}]}]},
        "beyond": {"inputs": [{**sound, "data": [10**400] * count}]},
        "another output": {"inputs": [sound], "outputs": [{"name": "x"}]},
    }.items():
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        right = {413} if what == "beyond" else {400}
        cases.append((f"infer {what}", post("/v2/models/dogs/infer", body, "application/json"), right))
    for number in range(50):
        cases.append((f"no HTTP {number}", generator.randbytes(generator.randrange(1, 300)) + b"\r\n\r\n", {400}))
    for number in range(20):
        whole = post("/predict", good)
        cases.append((f"broken off {number}", whole[: len(whole) * (number + 1) // 22], {400}))
    cases += [
        ("a long header", b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", {400, 431}),
        ("many headers", b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", {200, 400, 431}),
        ("no host", b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", {200, 400}),
        (
            "chunks that are none",
            post("/predict", b"zz\r\n", length=0).replace(b"content-length: 0", b"transfer-encoding: chunked"),
            {400},
        ),
    ]
    return cases


# What Pillow would have Ghostscript draw, for as long as it takes.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n%%EOF\n"


def form_of_fields(count: int) -> tuple[bytes, str]:
    part = b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb\r\n'
    return part * count + b"--x--\r\n", "multipart/form-data; boundary=x"


def _bomb() -> bytes:
    file = io.BytesIO()
    Image.new("L", (9000, 9000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.once
def test_two_hundred_malformed_requests(server, capfd):
    """Each has a status of its kind and a JSON error, and the next request is answered."""
    cases = malformed(server)
    assert len(cases) >= 200
    wrong = []
    for what, raw, right in cases:
        is_broken_off = what.startswith("broken off")
        answer = server.send(raw, is_broken_off)
        if is_broken_off and not answer:
            continue  # the client has gone
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1]) if head.startswith(b"HTTP/1.1 ") else 0
        if status not in right:
            wrong.append((what, status, body[:200]))
        elif b"application/json" in head and status != 200:
            assert set(json.loads(body)) == {"error"} and "\n" not in json.loads(body)["error"], what
        elif status != 200:
            wrong.append((what, "no JSON", answer[:200]))
    assert not wrong
    assert server.ask("POST", "/predict", png())[0] == 200
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


@pytest.mark.once
def test_who_sends_more_than_is_read_gets_the_answer(server):
    """An upload that is refused by its length, and a head that has no end: neither is cut off by a reset."""
    upload = bytes(8 * 2**20)
    status, found, _ = server.ask("POST", "/predict", upload, connection="close")
    assert status == 413 and "larger than" in found["error"]
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + upload)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400") and answer.endswith(b'{"error": "this is not an HTTP request"}')


@pytest.mark.once
def test_who_never_stops_sending_is_let_go(models, monkeypatch):
    monkeypatch.setattr(connections, "_SECONDS_TO_END", 0.3)
    with Server(models, max_batch=1) as server, socket.create_connection(("127.0.0.1", server.port), 30) as client:
        with pytest.raises(ConnectionError):
            for _ in range(3000):
                client.sendall(b"y" * 70_000)
                time.sleep(0.01)


@pytest.mark.once
def test_a_form_with_a_broken_picture_answers_the_others(server):
    status, found, _ = server.ask(
        "POST", "/predict", *form(("a.png", png()), ("b\u202e.png", b"x"), ("c.png", png(40)))
    )
    assert status == 200
    first, second, third = found["predictions"]
    assert first["breeds"] and third["breeds"] and second["error"] == "not a picture that Pillow can read"
    assert "\u202e" not in second["name"]


@pytest.mark.once
def test_a_slow_client_is_told_and_the_others_are_answered(models):
    with Server(models, timeout=0.5, max_batch=4) as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\ncontent-length: 900\r\n\r\nx"
            )
            assert server.ask("POST", "/predict", png())[0] == 200
            answer = b"".join(iter(lambda: slow.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.5 s" in answer


@pytest.mark.once
def test_who_says_nothing_is_told_and_let_go(models, monkeypatch):
    monkeypatch.setattr(connections, "_SECONDS_TO_BEGIN", 0.3)
    with Server(models, max_batch=1) as server:
        answer = server.send(b"POST /predict HTTP/1.1\r\nhost: a\r\nx: ", is_broken_off=False)
        assert answer.startswith(b"HTTP/1.1 408") and b"no request came" in answer
        assert server.ask("POST", "/predict", png())[0] == 200


class Slow:
    """A model that takes its time, and keeps the sizes of its batches."""

    def __init__(self, seconds):
        self.seconds, self.sizes = seconds, []

    def __call__(self, canvases):
        self.sizes.append(len(canvases))
        time.sleep(self.seconds)
        return np.stack([canvases.mean(axis=(1, 2, 3)), np.zeros(len(canvases))], axis=1)


def of(ask, models, any_batch=True):
    return [
        models[0]._replace(name="slow", class_names=("a", "b"), ask=ask, prepare=ask, any_batch=any_batch, explain=None)
    ]


@pytest.mark.once
def test_what_is_too_much_is_refused_and_nothing_is_lost(models):
    """Four times what it can carry: each is answered correctly, or told when to come again."""
    ask = Slow(0.05)
    with Server(of(ask, models), max_batch=4, max_queue=8) as server:
        pictures = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in range(0, 250, 10)]
        bodies = []
        for picture in pictures:
            file = io.BytesIO()
            picture.save(file, "PNG")
            bodies.append(file.getvalue())
        with ThreadPoolExecutor(32) as pool:
            answers = list(
                pool.map(lambda index: (index, *server.ask("POST", "/predict", bodies[index % 25])), range(300))
            )
        statuses = [status for _, status, _, _ in answers]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 8
        for index, status, found, headers in answers:
            if status == 503:
                assert int(headers["retry-after"]) >= 1 and "try again" in found["error"]
                continue
            shade = 10 * (index % 25) / 2.0  # the temperature
            expected = 1 / (1 + np.exp(-shade))
            assert found["predictions"][0]["breeds"]["a"] == pytest.approx(expected, abs=1e-6)
        assert server.ask("POST", "/predict", bodies[0])[0] == 200
        assert max(ask.sizes) == 4
        assert 'keras_dogs_pictures_in_hand{model="slow"} 0.0' in server.ask("GET", "/metrics")[1]


@pytest.mark.once
def test_requests_at_once_are_one_batch(models):
    ask = Slow(0.1)
    with Server(of(ask, models), max_batch=16, max_wait_ms=50) as server, ThreadPoolExecutor(16) as pool:
        ask.sizes.clear()
        list(pool.map(lambda _: server.ask("POST", "/predict", png()), range(16)))
    assert len(ask.sizes) <= 4


@pytest.mark.once
def test_batches_are_filled_up_for_those_that_compile(models):
    ask = Slow(0.0)
    with Server(of(ask, models, any_batch=False), max_batch=6, max_wait_ms=50) as server:
        assert sorted(ask.sizes) == [1, 2, 4, 6]  # before any request
        status, found, _ = server.ask("POST", "/predict", *form(*(("a.png", png()) for _ in range(5))))
        assert status == 200 and len(found["predictions"]) == 5 and set(ask.sizes) == {1, 2, 4, 6}


@pytest.mark.once
def test_large_batches_are_full_and_the_rest_wait(models):
    ask = Slow(0.0)
    with Server(of(ask, models, any_batch=False), max_batch=32) as server:
        before = len(ask.sizes)
        status, found, _ = server.ask("POST", "/predict", *form(*((f"{n}.png", png()) for n in range(17))))
        assert status == 200 and len(found["predictions"]) == 17 and ask.sizes[before:] == [16, 1]


@pytest.mark.once
def test_a_model_that_fails_is_said_and_the_next_is_answered(models, capfd):
    def fails_once(canvases, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 3:  # the first two warm it up
            raise RuntimeError("the device is gone")
        return np.zeros((len(canvases), 2))

    with Server(of(fails_once, models), max_batch=4) as server:
        status, found, _ = server.ask("POST", "/predict", png())
        assert status == 500 and found == {"error": "the server failed; its log says how"}
        said, deadline = "", time.monotonic() + 10
        while "the device is gone" not in said and time.monotonic() < deadline:  # it is logged after the answer
            said += capfd.readouterr().err
        assert "the device is gone" in said
        assert server.ask("POST", "/predict", png())[0] == 200


@pytest.mark.once
def test_a_model_that_cannot_warm_up_ends_the_server(models):
    def fails(canvases):
        raise MemoryError("8 GiB")

    (model,) = of(fails, models)
    config = ServeConfig(runs=("models",), port=0)
    with running.listen(config) as listener:
        assert running.run(config, [model], listener) == 1


@pytest.mark.once
def test_explanations_do_not_keep_predictions_waiting(models):
    def explain(canvas):
        time.sleep(0.2)
        return models[0].explain(canvas)

    with Server([models[0]._replace(explain=explain)], max_batch=2) as server, ThreadPoolExecutor(12) as pool:
        explained = [pool.submit(server.ask, "POST", "/explain", png()) for _ in range(10)]
        time.sleep(0.1)
        began = time.perf_counter()
        assert server.ask("POST", "/predict", png())[0] == 200
        assert time.perf_counter() - began < 1.5 and [each.result()[0] for each in explained] == [200] * 10


@pytest.mark.once
def test_names_of_models_differ(run_folder, tmp_path):
    folders = [tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "c" / "x-2"]
    for folder in folders:
        shutil.copytree(run_folder, folder)
    assert len({each.name for each in served.open_all(tuple(folders))}) == 3


@pytest.mark.once
def test_an_export_is_called_after_its_run_and_a_folder_after_itself(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "mine")
    folders = (run / "exports" / "onnx", tmp_path / "exports" / "other")
    assert [served._stem_of(folder) for folder in folders] == ["mine-onnx", "other"]


@pytest.mark.once
def test_a_run_without_validation_keeps_its_facts(dogs, tmp_path):
    data = DataConfig(dataset=str(dogs), validation_fraction=0.0)
    run = fine_tune(TrainConfig(data=data, output=tmp_path / "run", epochs=1, batch_size=4)).folder
    (model,) = served.open_all((run,))
    assert model.facts["preset"] == "resnet_nano" and model.facts["test_top1_accuracy"] >= 0


@pytest.mark.once
def test_those_who_have_gone_are_not_answered(models):
    ask = Slow(0.2)
    with Server(of(ask, models), max_batch=1, max_wait_ms=0, timeout=0.3) as server, ThreadPoolExecutor(8) as pool:
        ask.sizes.clear()
        statuses = [status for status, _, _ in pool.map(lambda _: server.ask("POST", "/predict", png()), range(8))]
        assert 504 in statuses and 200 in statuses
        time.sleep(0.5)
        assert len(ask.sizes) < 8


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "RUNS: none were given"),
        (["nowhere"], "nowhere"),
        (["run", "--port", "-1"], "--port"),
        (["run", "--max-batch", "0"], "--max-batch"),
        (["run", "--max-queue", "4"], "--max-queue"),
        (["run", "--timeout", "nan"], "--timeout"),
        (["run", "--host", "no such host"], "--host"),
    ],
)
def test_flags_that_cannot_be(command, run_folder, monkeypatch, flags, text):
    monkeypatch.chdir(run_folder.parent)
    status, _, err = command("serve", *flags)
    assert status == 2 and text in err.splitlines()[-1]


@pytest.mark.once
def test_a_port_in_use(command, run_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = command("serve", run_folder, "--port", port)
    assert status == 2 and f"--port {port}" in err and "in use" in err and err.count("\n") == 1


@pytest.mark.once
def test_the_command_ends_after_the_requests_in_hand(run_folder):
    """SIGTERM comes while requests are answered: those have their answers, and the status is 0."""
    command = [sys.executable, "-m", "keras_dogs.serve", str(run_folder), "--port", "0", "--max-wait-ms", "500"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    with killed_at_the_end(process), ThreadPoolExecutor(4) as pool:
        port = port_of(process)

        def ask(method, path, body=None):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.closing(connection):
                connection.request(method, path, body, {"content-type": "image/png"})
                return connection.getresponse().status

        deadline = time.monotonic() + 120
        is_ready = False
        while not is_ready and time.monotonic() < deadline:
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                is_ready = ask("GET", "/readyz") == 200
        assert is_ready
        waiting = [pool.submit(ask, "POST", "/predict", png()) for _ in range(4)]
        time.sleep(0.25)
        process.send_signal(signal.SIGTERM)
        assert [each.result() for each in waiting] == [200] * 4
        rest = process.stderr.read()
        assert process.wait(30) == 0 and "every request in hand was answered" in rest and "Traceback" not in rest


@pytest.mark.exports
def test_an_onnx_folder_is_served_without_keras(run_folder, dogs, tmp_path, command):
    needs("onnx")
    output = tmp_path / "onnx"
    exporting.export_run(ExportConfig(calibrated(run_folder, tmp_path / "dogs"), output=output))
    text = """
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("keras", "keras_hub", "jax", "tensorflow", "torch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from keras_dogs import serve
sys.exit(serve.main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", text, str(output), "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    with killed_at_the_end(process):
        port = port_of(process)
        picture = next((dogs / "test").rglob("*.png"))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", "/predict", picture.read_bytes(), {"content-type": "image/png"})
            found = json.loads(connection.getresponse().read())
        process.terminate()
        assert process.wait(30) == 0
    expected = json.loads(command("predict", tmp_path / "dogs", picture, "--json")[1])
    (said,) = found["predictions"]
    assert (
        said["breeds"] == pytest.approx(expected["breeds"], abs=1e-5) and said["unfamiliar"] is expected["unfamiliar"]
    )


@pytest.mark.long
@pytest.mark.once
def test_the_list_of_packages_is_enough(run_folder, tmp_path):
    """`deploy/requirements.txt` and the wheel alone open an ONNX folder and listen."""
    needs("onnx")
    output, root, place = tmp_path / "onnx", Path(__file__).parents[1], tmp_path / "venv"
    exporting.export_run(ExportConfig(run_folder, output=output))
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin" / "pip", "--quiet", "install", "--no-compile"]
    subprocess.run([*pip, "--requirement", root / "deploy" / "requirements.txt"], check=True)
    subprocess.run([*pip, "--no-deps", root], check=True)
    command = [place / "bin" / "python", "-m", "keras_dogs.serve", output, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with killed_at_the_end(process):
        assert port_of(process)


CHROMIUM = shutil.which("chromium")


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1400,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.once
def test_the_page(server, browser, tmp_path):
    """Drop a picture, read the breeds, see the heat: no error in the console, no request to another host."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    file = tmp_path / "dog.png"
    file.write_bytes(png(64))
    address = f"http://127.0.0.1:{server.port}/"
    browser.get(address)
    wait = WebDriverWait(browser, 20)
    wait.until(lambda page: "dogs knows 3 breeds" in page.find_element(By.ID, "models").text)
    script = """
const transfer = new DataTransfer();
transfer.items.add(new File([Uint8Array.from(arguments[0])], "dog.png", { type: "image/png" }));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: transfer }));
"""
    browser.execute_script(script, list(file.read_bytes()))
    wait.until(lambda page: page.find_element(By.TAG_NAME, "figcaption").text == "Grad-CAM")
    said = browser.find_element(By.ID, "answers").text
    assert "Unfamiliar" in said and "With 90 % probability" not in said  # that is of pictures like those of validation
    assert len(browser.find_elements(By.CSS_SELECTOR, "ol li")) == 3
    drawn = browser.execute_script(
        "const c = document.querySelector('canvas');"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(Boolean) && c.clientWidth"
    )
    assert drawn > 100
    browser.execute_script(script, list(b"no picture"))
    wait.until(lambda page: "not a picture" in page.find_element(By.ID, "error").text)
    # The refusal of what is no picture is a line of the browser's own.
    assert not [line for line in browser.get_log("browser") if "400 (Bad Request)" not in line["message"]]
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = {each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith((address, "blob:", "data:", "chrome:")) for url in asked) and len(asked) >= 4
