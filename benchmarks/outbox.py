"""The network cut for a while: every deferred request arrives once, in order, and is answered.

    python -m benchmarks.outbox [--cut 60] [--rate 2] [--no-kill] [--json] [--out FILE.json]

A server process of `onhand serve` without a model of its own, a client over loopback, and a cloud
that is a mock, as the network to it has to be cut: its port is closed and its connections are
broken while an answer is on its way. Requests come before, in and after the cut at a steady rate,
all with `x-defer: allow`. In the middle of the cut, and again while what was deferred is being
sent, the server is killed with SIGKILL and started again, unless --no-kill is given.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.outbox_cloud import Cloud

__all__ = ["judged", "main"]

BEFORE_S = AFTER_S = 3.0
ANSWER_S = 0.2
LATEST_S = 120.0  # after the network is back
SETTINGS = """
[server]
port = 0
drain_s = 2

[balance]
failures = 3
eject_s = 0.5
most_eject_s = 2.0

[[backend]]
name = "cloud"
url = "http://127.0.0.1:{port}/v1"
serves = ["far"]
connect_s = 2
first_s = 10

[outbox]
poll_s = 0.5
first_s = 0.5
most_s = 2.0
"""


@dataclass
class Device:
    """A server process; it may be killed and started again."""

    folder: Path
    process: "subprocess.Popen[str] | None" = None
    url: str = ""

    def start(self) -> None:
        """Start it, and wait until it takes requests."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "onhand",
                    "serve",
                    "--open",
                    "--config",
                    self.folder / "serve.toml",
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "ONHAND_HOME": str(self.folder / "home")},
            )
        if self.process.stdout is None:
            raise RuntimeError("a server has pipes")
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            self.process.wait()
            raise RuntimeError(f"the server ended: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """End it at once, as a loss of power does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Course:
    """What the client was told.

    Attributes:
        direct: texts that were answered at once -> their answer.
        deferred: ids of requests, in the order in which they were accepted -> their text.
        refused: texts that were neither.
    """

    direct: dict[str, str] = field(default_factory=dict)
    deferred: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def main() -> None:
    """Run the benchmark and print figures, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cut", type=float, default=60.0, help="seconds")
    parser.add_argument("--rate", type=float, default=2.0, help="requests of a second")
    parser.add_argument("--no-kill", action="store_true", help="let the server live")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Cloud(ANSWER_S) as cloud:
        device = Device(Path(folder))
        (device.folder / "serve.toml").write_text(SETTINGS.format(port=cloud.port))
        device.start()
        try:
            found = tried(device, cloud, cut_s=given.cut, rate=given.rate, kills=not given.no_kill)
        finally:
            device.kill()
    command = f"python -m benchmarks.outbox --cut {given.cut:g} --rate {given.rate:g}"
    result = {"command": command + (" --no-kill" if given.no_kill else ""), **found}
    if given.json:
        sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")
    else:
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in result.items()))
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def tried(
    device: Device, cloud: Cloud, *, cut_s: float, rate: float, kills: bool
) -> Mapping[str, object]:
    """Ask before, in and after a cut; return what came of it."""
    course = Course()
    begun_s = time.monotonic()
    cut_at_s, back_at_s = begun_s + BEFORE_S, begun_s + BEFORE_S + cut_s
    until_s = back_at_s + AFTER_S
    due = [(cut_at_s, "cut"), (back_at_s, "restore")]
    if kills:
        due += [((cut_at_s + back_at_s) / 2, "kill"), (back_at_s + 0.1, "kill when some were sent")]
    due.sort()
    number = n_back = 0
    next_s = begun_s
    while due or time.monotonic() < until_s:
        if due and time.monotonic() >= due[0][0]:
            what = due[0][1]
            if what == "restore":
                n_back = len(cloud.arrivals)
            if what != "kill when some were sent" or len(cloud.arrivals) >= n_back + 3:
                due.pop(0)
                _do(what, device, cloud)
        if time.monotonic() >= next_s:
            ask(device, f"question {number}", course)
            number += 1
            next_s = max(next_s + 1 / rate, time.monotonic())
        time.sleep(0.01)
    answers = fetched(device, course, until_s=time.monotonic() + LATEST_S)
    done_s = time.monotonic() - back_at_s
    counts = judged(course, cloud.arrivals, cloud.answered, answers)
    return {
        **counts,
        "cut_s": cut_s,
        "kills": 2 if kills else 0,
        "requests": number,
        "all_answered_after_return_s": done_s,
    }


def _do(what: str, device: Device, cloud: Cloud) -> None:
    if what == "cut":
        cloud.cut_next()
    elif what == "restore":
        cloud.restore()
    else:
        device.kill()
        device.start()


def ask(device: Device, text: str, course: Course) -> None:
    """Ask one thing, which may be answered later."""
    reply = httpx2.post(
        f"{device.url}/chat/completions",
        json={"model": "far", "messages": [{"role": "user", "content": text}]},
        headers={"x-defer": "allow", "idempotency-key": f"key of {text}"},
        timeout=30,
    )
    if reply.status_code == 200:
        course.direct[text] = _text(reply.json())
    elif reply.status_code == 202:
        course.deferred[reply.json()["id"]] = text
    else:
        course.refused.append(text)


def fetched(device: Device, course: Course, *, until_s: float) -> Mapping[str, str]:
    """Wait for all answers; return id -> answer of those that came."""
    answers: dict[str, str] = {}
    with httpx2.Client(base_url=device.url) as client:
        while len(answers) < len(course.deferred) and time.monotonic() < until_s:
            for name in course.deferred:
                if name not in answers:
                    found = client.get(f"outbox/{name}").json()
                    if found["state"] == "done":
                        answers[name] = _text(found["response"])
            time.sleep(0.1)
    return answers


def judged(
    course: Course,
    arrivals: Sequence[tuple[str, str]],
    answered: Sequence[str],
    answers: Mapping[str, str],
) -> Mapping[str, object]:
    """Return what came of it, in numbers.

    Args:
        course: what the client was told.
        arrivals: text and key of all requests that reached the cloud.
        answered: keys whose answers the cloud computed.
        answers: id -> answer, of deferred requests.
    """
    order = [key for key in answered if key in course.deferred]
    keys_of: dict[str, set[str]] = {}
    for text, key in arrivals:
        keys_of.setdefault(text, set()).add(key)
    deferred = list(course.deferred)
    return {
        "answered_at_once": len(course.direct),
        "deferred": len(deferred),
        "refused": len(course.refused),
        "deferred_computed": len(order),
        "each_computed_once": sorted(order) == sorted(deferred),
        "in_order": order == deferred,
        "right_answers_fetched": sum(
            answers.get(name) == f"answer to {text}" for name, text in course.deferred.items()
        ),
        # What was tried at once and lost its answer is asked again as a deferred request.
        "asked_under_two_keys": sum(len(keys) > 1 for keys in keys_of.values()),
        "sent_again_under_the_same_key": len(arrivals) - len(set(arrivals)),
    }


def _text(answer: Mapping[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
