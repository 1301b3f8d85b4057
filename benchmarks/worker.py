"""One engine in one process: reads a job from each line, as JSON, does it, and prints what it took.

    python worker.py ENGINE FOLDER THREADS

ENGINE is `onhand:NAME` (an engine of ours), `onhand:NAME+int8` (its keys and values kept so),
`onhand:NAME+bf16` (prompts in bf16), `genai`, `llama`, `openvino`, or `llama:plain`: without
repacked weights, for machines where llama.cpp does not survive those for tile instructions (AMX).
The file imports nothing of the project unless ours is asked for, so that environments of peers can
run it. Jobs:

    {"answer": [PROMPT, TOKENS, SEED]}  answer a prompt greedily; another seed is another prompt,
                                        as some peers keep what they computed of one
    {"first": PROMPT}                 the seconds of opening and of the first token after a prompt;
                                      the first job of all
    {"verify": [CONTEXT, ROWS, RUNS]} read ROWS tokens at once behind a context (ours and llama)
    {"sessions": [N, PROMPT, TOKENS]} continue N prompts together (ours and llama)
    {"end": true}                     print the peak memory, and end
"""

import ctypes
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["main"]

IDS_BELOW = 40000  # ordinary tokens of the tokenizer that all models have
CHUNK = 512  # tokens of a context that are read at once


class Peer(Protocol):
    """What answers jobs."""

    def answer(self, n_prompt: int, n_answer: int, seed: int = 0) -> dict[str, float]:
        """Answer a prompt; return tokens per second. An answer of one token has no steps."""
        ...


class Ours:
    """A bundle in an engine of ours, by the path that generation takes, text included."""

    def __init__(self, engine: str, folder: Path, threads: int) -> None:
        from onhand.device.opening import open_bundle

        name, _, way = engine.partition("+")
        ways: Any = {"": {}, "int8": {"kv": "int8"}, "bf16": {"prefill": "bf16"}}[way]
        opened = open_bundle(folder, engine=name, threads=threads, **ways)
        self.loaded, self.tokenizer = opened.loaded, opened.files.tokenizer
        # Random weights answer with any id; those without a token are masked, as in use.
        self.forbidden = self.tokenizer.missing(self.loaded.vocab_size)

    def answer(self, n_prompt: int, n_answer: int, seed: int = 0) -> dict[str, float]:
        """See `Peer`."""
        from onhand.device.generate import generate_tokens

        session = self.loaded.session(context=n_prompt + n_answer)
        stream = self.tokenizer.stream()
        tokens = generate_tokens(
            self.loaded,
            session,
            prompt_ids(n_prompt, seed),
            max_tokens=n_answer,
            forbidden=self.forbidden,
        )
        start = time.perf_counter()
        stream.push(next(tokens))
        first = time.perf_counter()
        for token in tokens:
            stream.push(token)
        end = time.perf_counter()
        session.close()
        return figures(start, first, end, n_prompt, n_answer)

    def verify(self, context: int, rows: int, runs: int) -> list[float]:
        """Return the seconds of each step of `rows` tokens behind `context` others.

        One token is read and the next one chosen, as in generation; several are checked as
        drafted ones are. Both choose greedily.
        """
        from onhand.device.engines.choosing import step_check_of, step_sample_of
        from onhand.device.sampling import Sampler, Sampling

        session = self.loaded.session(context=context + rows)
        ids = prompt_ids(context + rows)
        for at in range(0, context, CHUNK):
            self.loaded.step([(session, ids[at : min(at + CHUNK, context)])])
        sampler = Sampler(Sampling(), forbidden=self.forbidden)
        sample, check = step_sample_of(self.loaded), step_check_of(self.loaded)

        def once() -> None:
            session.rewind(context)
            if rows == 1:
                sample([(session, ids[context:])], [sampler])
            else:
                check(session, ids[context:], sampler)

        seconds = timed(once, runs)
        session.close()
        return seconds

    def sessions(self, n: int, n_prompt: int, n_answer: int) -> dict[str, float]:
        """Continue n prompts together, each read by a thread of its own and made text."""
        import threading

        from onhand.device.batching import Batcher
        from onhand.device.engines.base import Session
        from onhand.device.schedule import Limits

        sessions = [self.loaded.session(context=n_prompt + n_answer) for _ in range(n)]
        prompts = session_ids(n, n_prompt)
        for session, ids in zip(sessions, prompts, strict=True):
            self.loaded.step([(session, ids[:-1])])
        batcher = Batcher(self.loaded, limits=Limits(max_active=n))
        waits: list[float] = []

        def read(session: Session, ids: np.ndarray) -> None:
            stream, last = self.tokenizer.stream(), time.perf_counter()
            for token in batcher.generate(
                session, ids[-1:], max_tokens=n_answer, seen=ids, forbidden=self.forbidden
            ):
                stream.push(token)
                waits.append(time.perf_counter() - last)
                last = time.perf_counter()

        readers = [
            threading.Thread(target=read, args=pair) for pair in zip(sessions, prompts, strict=True)
        ]
        start = time.perf_counter()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        end = time.perf_counter()
        batcher.close()
        for session in sessions:
            session.close()
        return together(waits, end - start)


