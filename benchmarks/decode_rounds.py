"""What `benchmarks.decode` measures: answers, first tokens, and what rows and context cost."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmarks.decode_models import LLAMA, OURS, Models, say
from benchmarks.processes import Worker, half_busy
from onhand.device.energy import choose_meter, estimate_j
from onhand.device.probe import current_profile, default_buffer_bytes, sample_read_bandwidth

__all__ = ["ROWS", "SPEEDS", "Samples", "answers", "curves", "first_tokens", "fitting"]

PROMPT_TOKENS, ANSWER_TOKENS, FIRST_PROMPT_TOKENS = 512, 128, 32
ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
RUNS = 9  # of each point of a curve
SPEEDS = ("decode_tokens_per_s", "prefill_tokens_per_s")
Samples = dict[str, dict[str, list[float]]]  # engine -> figure -> one value for each round


class _Joules:
    """Counts what a worker's job takes, in joules, as `onhand bench` does for its own process.

    With a counter of the processor, that is all that it counts meanwhile; else an estimate from
    the CPU seconds of the worker's process, by one formula for every engine.
    """

    def __init__(self) -> None:
        self._profile = current_profile()
        self._meter = choose_meter(self._profile)

    def answer(self, worker: Worker, job: Sequence[int]) -> tuple[dict[str, Any], float]:
        """Let a prompt be answered; return what the worker found, and joules."""
        before = self._meter.read_j()
        found = worker.ask(answer=job)
        if self._meter.estimated:
            return found, estimate_j(self._profile, cpu_s=found["cpu_s"])
        return found, self._meter.read_j() - before

    def to_json(self) -> dict[str, str]:
        """Return where the joules come from, and how."""
        source = "estimate" if self._meter.estimated else "counter"
        return {"source": source, "how": self._meter.how}


def answers(models: Models, *, n_rounds: int, threads: int, disturb: bool) -> dict[str, Any]:
    """Let the engines answer in turn, each in a process that lives through all rounds.

    A round before the others warms up. The energy of decoding is that of an answer less that of
    the prompt and its first token alone, and counted in undisturbed rounds.

    Args:
        models: by the engine's name.
        n_rounds: rounds that count.
        threads: of one step.
        disturb: do each round again while other processes keep half of the cores busy.

    Returns:
        `samples` and, where asked, `disturbed`, see `Samples`: speeds in tokens per second, and
        of the former `energy_j_per_token`. `energy` (its source), `read_bandwidth` (bytes per
        second), and `peak_memory_bytes` and `open_s` (seconds) of each engine.
    """
    quiet: Samples = {}
    disturbed: Samples = {}
    bandwidth: list[float] = []
    joules = _Joules()
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(model.start(threads)) for name, model in models.items()
        }
        for number in range(n_rounds + 1):
            bandwidth += sample_read_bandwidth(threads, buffer_bytes=default_buffer_bytes(), runs=2)
            say(f"round {number} of {n_rounds}")
            # Every prompt is another one: some engines keep what they computed of it.
            _quiet_round(workers, 3 * number, joules, quiet if number else {})
            if disturb and number:
                with half_busy():
                    _speeds(workers, 3 * number + 2, disturbed)
        ends = {name: worker.close() for name, worker in workers.items()}
    return ({"disturbed": disturbed} if disturb else {}) | {
        "samples": quiet,
        "energy": joules.to_json(),
        "read_bandwidth": bandwidth,
        "peak_memory_bytes": {name: end["peak_memory_bytes"] for name, end in ends.items()},
        "open_s": {name: end["open_s"] for name, end in ends.items()},
    }


def first_tokens(models: Models, *, n_rounds: int, threads: int) -> dict[str, list[float]]:
    """Open each model in a fresh process in each round, up to its first token.

    The seconds run from where the worker starts to open the model. In them: the imports of the
    engine's libraries, reading and packing the weights, and answering a prompt of 32 tokens with
    one; ours checks every file of the bundle and opens its tokenizer too, as `onhand run` does.
    Not in them: starting the interpreter, with numpy, which all engines need. The files are in
    the page cache: a round before the others reads them.

    Args:
        models: by the engine's name.
        n_rounds: rounds that count.
        threads: of one step.

    Returns:
        Seconds, for each engine one value for each round.
    """
    samples: dict[str, list[float]] = {name: [] for name in models}
    for number in range(n_rounds + 1):
        say(f"first token {number} of {n_rounds}")
        for name, model in models.items():
            with model.start(threads) as worker:
                seconds = worker.ask(first=FIRST_PROMPT_TOKENS)["first_token_s"]
            if number:
                samples[name].append(seconds)
    return samples


def curves(models: Models, *, contexts: Sequence[int], threads: int) -> dict[str, Any]:
    """Time one step of several rows, and of one row behind several lengths of context.

    Ours reads one token and chooses the next, or checks drafted ones, as in generation; once more
    with keys and values of 8 bits, where context is concerned. llama.cpp scores each row.

    Args:
        models: by the engine's name; ours and llama.cpp are timed, in turn at each point.
        contexts: tokens before the step; see `fitting`.
        threads: of one step.

    Returns:
        `rows` and `contexts`: for each engine and number the seconds of each run.
    """
    chosen = {name: models[name] for name in (OURS, LLAMA) if name in models}
    chosen[f"{OURS}+int8"] = replace(models[OURS], engine=f"{OURS}+int8")
    rows: dict[str, dict[int, list[float]]] = {}
    behind: dict[str, dict[int, list[float]]] = {}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(model.start(threads)) for name, model in chosen.items()
        }
        for n in ROWS:
            say(f"steps of {n} rows")
            for name in (name for name in workers if name in models):
                found = workers[name].ask(verify=[PROMPT_TOKENS, n, RUNS])
                rows.setdefault(name, {})[n] = found["samples"]
        for context in contexts:
            say(f"steps behind {context} tokens")
            for name, worker in workers.items():
                found = worker.ask(verify=[context, 1, RUNS])
                behind.setdefault(name, {})[context] = found["samples"]
    return {"rows": rows, "contexts": behind}


def fitting(contexts: Sequence[int], limit: int) -> list[int]:
    """Return those lengths behind which a model of `limit` tokens has room for another one."""
    return [n for n in contexts if n < limit]


def _quiet_round(workers: dict[str, Worker], seed: int, joules: _Joules, samples: Samples) -> None:
    for name, worker in workers.items():
        found, whole = joules.answer(worker, [PROMPT_TOKENS, ANSWER_TOKENS, seed])
        _, prompt = joules.answer(worker, [PROMPT_TOKENS, 1, seed + 1])
        _add(samples, name, found)
        per_token = (whole - prompt) / (ANSWER_TOKENS - 1)
        samples[name].setdefault("energy_j_per_token", []).append(per_token)


def _speeds(workers: dict[str, Worker], seed: int, samples: Samples) -> None:
    for name, worker in workers.items():
        _add(samples, name, worker.ask(answer=[PROMPT_TOKENS, ANSWER_TOKENS, seed]))


def _add(samples: Samples, name: str, found: dict[str, Any]) -> None:
    for figure in SPEEDS:
        samples.setdefault(name, {}).setdefault(figure, []).append(found[figure])
