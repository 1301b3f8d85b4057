"""What a bundle's text files say: tokenizer, chat template, and the tokens that end an answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.device.freed_memory import give_back_memory
from onhand.device.sampling import Sampling
from onhand.device.template import ChatTemplate
from onhand.device.text import Tokenizer, open_tokenizer

__all__ = ["TextFiles", "model_sampling", "parse_text_files", "read_template", "read_text_files"]

_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_GENERATION_CONFIG = "generation_config.json"
_MAX_JSON_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFiles:
    """How a bundle's model reads and writes text.

    Attributes:
        tokenizer: text to tokens and back.
        template: for conversations; None if the bundle has none.
        stop_ids: tokens that end an answer.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    stop_ids: frozenset[int]


def read_text_files(bundle: Bundle) -> TextFiles:
    """Read a bundle's tokenizer, chat template and stop tokens.

    Args:
        bundle: a verified bundle; see `parse_text_files` for the files.

    Returns:
        What they say.

    Raises:
        InputError: if the bundle holds no language model.
        BundleCorrupt: if a file is missing or not valid, or the end-of-text token is no token.
    """
    _ = bundle.manifest.decoder  # a network of another kind has texts of another kind
    files = parse_text_files(_text_contents(bundle), where=str(bundle.root))
    give_back_memory()  # parsing takes several times what a tokenizer keeps
    return files


def read_template(bundle: Bundle) -> ChatTemplate | None:
    """Read a bundle's chat template alone; None where it has none.

    Args:
        bundle: of a language model, of which the manifest alone need be verified.

    Raises:
        BundleCorrupt: if a file is missing or not valid.
    """
    where, files = str(bundle.root), _text_contents(bundle)
    config = _json_object(files, _TOKENIZER_CONFIG, where)
    return _template(files, config, _special_tokens(config), where)


def parse_text_files(files: Mapping[str, bytes], *, where: str) -> TextFiles:
    """Read tokenizer, chat template and stop tokens from the contents of their files.

    Args:
        files: name -> content; `tokenizer.json` is needed, `tokenizer_config.json`,
            `chat_template.jinja` and `generation_config.json` are used where they are.
        where: the bundle's or source's name, for messages.

    Returns:
        What they say.

    Raises:
        BundleCorrupt: if a file is missing or not valid, or the end-of-text token is no token.
    """
    if _TOKENIZER not in files:
        raise BundleCorrupt(f"{where}: has no {_TOKENIZER}, which a language model needs")
    config = _json_object(files, _TOKENIZER_CONFIG, where)
    special = _special_tokens(config)
    add_bos = config.get("add_bos_token")
    tokenizer = open_tokenizer(
        files[_TOKENIZER],
        bos_token=special.get("bos_token"),
        add_bos=add_bos if isinstance(add_bos, bool) else None,
        where=f"{where}: {_TOKENIZER}",
    )
    stop_ids = set(_end_ids(files, where))
    if (end := special.get("eos_token")) is not None:
        end_id = tokenizer.find(end)
        if end_id is None:
            raise BundleCorrupt(
                f"{where}: {_TOKENIZER_CONFIG} ends texts with {end!r}, which is no token "
                f"of {_TOKENIZER}"
            )
        stop_ids.add(end_id)
    return TextFiles(
        tokenizer=tokenizer,
        template=_template(files, config, special, where),
        stop_ids=frozenset(stop_ids),
    )


def _special_tokens(config: Mapping[str, object]) -> dict[str, str]:
    return {
        key: text
        for key, value in config.items()
        if key.endswith("_token") and (text := _token_text(value)) is not None
    }


def _text_contents(bundle: Bundle) -> dict[str, bytes]:
    names = (_TOKENIZER, _TOKENIZER_CONFIG, _TEMPLATE, _GENERATION_CONFIG)
    listed = [name for name in names if name in bundle.manifest.files]
    try:
        return {name: bundle.path(name).read_bytes() for name in listed}
    except OSError as error:
        raise BundleCorrupt(f"{bundle.root}: cannot be read: {error}") from error


def model_sampling(bundle: Bundle) -> Sampling:
    """Return the sampling that the model's makers suggest in `generation_config.json`.

    Nothing uses it unless asked: pass it to `generate`.

    Args:
        bundle: a verified bundle.

    Returns:
        The suggestion; the most likely token always, where there is none.

    Raises:
        BundleCorrupt: if the file is not valid, or a number in it is out of range.
    """
    config = _json_object(_text_contents(bundle), _GENERATION_CONFIG, str(bundle.root))
    if config.get("do_sample") is not True:
        return Sampling()

    def number(key: str, otherwise: float) -> float:
        value = config.get(key)
        if value is None:
            return otherwise
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BundleCorrupt(f"{bundle.root}: {_GENERATION_CONFIG}: {key} is {value!r}")
        return float(value)

    try:
        # Where the file is silent, transformers samples with temperature 1 and top-k 50.
        return Sampling(
            temperature=number("temperature", 1.0),
            top_k=round(number("top_k", 50)),
            top_p=number("top_p", 1.0),
            min_p=number("min_p", 0.0),
            repetition_penalty=number("repetition_penalty", 1.0),
        )
    except (InputError, OverflowError, ValueError) as error:
        raise BundleCorrupt(f"{bundle.root}: {_GENERATION_CONFIG}: {error}") from error


def _template(
    files: Mapping[str, bytes], config: Mapping[str, object], special: Mapping[str, str], where: str
) -> ChatTemplate | None:
    place = f"{where}: {_TEMPLATE}"
    if _TEMPLATE in files:
        try:
            source: object = files[_TEMPLATE].decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleCorrupt(f"{place}: cannot be read: {error}") from error
    else:
        place = f"{where}: {_TOKENIZER_CONFIG}: chat_template"
        source = config.get("chat_template")
        if isinstance(source, list):
            named = [item for item in source if isinstance(item, dict)]
            source = next((t.get("template") for t in named if t.get("name") == "default"), None)
    if source is None:
        return None
    if not isinstance(source, str):
        raise BundleCorrupt(f"{place}: is {type(source).__name__}, expected a text")
    return ChatTemplate(source, special_tokens=special, where=place)


def _end_ids(files: Mapping[str, bytes], where: str) -> list[int]:
    value = _json_object(files, _GENERATION_CONFIG, where).get("eos_token_id")
    ids: list[int] = []
    for token_id in value if isinstance(value, list) else [value] if value is not None else []:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise BundleCorrupt(
                f"{where}: {_GENERATION_CONFIG}: eos_token_id {token_id!r} is no token id"
            )
        ids.append(token_id)
    return ids


def _token_text(value: object) -> str | None:
    """Return a token from its text, or from the table that describes it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _json_object(files: Mapping[str, bytes], name: str, where: str) -> dict[str, object]:
    if name not in files:
        return {}
    content = files[name]
    try:
        table = json.loads(content) if len(content) <= _MAX_JSON_BYTES else None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleCorrupt(f"{where}: {name} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise BundleCorrupt(f"{where}: {name} is not a JSON object of a sensible size")
    return table
