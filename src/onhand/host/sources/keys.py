"""The keys of a checkpoint's `config.json`: each read by its type, none overlooked."""

from collections.abc import Collection, Iterator, Mapping

from onhand.core.errors import SourceError
from onhand.core.outside import count, flag, positive, shown, word

__all__ = ["Keys", "judge_unread"]

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_MOST_NAMED = 12
_QUANTIZED = (
    "the weights are stored in a quantised form; give the checkpoint in float16, bfloat16 or "
    "float32"
)
# Keys that change what some model computes -> the values with which they change nothing. A
# family that knows such a key reads it; in another family's configuration it is an error.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(
        (
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
            "logit_scale",
            "scale_emb",
        ),
        (None, 1, 1.0),
    ),
    **dict.fromkeys(
        (
            "attention_chunk_size",
            "attention_multiplier",
            "attn_logit_softcapping",
            "clip_qkv",
            "compression_config",
            "final_logit_softcapping",
            "long_mscale",
            "mrope_section",
            "no_rope_layer_interval",
            "no_rope_layers",
            "per_layer_config",
            "pruned_heads",
            "query_pre_attn_scalar",
            "scale_depth",
            "short_mscale",
        ),
        (None, {}, []),
    ),
    **dict.fromkeys(
        (
            "add_cross_attention",
            "alibi",
            "is_encoder_decoder",
            "parallel_attn",
            "qk_layernorm",
            "qk_norm",
            "rope_interleave",
            "rope_interleaved",
            "scale_attn_by_inverse_layer_idx",
            "use_bidirectional_attention",
            "use_parallel_residual",
            "use_qk_norm",
        ),
        (False, None),
    ),
    **dict.fromkeys(("is_causal", "scale_attn_weights"), (True, None)),
}
# Keys about training, generation, storage or other programs: whatever they say, the logits stay.
_HARMLESS = frozenset([
    "quantization_config",  # how the codes are stored is read apart: see `code_layout`
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "attn_pdrop",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "embd_pdrop",
    "embedding_dropout",
    "eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "max_length",
    "max_sequence_length",
    "min_length",
    "model_max_length",
    "model_type",
    "n_ctx",
    "name_or_path",
    "num_labels",
    "original_max_position_embeddings",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "residual_dropout",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "do_sample",
    "early_stopping",
    "num_beams",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
])


