"""Pages that need nothing else: style and script inside, every text escaped, nothing to fetch."""

import base64
import hashlib
from importlib import resources

from onhand.core.units import format_bytes, format_seconds
from onhand.device.report_kinds import figure_name, show_figure

__all__ = ["render_page"]

SCRIPT = "report.js"


def render_page(template: str, **values: object) -> str:
    """Fill a template of this package.

    The page's own policy names the hash of its one script: no other runs, whatever a text holds.

    Args:
        template: name of a file in `templates`.
        **values: what it names.

    Returns:
        An HTML document.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": format_bytes,
        "seconds": format_seconds,
        "figure_name": figure_name,
        "shown": show_figure,
    }
    script = _read(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page: str = environment.get_template(template).render(
        script=script, script_hash=f"sha256-{digest}", **values
    )
    return page


def _read(name: str) -> str:
    return resources.files("onhand.host").joinpath(f"templates/{name}").read_text(encoding="utf-8")
