"""What the server carries: `python benchmarks/serving.py --run RUN --pictures FOLDER --backends jax tensorflow torch`.

The server and 32 clients of it share this machine. A row a backend: pictures a second of `predict` on the same
pictures, of the server with batches and without, and of a single client; what happens under four times that load for a
minute; and memory over 20,000 requests. Every answer is compared with `predict`'s. `--turns 3` measures the ratio to
`predict` alone, in turns.
"""

import argparse
import asyncio
import csv
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import runs
from predicting import fill
from predicting import pictures_in

CLIENTS, SECONDS, OVERLOAD_SECONDS, REQUESTS = 32, 15, 60, 20_000
CONNECTIONS = 400  # in overload: more than the server takes pictures in hand


def main():
    """Measures a row for each backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="over which memory is watched")
    parser.add_argument("--predicted", type=int, default=2000, help="pictures of which `predict` names the rate")
    parser.add_argument("--turns", type=int, help="measure the ratio to `predict` alone, so often")
    flags = parser.parse_args()
    if flags.turns:
        rows = [in_turns(backend, flags) for backend in flags.backends]
        return runs.write("serving_ratio", rows, line=json.dumps, key=("model", "backend"))
    rows = [measure(backend, flags) for backend in flags.backends]
    runs.write("serving", rows, line=in_words, key=("model", "backend"))


def measure(backend: str, flags) -> dict:
    """Returns the row of a backend."""
    print(f"\n{backend}", flush=True)
    row = {"model": runs.RunRecord.load(flags.run / "record.json").preset.rpartition("/")[2], "backend": backend}
    with tempfile.TemporaryDirectory() as work:
        rate, answers = predict(backend, flags, Path(work))
    row["predict_images_per_second"] = rate
    with Server(backend, flags.run, "--max-batch", "1") as server:
        row["single"] = asyncio.run(steady(server, answers, CLIENTS))
    with Server(backend, flags.run) as server:
        row["one_client"] = asyncio.run(steady(server, answers, 1))
        row["steady"] = asyncio.run(steady(server, answers, CLIENTS))
        row["overload"] = asyncio.run(overload(server, answers, 4 * row["steady"]["images_per_second"]))
        row["memory"] = asyncio.run(memory(server, answers, flags.requests))
    row["of_predict"] = row["steady"]["images_per_second"] / rate
    row["gain_of_batches"] = row["steady"]["images_per_second"] / row["single"]["images_per_second"]
    return row


def in_turns(backend: str, flags) -> dict:
    """Returns the row of a backend: the rate of the server as a part of `predict`'s, measured in turns."""
    row = {"model": runs.RunRecord.load(flags.run / "record.json").preset.rpartition("/")[2], "backend": backend}
    row |= {"turns": [], "wrong": 0}
    for _ in range(flags.turns):
        with tempfile.TemporaryDirectory() as work:
            rate, answers = predict(backend, flags, Path(work))
        with Server(backend, flags.run) as server:
            found = asyncio.run(steady(server, answers, CLIENTS))
        row["turns"].append({"predict": rate, "server": found["images_per_second"], "p99_ms": found["p99_ms"]})
        row["wrong"] += found["wrong"] + sum(count for status, count in found["statuses"].items() if status != "200")
    return {**row, "ratio": runs.spread([turn["server"] / turn["predict"] for turn in row["turns"]])}


def predict(backend: str, flags, work: Path) -> tuple[float, dict]:
    """Returns pictures a second of the command, loading left out, and each picture's bytes with its answer."""
    many = fill(work / "many", flags.pictures, flags.predicted)
    table = work / "answers.csv"
    done = subprocess.run(
        [sys.executable, "-m", "keras_dogs.predict", str(flags.run), str(many), "--csv", str(table)],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        capture_output=True,
        text=True,
    )
    rate = float(re.search(r"\(([\d.,]+) a second\)", done.stderr)[1].replace(",", ""))
    with table.open(newline="") as opened:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(opened)}
    found = {}
    for number, picture in enumerate(pictures_in(flags.pictures)[:200]):
        said = rows[f"{number:05d}{picture.suffix}"]
        found[picture.read_bytes()] = said["breed_1"], float(said["probability_1"])
    return rate, found


