"""Train the house assistant on commands drawn from the grammar, none of them seen twice."""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from examples.house_assistant.actions import Example
from examples.house_assistant.generate import SYSTEMS, conversation, examples
from examples.house_assistant.muon import Muon
from examples.house_assistant.network import Llama, Shape, export_weights, load_weights
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

__all__ = ["batch", "exact_match", "main"]

_USER, _ASSISTANT, _END = 3, 4, 5

# Tokens in one step: 16 rows of 256, and now and then fewer, longer conversations.
STEP_TOKENS = 4096
ROW_LENGTH = 256
ROW_LENGTHS = {ROW_LENGTH: 0.93, 1024: 0.04, 4096: 0.03}
# Long conversations cost the most time, so they come once short ones are mostly understood.
LONG_ROWS_FROM = 0.6

# Every token of an answer is learnt from, and as many of the others as fill this share of a row,
# which count less: the model then knows the language, and little time goes into what is not asked.
LEARNT_SHARE = 0.6
COMMAND_WEIGHT = 0.05


@dataclass(slots=True)
class Batch:
    """Rows of conversation.

    Attributes:
        tokens: (B, T) int64.
        places: (S,) int64, where the S tokens that are learnt from stand among the B * T.
        targets: (S,) int64, the token after each of those.
        weights: (S,) float32, how much each of them counts.
    """

    tokens: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor


def batch(tokenizer: Tokenizer, *, seed: int, length: int, n_rows: int) -> Batch:
    """Draw conversations and cut them to one length.

    Args:
        tokenizer: the model's.
        seed: the same seed gives the same rows.
        length: T, tokens in a row.
        n_rows: B.
    """
    rng = random.Random(f"rows {seed}")
    source = examples(seed, "train")
    rows = []
    for _ in range(n_rows):
        row: list[int] = []
        while len(row) <= length:
            # Some commands answer earlier ones in a conversation, many begin a new one.
            count = 60 if length > ROW_LENGTH else rng.choice((1, 2, 4, 6))
            pairs = ((one.command, one.answer) for one in islice(source, count))
            system = rng.choice(SYSTEMS) if rng.random() < 0.08 else None
            text = conversation(pairs, system=system)
            if row and length > ROW_LENGTH:
                text = text.split("<|user|>", 1)[1]
                text = "<|user|>" + text
            row += tokenizer.encode(text, add_special_tokens=False).ids
        rows.append(row[: length + 1])
    whole = torch.tensor(rows)  # (B, T + 1)
    tokens, targets = whole[:, :-1], whole[:, 1:]
    answers = _answers(tokens).flatten()  # (B * T,)
    order = answers + 0.5 * torch.rand(answers.shape, generator=torch.Generator().manual_seed(seed))
    places = order.topk(int(LEARNT_SHARE * answers.numel())).indices  # (S,)
    weights = torch.where(answers[places] > 0, 1.0, COMMAND_WEIGHT)
    return Batch(tokens.contiguous(), places, targets.flatten()[places], weights)


def _answers(tokens: Tensor) -> Tensor:
    """Mark with 1 the tokens after which an answer goes on, (B, T)."""
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    begun = torch.where(tokens == _ASSISTANT, place, -1).cummax(dim=1).values
    ended = torch.where(tokens == _END, place, -1).cummax(dim=1).values
    return (begun > ended).float()


def exact_match(model: Llama, tokenizer: Tokenizer, held: Sequence[Example]) -> list[bool]:
    """Say for each example whether greedy decoding writes exactly the right answer.

    Greedy decoding follows the right answer as long as each of its tokens is the likeliest one,
    so one pass over command and answer tells, without decoding.

    Args:
        model: the network.
        tokenizer: its tokenizer.
        held: what to answer, each in a conversation of its own.
    """
    right = []
    for start in range(0, len(held), 64):
        part = held[start : start + 64]
        encoded = [
            tokenizer.encode(
                conversation([(one.command, one.answer)]), add_special_tokens=False
            ).ids
            for one in part
        ]
        longest = max(map(len, encoded))
        tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids in encoded])  # (B, T)
        with torch.no_grad():
            guesses = model(tokens).argmax(dim=-1)
        for ids, guess in zip(encoded, guesses.tolist(), strict=True):
            begin = ids.index(_ASSISTANT)
            right.append(guess[begin : len(ids) - 1] == ids[begin + 1 :])
    return right