class Genai:
    """A folder of onnxruntime-genai."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai

        self.library = onnxruntime_genai
        self.model = onnxruntime_genai.Model(str(folder))

    def answer(self, n_prompt: int, n_answer: int, seed: int = 0) -> dict[str, float]:
        """See `Peer`."""
        options = self.library.GeneratorParams(self.model)
        length = n_prompt + n_answer
        options.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = self.library.Generator(self.model, options)
        start = time.perf_counter()
        generator.append_tokens(prompt_ids(n_prompt, seed).astype(np.int32)[None, :])
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(n_answer - 1):
            generator.generate_next_token()
        return figures(start, first, time.perf_counter(), n_prompt, n_answer)


class Llama:
    """A GGUF file in llama.cpp, by its C interface: what Python costs there is left out."""

    def __init__(self, file: Path, threads: int, *, is_plain: bool = False) -> None:
        import llama_cpp

        self.api: Any = llama_cpp
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        how = llama_cpp.llama_model_default_params()
        how.use_extra_bufts = not is_plain
        model = llama_cpp.llama_model_load_from_file(str(file).encode(), how)
        options = llama_cpp.llama_context_default_params()
        # Room for more is made where it is needed: it is written to as it is made.
        options.n_ctx, options.n_batch, options.n_ubatch = 1024, CHUNK, CHUNK
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = 1
        self.model, self.options = model, options
        self.context = llama_cpp.llama_init_from_model(model, options)
        self.sampler = llama_cpp.llama_sampler_init_greedy()

    def answer(self, n_prompt: int, n_answer: int, seed: int = 0) -> dict[str, float]:
        """See `Peer`."""
        self._make_room(n_prompt + n_answer)
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        start = time.perf_counter()
        self._decode(prompt_ids(n_prompt, seed))
        token = self.api.llama_sampler_sample(self.sampler, self.context, -1)
        first = time.perf_counter()
        for _ in range(n_answer - 1):
            self._decode(np.array([token]))
            token = self.api.llama_sampler_sample(self.sampler, self.context, -1)
        return figures(start, first, time.perf_counter(), n_prompt, n_answer)

    def verify(self, context: int, rows: int, runs: int) -> list[float]:
        """Return the seconds of each scoring of `rows` tokens behind `context` others."""
        self._make_room(context + rows)
        memory = self.api.llama_get_memory(self.context)
        self.api.llama_memory_clear(memory, True)
        ids = prompt_ids(context + rows)
        for at in range(0, context, CHUNK):
            self._decode(ids[at : min(at + CHUNK, context)])
        batch = self.api.llama_batch_init(rows, 0, 1)
        batch.n_tokens = rows
        for i in range(rows):
            batch.token[i], batch.pos[i] = int(ids[context + i]), context + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1

        def once() -> None:
            self.api.llama_memory_seq_rm(memory, 0, context, -1)
            if self.api.llama_decode(self.context, batch):
                raise RuntimeError("llama.cpp: decoding failed")
            self.api.llama_get_logits(self.context)  # waits until they are there

        return timed(once, runs)

    def sessions(self, n: int, n_prompt: int, n_answer: int) -> dict[str, float]:
        """Continue n prompts together: a batch holds a token of each, as its server's slots do."""
        self.options.n_seq_max, before = n, (self.options.n_seq_max, self.options.n_ctx)
        # Each sequence has a memory of its own, which is faster here than one for all.
        self.options.n_ctx = n * (-(-(n_prompt + n_answer) // 256) * 256)
        context = self.api.llama_init_from_model(self.model, self.options)
        self.options.n_seq_max, self.options.n_ctx = before
        batch = self.api.llama_batch_init(max(n, CHUNK), 0, 1)

        def step(rows: list[tuple[int, int, int]], *, asked: bool) -> None:
            batch.n_tokens = len(rows)
            for i, (token, position, sequence) in enumerate(rows):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, asked
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            if self.api.llama_decode(context, batch):
                raise RuntimeError("llama.cpp: decoding failed")

        prompts = session_ids(n, n_prompt).tolist()
        for sequence, ids in enumerate(prompts):
            for at in range(0, n_prompt - 1, CHUNK):
                part = ids[at : min(at + CHUNK, n_prompt - 1)]
                step([(one, at + k, sequence) for k, one in enumerate(part)], asked=False)
        self.api.llama_synchronize(context)
        tokens = [ids[-1] for ids in prompts]
        waits = []
        start = time.perf_counter()
        for position in range(n_prompt - 1, n_prompt + n_answer - 1):
            begun = time.perf_counter()
            step([(token, position, i) for i, token in enumerate(tokens)], asked=True)
            tokens = [
                int(self.api.llama_sampler_sample(self.sampler, context, i)) for i in range(n)
            ]
            waits += [time.perf_counter() - begun] * n
        end = time.perf_counter()
        self.api.llama_batch_free(batch)
        self.api.llama_free(context)
        return together(waits, end - start)

    def _make_room(self, length: int) -> None:
        if length > self.options.n_ctx:
            self.api.llama_free(self.context)
            self.options.n_ctx = -(-length // 256) * 256
            self.context = self.api.llama_init_from_model(self.model, self.options)

    def _decode(self, ids: np.ndarray) -> None:
        tokens = (ctypes.c_int32 * len(ids))(*ids.tolist())
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError("llama.cpp: decoding failed")


class OpenVino:
    """A folder of openvino-genai, dynamic quantisation as fine as the weights' groups."""

    def __init__(self, folder: Path, threads: int) -> None:
        import openvino
        import openvino_genai

        self.library, self.tensor = openvino_genai, openvino.Tensor
        self.pipeline = openvino_genai.LLMPipeline(
            str(folder), "CPU", INFERENCE_NUM_THREADS=threads, DYNAMIC_QUANTIZATION_GROUP_SIZE=64
        )

    def answer(self, n_prompt: int, n_answer: int, seed: int = 0) -> dict[str, float]:
        """See `Peer`."""
        options = self.library.GenerationConfig(
            max_new_tokens=n_answer, ignore_eos=True, do_sample=False
        )
        ids = self.tensor(prompt_ids(n_prompt, seed)[None, :])
        mask = self.tensor(np.ones((1, n_prompt), dtype=np.int64))
        start = time.perf_counter()
        found = self.pipeline.generate(self.library.TokenizedInputs(ids, mask), options)
        metrics = found.perf_metrics
        first = end = start + metrics.get_ttft().mean / 1000
        if n_answer > 1:
            end += metrics.get_tpot().mean / 1000 * (n_answer - 1)
        return figures(start, first, end, n_prompt, n_answer)


def prompt_ids(length: int, seed: int = 0) -> np.ndarray:
    """Return (length,) random token ids, the same for every engine."""
    return _random_ids(seed, length)


def session_ids(n: int, length: int) -> np.ndarray:
    """Return (n, length) random token ids, the same for every engine."""
    return _random_ids(1, n * length).reshape(n, length)


def _random_ids(seed: int, n: int) -> np.ndarray:
    # numpy's own generators would take 2 MB of the memory that is measured here.
    drawn = random.Random(seed)  # noqa: S311 (prompts, no secrets)
    return np.array([drawn.randrange(1, IDS_BELOW) for _ in range(n)], dtype=np.int64)


def together(waits: list[float], seconds: float) -> dict[str, float]:
    """Return the tokens per second of all answers, and what the reader of one waits for each."""
    return {
        "tokens_per_s": len(waits) / seconds,
        "median_wait_s": statistics.median(waits),
        "longest_wait_s": max(waits),
    }


def figures(
    start: float, first: float, end: float, n_prompt: int, n_answer: int
) -> dict[str, float]:
    """Return tokens per second of a prompt, and of the steps of one token after it if there are."""
    found = {"prefill_tokens_per_s": n_prompt / (first - start)}
    if n_answer > 1:
        found["decode_tokens_per_s"] = (n_answer - 1) / (end - first)
    return found


def timed(once: Callable[[], None], runs: int) -> list[float]:
    """Return the seconds of each run, after one that is not counted."""
    once()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process, from Linux's high-water mark."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no high-water mark in /proc/self/status")


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _silent(_level: int, _text: bytes, _data: object) -> None:
    pass


def open_peer(name: str, folder: Path, threads: int) -> Any:
    """Open a model in the engine of a name."""
    if name.startswith("onhand:"):
        return Ours(name.removeprefix("onhand:"), folder, threads)
    if name.startswith("llama"):
        return Llama(folder, threads, is_plain=name == "llama:plain")
    return OpenVino(folder, threads) if name == "openvino" else Genai(folder)


def main() -> None:
    """Do the jobs of the standard input until "end"."""
    opened = time.perf_counter()
    peer = open_peer(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    opened = time.perf_counter() - opened
    for line in sys.stdin:
        job = json.loads(line)
        if "end" in job:
            print(json.dumps({"peak_memory_bytes": peak_memory_bytes(), "open_s": opened}))
            return
        if "sessions" in job:
            print(json.dumps(peer.sessions(*job["sessions"])))
        elif "first" in job:
            start = time.perf_counter()
            peer.answer(job["first"], 1)
            print(json.dumps({"first_token_s": opened + time.perf_counter() - start}))
        elif "verify" in job:
            seconds = peer.verify(*job["verify"])
            print(json.dumps({"median_s": statistics.median(seconds), "samples": seconds}))
        else:
            busy = time.process_time()
            found = peer.answer(*job["answer"])
            print(json.dumps(found | {"cpu_s": time.process_time() - busy}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