class Server:
    """The command, ready to answer; a context manager."""

    def __init__(self, backend: str, run: Path, *given: str):
        self._log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_dogs.serve", str(run), "--port", "0", *given],
            env={**os.environ, "KERAS_BACKEND": backend},
            stderr=self._log,
        )
        self.port = None

    def __enter__(self):
        while self.port is None or not asyncio.run(self._is_ready()):
            time.sleep(0.2)
            self._log.seek(0)
            found = re.search(r"127\.0\.0\.1:(\d+)", self._log.read())
            self.port = int(found[1]) if found else None
            if self.process.poll() is not None:
                raise SystemExit("the server ended")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._log.seek(0)
        said = self._log.read()
        if status or "Traceback" in said:
            raise SystemExit(f"the server ended with {status}: {said[-2000:]}")

    async def _is_ready(self) -> bool:
        connection = Connection(self.port)
        status, _ = await connection.ask(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
        connection.close()
        return status == 200

    @property
    def resident_mib(self) -> float:
        """What the process has in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


class Connection:
    """A connection that is kept."""

    def __init__(self, port: int):
        self.port, self.streams = port, None

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        """Sends a request; returns status and body."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        return int(head.split(b" ")[1]), await reader.readexactly(length)

    def close(self):
        """Ends it."""
        if self.streams:
            self.streams[1].close()


class Tally:
    """Statuses, times and wrong answers."""

    def __init__(self, answers: dict):
        self.pictures = list(answers.items())
        self.numbers = itertools.count()
        self.statuses, self.seconds, self.wrong = {}, [], 0

    async def ask(self, connection: Connection) -> None:
        """Sends the next picture and notes what comes."""
        picture, (name, probability) = self.pictures[next(self.numbers) % len(self.pictures)]
        head = (
            "POST /predict?top_k=1 HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n"
            f"content-length: {len(picture)}\r\n\r\n"
        )
        began = time.perf_counter()
        status, body = await connection.ask(head.encode() + picture)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 200:
            self.seconds.append(time.perf_counter() - began)
            ((said, share),) = json.loads(body)["predictions"][0]["breeds"].items()
            self.wrong += said != name or abs(share - probability) > 1e-4

    def to_row(self, seconds: float) -> dict:
        """Returns what was found in so many seconds."""
        p50, p99 = np.percentile(self.seconds, (50, 99))
        return {
            "images_per_second": self.statuses.get(200, 0) / seconds,
            "p50_ms": 1000 * float(p50),
            "p99_ms": 1000 * float(p99),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "wrong": self.wrong,
        }


async def steady(server: Server, answers: dict, clients: int) -> dict:
    """Has each client send a picture when it has the answer to the one before."""
    tally, began = Tally(answers), time.perf_counter()

    async def client():
        connection = Connection(server.port)
        while time.perf_counter() - began < SECONDS:
            await tally.ask(connection)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally.to_row(time.perf_counter() - began)


async def overload(server: Server, answers: dict, rate: float) -> dict:
    """Has `CONNECTIONS` clients send so many pictures a second, or as many as they can, whatever comes back."""
    tally, began, sent, broken = Tally(answers), time.perf_counter(), 0, 0

    async def client():
        nonlocal sent, broken
        connection = Connection(server.port)
        while (now := time.perf_counter() - began) < OVERLOAD_SECONDS:
            if sent > now * rate:
                await asyncio.sleep(0.01)
                continue
            sent += 1
            for try_ in range(2):  # a connection that was idle may have been closed: every client tries again
                try:
                    await tally.ask(connection)
                    break
                except (OSError, asyncio.IncompleteReadError):
                    broken += try_
                    connection = Connection(server.port)
        connection.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return {**tally.to_row(time.perf_counter() - began), "sent_per_second": sent / OVERLOAD_SECONDS, "lost": broken}


async def memory(server: Server, answers: dict, requests: int) -> dict:
    """Watches the memory of the server, from a tenth of the requests to the last."""
    tally, sizes = Tally(answers), []

    async def client(count: int):
        connection = Connection(server.port)
        for _ in range(count):
            await tally.ask(connection)
        connection.close()

    for _ in range(10):
        await asyncio.gather(*(client(requests // 10 // CLIENTS) for _ in range(CLIENTS)))
        sizes.append(server.resident_mib)
    found = {"requests": sum(tally.statuses.values()), "statuses": tally.statuses, "wrong": tally.wrong}
    return {**found, "resident_mib": sizes, "growth": sizes[-1] / sizes[0] - 1}


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    steady, overload = row["steady"], row["overload"]
    return (
        f"{steady['images_per_second']:.0f} images/s, {row['of_predict']:.2f} of predict, "
        f"{row['gain_of_batches']:.2f} times single ones, p99 {steady['p99_ms']:.0f} ms; overload: "
        f"{overload['statuses']}, {overload['wrong']} wrong, {overload['lost']} lost, p99 {overload['p99_ms']:.0f} ms; "
        f"memory {row['memory']['growth']:+.1%}"
    )


if __name__ == "__main__":
    main()
