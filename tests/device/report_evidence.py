"""What newer reports hold beside their figures, made by hand for tests of reading and drawing."""

from typing import Any

__all__ = ["evidence"]


def figure(name: str, value: float, unit: str = "s", **more: Any) -> dict[str, Any]:
    """One measurement as a report holds it."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "samples": 5,
        "spread": value / 20,
        "how": "onhand bench house",
        "estimated": False,
        "interval": None,
        **more,
    }


def evaluation() -> list[dict[str, Any]]:
    """The four, one of them not measured."""
    return [
        {
            "model": "compression",
            "before": figure("size_bytes", 15204352.0, "byte"),
            "after": figure("size_bytes", 4341760.0, "byte"),
            "ratio": figure("compression_ratio", 3.5, "one"),
            "outcome": figure("accuracy_kept", 0.993, "fraction"),
            "predicted": 0.2856,
            "missing": "",
        },
        {
            "model": "optimisation",
            "before": None,
            "after": None,
            "ratio": None,
            "outcome": None,
            "predicted": None,
            "missing": "the original's speed was not asked for (--no-original)",
        },
        {
            "model": "hardware",
            "before": figure("cold_answer_s", 0.08),
            "after": figure("cold_answer_s", 0.02),
            "ratio": figure("hardware_ratio", 0.25, "one"),
            "outcome": figure("energy_used", 0.6, "one", estimated=True),
            "predicted": 0.25,
            "missing": "",
        },
        {
            "model": "interaction",
            "before": figure("cold_first_token_s", 0.02),
            "after": figure("warm_first_token_s", 0.005),
            "ratio": figure("interaction_ratio", 0.25, "one"),
            "outcome": figure("response", 4.0, "one"),
            "predicted": 1.75,
            "missing": "",
        },
    ]


def measured() -> dict[str, Any]:
    """Ways, contexts, memory and a waterfall."""
    return {
        "ways": [
            {
                "model": "compressed",
                "engine": "native",
                "threads": 2,
                "figures": {"cold_answer_s": figure("cold_answer_s", 0.02)},
                "missing": "",
            },
            {
                "model": "original",
                "engine": "onnx",
                "threads": 1,
                "figures": {},
                "missing": "onnx, 1 thread: it broke",
            },
        ],
        "contexts": [
            {
                "tokens": tokens,
                "time_to_first_token_s": figure("time_to_first_token_s", tokens / 4000),
                "decode_tokens_per_s": figure("decode_tokens_per_s", 500.0 - tokens / 10, "1/s"),
            }
            for tokens in (1024, 16, 64, 256)
        ],
        "memory": {
            "points": [[i / 10, 10**7 + 10**6 * (i % 30)] for i in range(60)],
            "phases": [["starting Python", 0.0], ["opening", 1.0], ["answering", 1.02]],
            "how": "onhand bench house  # resident memory",
        },
        "waterfalls": [
            {
                "measurement": "answer_s",
                "before": figure("cold_answer_s", 0.2),
                "after": figure("warm_answer_s", 0.02),
                "parts": [
                    {"label": "engine", "without": figure("warm_answer_s", 0.06), "brought": -0.04},
                    {"label": "threads", "without": figure("warm_answer_s", 0.01), "brought": 9.0},
                ],
                "rest": 77.0,
                "missing": {"compression": "it cannot be left out"},
            }
        ],
    }


def front_points() -> list[dict[str, Any]]:
    """Five choices, one of them built and chosen."""
    sizes = ((4.0e6, 0.030), (5.0e6, 0.012), (6.0e6, 0.004), (8.0e6, 0.0005), (7.0e6, 0.02))
    return [
        {
            "label": f"choice {i}",
            "choices": {"embed": "int8", "layers.0.qkv": f"int{4 + i % 2 * 4}"},
            "predicted": {
                "size_bytes": size,
                "perplexity_increase": loss,
                "peak_memory_bytes": size * 10,
                "decode_tokens_per_s": 3e9 / size,
                "energy_j_per_token": size / 1e8,
            },
            "measured": {"size_bytes": size * 1.01, "perplexity_increase": loss * 1.1}
            if i == 1
            else None,
            "is_chosen": i == 1,
            "is_on_front": i < 4,
        }
        for i, (size, loss) in enumerate(sizes)
    ]


def evidence() -> dict[str, Any]:
    """Evaluations, ways, contexts, memory, waterfalls, a front of five choices, sensitivity."""
    return {
        "evaluation": evaluation(),
        **measured(),
        "front": {"points": front_points(), "axes": ["size_bytes", "perplexity_increase"]},
        "sensitivity": [
            {
                "group": f"layers.{layer}.{kind}",
                "choice": f"int{bits}",
                "bits": bits,
                "damage": 0.001 * (layer + 1) * 4.0 ** (4 - bits),
                "size_bytes": 1000 * bits,
            }
            for layer in range(3)
            for kind in ("qkv", "down")
            for bits in (2, 4, 8)
        ],
    }
