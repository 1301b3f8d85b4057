"""Templates in the manner of each family, and models that say what is wanted."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import tokenizers
from tests.device.test_generate import FakeLoaded
from tests.device.toy_model import ToySession
from tokenizers import decoders, models, pre_tokenizers

from onhand.core.arrays import FloatArray, TokenArray
from onhand.device.engines.base import Session
from onhand.device.text import Tokenizer, open_tokenizer
from onhand.device.tools.kinds import Tool

__all__ = [
    "END",
    "TEMPLATES",
    "Drawing",
    "Scripted",
    "lamp_tools",
    "tokenizer_content",
    "tokenizer_of",
]

END = 256
OPEN = 257
SPECIAL = ("</s>", "<open>", "[TOOL_CALLS]", "<|python_tag|>", "<|tool_call|>", "<|/tool_call|>")
ADDED = ("<tool_call>", "</tool_call>")

HERMES = """{%- if tools %}s:{% for tool in tools %}{{ tool | tojson }}
{% endfor %}write <tool_call>{"name": ..., "arguments": ...}</tool_call>;{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}t:{{ m.content }};
{%- else %}{{ m.role[0] }}:{{ m.content }}
{%- for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %};
{%- endif %}{% endfor %}<open>"""
LLAMA = """{%- if tools is not none %}s:answer {"name": name, "parameters": arguments};
{%- for t in tools %}{{ t | tojson(indent=4) }}{% endfor %};{% endif %}
{%- for m in messages %}
{%- if 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}
{%- set call = m.tool_calls[0].function %}a:{"name": "{{ call.name }}", "parameters": \
{{ call.arguments | tojson }}};
{%- elif m.role == 'tool' %}ipython:{{ m.content | tojson }};
{%- else %}{{ m.role[0] }}:{{ m.content }};{% endif %}{% endfor %}<open>"""
MISTRAL = """{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and loop.last %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{{- 'u:' + m.content + ';' }}
{%- elif m.tool_calls is defined %}[TOOL_CALLS] [{% for c in m.tool_calls %}
{%- if c.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}
{{- c.function.name }} {{ c.id }}{% endfor %}];
{%- elif m.role == 'tool' %}
{%- if m.tool_call_id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}
{{- 'r:' + m.tool_call_id + m.content + ';' }}
{%- else %}{{ m.role[0] }}:{{ m.content }};{% endif %}{% endfor %}<open>"""
PHI = """{%- for m in messages %}{{ m.role[0] }}:{{ m.content }}
{%- if loop.first and tools %}{{ tools | tojson }} as <|tool_call|>[]<|/tool_call|>{% endif %};
{%- for c in m.tool_calls %}<|tool_call|>{{ c.function | tojson }}<|/tool_call|>{% endfor %}
{%- endfor %}<open>"""
PLAIN = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}<open>"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role in ['system', 'tool'] %}{{ raise_exception('no') }}"
    "{% endif %}{{ m.role[0] }}:{{ m.content }};{% endfor %}<open>"
)
OTHER = HERMES.replace("<tool_call>", "<tool_call><function=")
TEMPLATES = {
    "hermes": HERMES,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "phi": PHI,
    "plain": PLAIN,
    "no-system": NO_SYSTEM,
    "other": OTHER,
}


def lamp_tools(*, is_strict: bool = False) -> tuple[Tool, Tool]:
    """Two tools whose arguments are short, so that a model of letters comes to their end."""
    lamp = {
        "type": "object",
        "properties": {
            "room": {"enum": ["hall", "kitchen"]},
            "on": {"type": "boolean"},
            "name": {"type": "string", "maxLength": 3},
        },
        "required": ["room", "on"],
        "additionalProperties": False,
    }
    none: dict[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}
    return (
        Tool(name="lamp", description="a lamp", parameters=lamp, is_strict=is_strict),
        Tool(name="time", description="", parameters=none, is_strict=is_strict),
    )


@lru_cache
def tokenizer_content() -> bytes:
    """One token for each byte, and the markers of all families."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    )
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(list(SPECIAL))
    model.add_tokens(list(ADDED))
    return model.to_str().encode()


@lru_cache
def tokenizer_of() -> Tokenizer:
    """The same, opened."""
    return open_tokenizer(tokenizer_content())


class Scripted(FakeLoaded):
    """A model that says a text after the opening of an answer, and another one after a result."""

    def __init__(self, text: str, after_result: str = "", *, context: int = 4000) -> None:
        super().__init__(self._next, context=context, vocab_size=266)
        self._texts = (text, after_result)

    def _next(self, tokens: list[int]) -> int:
        if OPEN not in tokens:  # a part of a prompt
            return 0
        place = max(i for i, token in enumerate(tokens) if token == OPEN)
        lit = bytes(tokenizer_of().encode_template("lit").tolist())
        has_result = lit in bytes(token for token in tokens[:place] if token < END)
        script = tokenizer_of().encode_template(self._texts[has_result])
        said = len(tokens) - 1 - place
        return int(script[said]) if said < len(script) else END


class Drawing(FakeLoaded):
    """A model with random weights: what it says next depends on all that was said."""

    def __init__(self, *, seed: int = 0, context: int = 4000) -> None:
        super().__init__(lambda tokens: 0, context=context, vocab_size=266)
        self._seed = seed

    def step(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> FloatArray:
        """See `Loaded`."""
        rows = super().step(batch)
        for place, (session, _) in enumerate(batch):
            assert isinstance(session, ToySession)
            known = np.asarray([self._seed, *session.tokens], dtype=np.int64).tobytes()
            seed = int.from_bytes(hashlib.sha256(known).digest()[:8], "big")
            rows[place] = np.random.default_rng(seed).normal(size=self.vocab_size) * 3
        return rows