# The embeddings and norms learn at a multiple of the matrices' rate.
EMBEDDING_SHARE = 4.0


def _optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Give matrices inside the blocks to Muon, everything else to AdamW.

    Each group's `share` is what it takes of the learning rate.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    return [
        Muon(matrices, lr=0.0),
        torch.optim.AdamW(
            [{"params": others, "share": EMBEDDING_SHARE}],
            lr=0.0,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        ),
    ]


def _rate(progress: float) -> float:
    """Warm up over the first hundredth, then fall along a cosine to a fiftieth."""
    if progress < 0.01:
        return progress / 0.01
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _loss(model: Llama, tokens: Tensor, places: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of the next token, in nats per answer token."""
    with torch.autocast("cpu", torch.bfloat16):
        stream = model.stream(tokens).flatten(0, 1)[places]  # (S, D)
        logits = functional.linear(stream, model.embed_tokens.weight)  # (S, V)
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def _lengths(seed: int) -> Iterator[int]:
    rng = random.Random(f"lengths {seed}")
    while True:
        yield rng.choices(list(ROW_LENGTHS), list(ROW_LENGTHS.values()))[0]


def main() -> None:
    """Train, show progress, keep checkpoints, and export the model directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the model directory, with its tokenizer")
    parser.add_argument("--checkpoint", type=Path, required=True, help="file to save and resume")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--start", type=Path, help="a model directory whose weights to train on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=float, default=6.0, help="minutes")
    _train(parser.parse_args())


@dataclass(slots=True)
class _Run:
    """A training run: what a checkpoint keeps."""

    model: Llama
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    spent_s: float = 0.0
    n_tokens: int = 0

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.spent_s = saved["step"], saved["spent_s"]
        self.n_tokens = saved["n_tokens"]

    def save(self, checkpoint: Path) -> None:
        """Write a checkpoint beside its place and rename it over the last one."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "spent_s": self.spent_s,
            "n_tokens": self.n_tokens,
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    def update(self, loss: Tensor, *, rate: float) -> None:
        """Step along the gradient of a loss."""
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            optimizer.step()
            optimizer.zero_grad()


def _train(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    tokenizer = Tokenizer.from_file(str(given.folder / "tokenizer.json"))
    model = Llama(Shape(vocabulary=tokenizer.get_vocab_size()))
    if given.start is not None:
        load_weights(model, given.start)
    run = _Run(model, _optimizers(model))
    if given.checkpoint.exists():
        run.resume(given.checkpoint)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {run.step}")
    limit_s = given.minutes * 60
    fresh = list(islice(examples(10_000_019, "train"), 512))
    lengths = _lengths(given.seed + run.step)
    saved_at = begun = time.monotonic()
    before_s = run.spent_s
    mean: float | None = None
    compiled = torch.compile(_loss, dynamic=False)
    while run.spent_s < limit_s:
        length = next(lengths) if run.spent_s > LONG_ROWS_FROM * limit_s else ROW_LENGTH
        seed = given.seed * 1_000_000_007 + run.step
        rows = batch(tokenizer, seed=seed, length=length, n_rows=STEP_TOKENS // length)
        loss = compiled(model, rows.tokens, rows.places, rows.targets, rows.weights)
        run.update(loss, rate=given.rate * _rate(run.spent_s / limit_s))
        run.step, run.n_tokens = run.step + 1, run.n_tokens + STEP_TOKENS
        run.spent_s = before_s + time.monotonic() - begun
        mean = loss.item() if mean is None else 0.97 * mean + 0.03 * loss.item()
        if run.step % 25 == 0:
            print(
                f"step {run.step}  loss {mean:.4f}  {run.n_tokens / 1e6:.2f} M tokens  "
                f"{run.n_tokens / run.spent_s:,.0f} tokens/s  "
                f"{(limit_s - run.spent_s) / 60:.1f} minutes left",
                flush=True,
            )
        if time.monotonic() - saved_at > given.save_every * 60 or run.spent_s >= limit_s:
            saved_at = time.monotonic()
            right = exact_match(model, tokenizer, fresh)
            share = sum(right) / len(right)
            print(f"step {run.step}  fresh training commands right: {share:.2%}", flush=True)
            run.save(given.checkpoint)
            export_weights(model, given.folder)


if __name__ == "__main__":
    main()
