"""Steps and prompts of small models, timed for what they say of a device's parts."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.device.bench_child import TOKENIZER
from onhand.device.engines.base import Loaded
from onhand.device.engines.native import NativeEngine
from onhand.device.generate import generate_tokens
from onhand.device.text import Tokenizer, open_tokenizer
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.fitting import Timed, explained_s
from onhand.host.costs.products import decode_products, prompt_products_s
from onhand.host.costs.sizes import packed_bytes, read_matrices
from onhand.host.costs.synthetic import Sizes, make_bundle
from onhand.host.costs.work import prompt_work, step_work

__all__ = ["large_ratios", "measure_answers"]

# Small, deep, wide, and with many tokens: what tells the parts of a step apart.
_SAMPLES: Final = (
    Sizes(),
    Sizes(n_layers=12),
    Sizes(width=256, mlp_width=1024, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=64),
    Sizes(width=256, mlp_width=512, n_layers=2, n_heads=8, n_kv_heads=4, vocab_size=8192),
    Sizes(width=160, mlp_width=320, n_layers=4, n_heads=10, n_kv_heads=5, head_dim=16),
    Sizes(width=512, mlp_width=512, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=128),
    # Many small matrices, which a farther cache holds together and the nearest one by one.
    Sizes(width=128, mlp_width=384, n_layers=20, n_heads=4, n_kv_heads=2, head_dim=32),
)
_PROMPTS: Final = (16, 128, 448)
_ANSWER: Final = 48
_ROUNDS: Final = 3  # through all models: whatever slowed the device once is gone in another
_ANSWERS_S: Final = 0.06  # for answers to one prompt in a round
_MOST_ANSWERS: Final = 20
_UNDISTURBED: Final = 0.2  # of the steps of a round are as quick as this says, or quicker
_LARGE_RATIOS: Final = (0.2, 2.0)
_HALVINGS: Final = 12


@dataclass(slots=True, kw_only=True)
class _Model:
    """An open small model, and the quickest round of each of its prompts."""

    sizes: Sizes
    bundle: Bundle
    threads: int
    tokenizer: Tokenizer
    loaded: Loaded
    prompts: dict[int, float]
    steps: dict[int, float]


def measure_answers(
    bare: Calibration, scratch: Path, counts: Sequence[int]
) -> tuple[list[Timed], list[Timed]]:
    """Time steps and prompts of small models, undisturbed.

    Args:
        bare: products, as they were timed alone.
        scratch: a folder for the models.
        counts: numbers of threads.

    Returns:
        Steps of one token, and prompts.
    """
    bundles = [
        (sizes, make_bundle(sizes, scratch / f"step-{i}", tokens=sizes.vocab_size))
        for i, sizes in enumerate(_SAMPLES)
    ]
    models = [_opened(sizes, made, threads) for sizes, made in bundles for threads in counts]
    for _ in range(_ROUNDS):
        for model in models:
            for tokens in _PROMPTS:
                _answer(model, tokens, for_s=_ANSWERS_S)
    steps: list[Timed] = []
    prompts: list[Timed] = []
    for model in models:
        model.loaded.close()
        steps += [_timed_step(bare, model, tokens) for tokens in _PROMPTS]
        prompts += [_timed_prompt(bare, model, tokens) for tokens in _PROMPTS]
    return steps, prompts


def large_ratios(
    known: Calibration, sizes: Sizes, scratch: Path, counts: Sequence[int]
) -> Mapping[int, float]:
    """Return how fast a large model reads its weights, beside one matrix that is timed alone.

    Args:
        known: all that a step costs beside its products, and how fast that matrix was read.
        sizes: of the model.
        scratch: a folder for the bundle.
        counts: numbers of threads.

    Returns:
        Threads -> how many times as fast.
    """
    decoder, tokens = sizes.decoder, _PROMPTS[0]
    bundle = make_bundle(sizes, scratch / "large", tokens=sizes.vocab_size)
    formats = bundle.manifest.variants["sample"].matrices
    found = {}
    for threads in counts:
        model = _opened(sizes, bundle, threads)
        _answer(model, tokens, for_s=0.0, quantile=0.5)
        model.loaded.close()
        work = step_work(decoder, context=tokens + (_ANSWER + 1) / 2, threads=threads)
        beside_s = explained_s(known.step, work, threads=threads)
        slow, fast = _LARGE_RATIOS
        for _ in range(_HALVINGS):
            ratio = math.sqrt(slow * fast)
            at = known.at_memory({threads: ratio})
            costs = decode_products(at, decoder, formats, threads=threads).values()
            if beside_s + sum(one.seconds for one in costs) > model.steps[tokens]:
                slow = ratio
            else:
                fast = ratio
        found[threads] = fast
    return found


def _opened(sizes: Sizes, bundle: Bundle, threads: int) -> _Model:
    return _Model(
        sizes=sizes,
        bundle=bundle,
        threads=threads,
        tokenizer=open_tokenizer(bundle.path(TOKENIZER).read_bytes()),
        loaded=NativeEngine().open(bundle, variant="sample", threads=threads),
        prompts={},
        steps={},
    )


def _answer(model: _Model, tokens: int, *, for_s: float, quantile: float = _UNDISTURBED) -> None:
    """Answer one prompt again and again, and keep what was quicker than in rounds before."""
    now = time.perf_counter
    session = model.loaded.session()
    prompt = np.random.default_rng(0).integers(1, model.sizes.vocab_size, tokens)
    prompts: list[float] = []
    steps: list[float] = []
    begun = now()
    while len(prompts) < _MOST_ANSWERS and (len(prompts) < 3 or now() - begun < for_s):
        session.rewind(0)
        read = model.tokenizer.stream().push
        before = now()
        answer = generate_tokens(model.loaded, session, prompt, max_tokens=_ANSWER)
        for n, token in enumerate(answer):
            read(token)
            after = now()
            (steps if n else prompts).append(after - before)
            before = after
    for kept, seconds in ((model.prompts, prompts), (model.steps, steps)):
        found = float(np.quantile(seconds, quantile))
        kept[tokens] = min(found, kept.get(tokens, found))


def _timed_step(bare: Calibration, model: _Model, tokens: int) -> Timed:
    decoder, threads = model.sizes.decoder, model.threads
    formats = model.bundle.manifest.variants["sample"].matrices
    products = decode_products(bare, decoder, formats, threads=threads).values()
    read = read_matrices(decoder).items()
    return Timed(
        seconds=model.steps[tokens],
        products_s=sum(one.seconds for one in products),
        work=step_work(decoder, context=tokens + (_ANSWER + 1) / 2, threads=threads),
        threads=threads,
        weight_bytes=sum(packed_bytes(shape, formats[name]) for name, shape in read) / threads,
    )


def _timed_prompt(bare: Calibration, model: _Model, tokens: int) -> Timed:
    decoder, threads = model.sizes.decoder, model.threads
    formats = model.bundle.manifest.variants["sample"].matrices
    return Timed(
        seconds=model.prompts[tokens],
        products_s=prompt_products_s(bare, decoder, formats, tokens=tokens, threads=threads),
        work=prompt_work(decoder, tokens=tokens, threads=threads),
        threads=threads,
    )
