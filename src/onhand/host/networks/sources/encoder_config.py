"""The `config.json` of an encoder -> the one description. A family is a few options.

Source:
    Names and defaults follow transformers' configuration classes (`BertConfig`, `RobertaConfig`,
    `XLMRobertaConfig`, `DistilBertConfig`, `MPNetConfig`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onhand.core.errors import SourceError
from onhand.core.outside import shown
from onhand.host.networks.sources.encoder_graph import Encoder, Naming
from onhand.host.sources.keys import Keys, judge_unread

__all__ = ["FAMILIES", "EncoderConfig", "read_config"]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_MOST = 2**20
_BERT = Naming(
    prefix="bert.",
    query="encoder.layer.{}.attention.self.query",
    key="encoder.layer.{}.attention.self.key",
    value="encoder.layer.{}.attention.self.value",
    output="encoder.layer.{}.attention.output.dense",
    attention_norm="encoder.layer.{}.attention.output.LayerNorm",
    up="encoder.layer.{}.intermediate.dense",
    down="encoder.layer.{}.output.dense",
    norm="encoder.layer.{}.output.LayerNorm",
)
_DISTIL = Naming(
    prefix="distilbert.",
    query="transformer.layer.{}.attention.q_lin",
    key="transformer.layer.{}.attention.k_lin",
    value="transformer.layer.{}.attention.v_lin",
    output="transformer.layer.{}.attention.out_lin",
    attention_norm="transformer.layer.{}.sa_layer_norm",
    up="transformer.layer.{}.ffn.lin1",
    down="transformer.layer.{}.ffn.lin2",
    norm="transformer.layer.{}.output_layer_norm",
)
_MPNET = Naming(
    prefix="mpnet.",
    query="encoder.layer.{}.attention.attn.q",
    key="encoder.layer.{}.attention.attn.k",
    value="encoder.layer.{}.attention.attn.v",
    output="encoder.layer.{}.attention.attn.o",
    attention_norm="encoder.layer.{}.attention.LayerNorm",
    up="encoder.layer.{}.intermediate.dense",
    down="encoder.layer.{}.output.dense",
    norm="encoder.layer.{}.output.LayerNorm",
)
_SIZES: Mapping[str, object] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
_DISTIL_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
# Keys about training that other families do not have; `sinusoidal_pos_embds` says how the table
# of positions began, and the checkpoint holds the table.
_HARMLESS = (
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "directionality",
    "dropout",
    "finetuning_task",
    "gradient_checkpointing",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "qa_dropout",
    "seq_classif_dropout",
    "sinusoidal_pos_embds",
    "tie_weights_",
    "tie_word_embeddings",
    "chunk_size_feed_forward",
    "use_return_dict",
    "output_past",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    naming: Naming
    head: str
    sizes: Mapping[str, object] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    has_types: bool = True
    counts_positions: bool = False
    has_buckets: bool = False


FAMILIES: Mapping[str, _Family] = {
    "bert": _Family(naming=_BERT, head="pooler"),
    "roberta": _Family(
        naming=replace(_BERT, prefix="roberta."),
        head="dense",
        sizes={"vocab_size": 50265, "pad_token_id": 1},
        counts_positions=True,
    ),
    "xlm-roberta": _Family(
        naming=replace(_BERT, prefix="roberta."),
        head="dense",
        sizes={"pad_token_id": 1},
        counts_positions=True,
    ),
    "distilbert": _Family(
        naming=_DISTIL,
        head="pre_classifier",
        sizes={"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu"},
        renamed=_DISTIL_KEYS,
        has_types=False,
    ),
    "mpnet": _Family(
        naming=_MPNET,
        head="dense",
        sizes={"vocab_size": 30527, "pad_token_id": 1, "relative_attention_num_buckets": 32},
        has_types=False,
        counts_positions=True,
        has_buckets=True,
    ),
}
"""What `model_type` may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """What a `config.json` says.

    Attributes:
        encoder: the model; its head is "" where the checkpoint was saved without one.
        labels: names of the classes of the head.
        notes: what in the configuration is not used, in sentences.
    """

    encoder: Encoder
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def read_config(config: Mapping[str, object], where: str) -> EncoderConfig:
    """Read the configuration of an encoder.

    Args:
        config: the parsed file.
        where: its name for messages.

    Returns:
        What it says.

    Raises:
        SourceError: if the family is unknown, or a key asks for what it cannot compute.
        InputError: if a key is missing, of the wrong type or out of bounds.
    """
    named = config.get("model_type")
    if not isinstance(named, str) or named not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise SourceError(f"{where}: model_type is {shown(named)}, known encoders are {known}")
    family = FAMILIES[named]
    defaults = {**_SIZES, **family.sizes}
    keys = Keys(config, where, defaults=defaults, renamed=family.renamed)
    _check_kind(keys)
    width = keys.whole("hidden_size", most=_MOST)
    n_heads = keys.whole("num_attention_heads", most=_MOST)
    if width % n_heads:
        raise keys.wrong("num_attention_heads", f"must divide {keys.name('hidden_size')}, {width}")
    kinds = keys.value("architectures")
    has_head = isinstance(kinds, list) and any(
        str(kind).endswith("ForSequenceClassification") for kind in kinds
    )
    labels = _labels(keys) if has_head else ()
    # MPNet's own code counts from 2, whatever the key says.
    pad_id = keys.whole("pad_token_id", least=0, most=_MOST, default=0)
    encoder = Encoder(
        family=named,
        naming=family.naming,
        width=width,
        n_layers=keys.whole("num_hidden_layers", most=1000),
        n_heads=n_heads,
        hidden=keys.whole("intermediate_size", most=_MOST),
        activation=_ACTIVATIONS[keys.word("hidden_act", _ACTIVATIONS)],
        # DistilBERT's is no key, but a number in its code.
        epsilon=1e-12 if family.renamed else keys.number("layer_norm_eps"),
        vocab_size=keys.whole("vocab_size", most=2**24),
        n_positions=keys.whole("max_position_embeddings", most=_MOST),
        n_types=keys.whole("type_vocab_size", most=1000) if family.has_types else 0,
        pad_id=1 if family.has_buckets else pad_id,
        counts_positions=family.counts_positions,
        buckets=keys.whole("relative_attention_num_buckets", least=4, most=1024)
        if family.has_buckets
        else 0,
        head=family.head if has_head else "",
        n_labels=len(labels),
    )
    if encoder.most_tokens < 1:
        raise keys.wrong("max_position_embeddings", f"must be above {encoder.pad_id + 1}")
    notes = judge_unread(keys, harmless=_HARMLESS, reads_as=None)
    return EncoderConfig(encoder=encoder, labels=labels, notes=notes)


def _check_kind(keys: Keys) -> None:
    """Refuse what only looks like an encoder of the family.

    Raises:
        SourceError: if positions are relative, or a text is not seen whole.
    """
    if keys.value("position_embedding_type") not in (None, "absolute"):
        raise keys.wrong("position_embedding_type", "known is only 'absolute'")
    for switch in ("is_decoder", "add_cross_attention"):
        if keys.flag(switch):
            raise keys.wrong(switch, "an encoder sees the whole text: it must be false")


def _labels(keys: Keys) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the logits.

    Raises:
        SourceError: if they are not numbered from 0 on.
    """
    given = keys.value("id2label")
    if given is None:
        n = keys.whole("num_labels", most=2**20, default=2)
        return tuple(f"LABEL_{i}" for i in range(n))
    if not isinstance(given, Mapping) or set(given) != {str(i) for i in range(len(given))}:
        raise keys.wrong("id2label", "must name classes by their numbers from 0 on")
    return tuple(" ".join(str(given[str(i)]).split()) for i in range(len(given)))