class Keys:
    """A JSON object that is asked for one key after the other; it knows which were not asked for.

    A message names the file, the key as the file spells it, what was found and what was expected.
    Not to be shared between threads.
    """

    def __init__(
        self,
        table: Mapping[str, object],
        where: str,
        *,
        defaults: Mapping[str, object] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """Begin with no key asked for.

        Args:
            table: the object, keys as the file spells them.
            where: the file, and the way to the object inside it.
            defaults: the family's values for keys that the file may leave out.
            renamed: our usual key -> the family's.
        """
        self.where = where
        self._given = table
        self._table = {**(defaults or {}), **table}
        self._renamed = renamed or {}
        self._asked: set[str] = set()
        self._inner: dict[str, Keys] = {}

    def name(self, key: str) -> str:
        """Return a key as the file spells it."""
        return self._renamed.get(key, key)

    def value(self, key: str) -> object:
        """Return whatever stands under a key, None if nothing does."""
        name = self.name(key)
        self._asked.add(name)
        return self._table.get(name)

    def whole(self, key: str, *, most: int, least: int = 1, default: int | None = None) -> int:
        """Return a whole number from `least` to `most`; `default`, if there is one, for null.

        Raises:
            InputError: if it is missing or something else.
        """
        value = self.value(key)
        if value is None and default is not None:
            return default
        name = self.name(key)
        return count({name: value}, name, self.where, least=least, most=most)

    def number(self, key: str, *, default: float | None = None) -> float:
        """Return a number above 0; `default`, if there is one, for null.

        Raises:
            InputError: if it is missing or something else.
        """
        value = self.value(key)
        if value is None and default is not None:
            return default
        return positive(value, f"{self.where}: {self.name(key)}")

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return a list of numbers above 0.

        Raises:
            InputError: if it is missing or something else.
        """
        value = self.value(key)
        if not isinstance(value, list):
            raise self.wrong(key, "must be a list of numbers")
        return tuple(positive(number, f"{self.where}: {self.name(key)}") for number in value)

    def flag(self, key: str) -> bool:
        """Return true or false; false if the key is missing.

        Raises:
            InputError: if it is something else.
        """
        self.value(key)
        return flag(self._table, self.name(key), self.where)

    def word(self, key: str, known: Collection[str]) -> str:
        """Return one of some words; the first of them if the key is missing.

        Raises:
            InputError: if it is something else.
        """
        self.value(key)
        return word(self._table, self.name(key), self.where, known)

    def words(self, key: str, n: int, known: Collection[str]) -> list[str]:
        """Return a list of `n` of some words.

        Raises:
            SourceError: if it is missing or something else.
        """
        value = self.value(key)
        if not isinstance(value, list) or len(value) != n:
            raise self.wrong(key, f"must be a list of {n} names")
        words = [name for name in value if isinstance(name, str) and name in known]
        if len(words) != n:
            raise self.wrong(key, f"known are {' and '.join(known)}")
        return words

    def inner(self, key: str) -> "Keys | None":
        """Return an object inside this one, None for null.

        Raises:
            SourceError: if it is something else.
        """
        name, value = self.name(key), self.value(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(key, "must be a JSON object")
        return self._inner.setdefault(name, Keys(value, f"{self.where}: {name}"))

    def repeated(self, key: str, other: str) -> None:
        """Count a key as read where the file only says again under it what `other` says."""
        if self._table.get(key) == self.value(other):
            self._asked.add(key)

    def wrong(self, key: str, expected: str) -> SourceError:
        """Return the error that a key's value is."""
        return SourceError(
            f"{self.where}: {self.name(key)} is {shown(self.value(key))}, {expected}"
        )

    def unread(self) -> "Iterator[tuple[str, str, object]]":
        """Yield the place, the key and the value of everything that was not asked for."""
        for key, value in self._given.items():
            if key not in self._asked:
                yield self.where, key, value
        for inner in self._inner.values():
            yield from inner.unread()


def judge_unread(
    keys: Keys, *, harmless: Collection[str] = (), reads_as: str | None = "a language model"
) -> tuple[str, ...]:
    """Say what the keys mean that the family did not read.

    Args:
        keys: the whole configuration, after everything that the family knows was read.
        harmless: more keys that change nothing.
        reads_as: what a model of another kind is read as; None where the kind was read.

    Returns:
        Notes on keys that may matter to others but change nothing here.

    Raises:
        SourceError: if one of them changes the computation in a way that the family cannot.
    """
    unknown: set[str] = set()
    for place, key, value in keys.unread():
        if key in _NEUTRAL:
            neutral = _NEUTRAL[key]
            # 1 == True and 1.0 == 1: only the type tells a switch from a number.
            if not any(type(value) is type(one) and value == one for one in neutral):
                known = f"this family knows only {neutral[0]!r}"
                is_quantized = key == "compression_config"
                expected = _QUANTIZED if is_quantized else known
                raise SourceError(f"{place}: {key} is {shown(value)}, {expected}")
        elif key in _HARMLESS or key in harmless or key.startswith("_"):
            continue
        elif value not in (None, False):
            unknown.add(key)
    notes: list[str] = []
    kinds = keys.value("architectures") if reads_as else None
    if isinstance(kinds, list) and not all(str(kind).endswith(_CAUSAL) for kind in kinds):
        notes.append(f"{keys.where}: architectures is {shown(kinds)}, read as {reads_as}")
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        names = ", ".join(shown(key) for key in sorted(unknown)[:_MOST_NAMED])
        notes.append(f"{keys.where}: keys that this family does not use: {names}{more}")
    return tuple(notes)
