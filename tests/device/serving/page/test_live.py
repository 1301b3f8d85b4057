"""The live figures in a real browser: what is plotted, how it changes, and how it is read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.device.serving.page.browser import Page
from tests.device.serving.page.scripted import Scripted
from tests.device.serving.served import Served, fake_model, serving

from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import GovernorSettings
from onhand.device.serving.governor.starting import make_governor
from onhand.device.serving.state import ServerState

PLOTS = "document.querySelectorAll('.panel .plot path').length"
# Of a panel: its title, the words of its legend, and the path of each line.
PANELS = """
Object.fromEntries([...document.querySelectorAll('.panel')].map((panel) => [
  panel.querySelector('h4').firstChild.textContent.trim(),
  [...panel.querySelectorAll('.legend li')].map((li) => li.textContent),
]))
"""
Figures = Callable[[str, str], list[list[object]]]


@pytest.fixture
def served() -> Iterator[Served]:
    """A server with a cache of whole answers, and a figure of a kind that the page never saw."""
    model = Scripted(lambda _: ["all ", "is ", "well"])
    state = ServerState([model], exact=ExactCache(None, most_bytes=2**20))
    state.metrics.gauge("onhand_lamps_warm_ratio", "Share of lamps that are warm.", lambda: 0.25)
    with serving(state=state) as found:
        yield found


@pytest.fixture
def live(page: Page, served: Served) -> Iterator[Page]:
    """The second view, with its first figures."""
    page.open(f"{served.url}/#live")
    page.wait(PLOTS)
    yield page
    assert page.complaints == []
    assert {url for url in page.requests if not url.startswith(f"{served.url}/")} == set()


def test_every_metric_has_a_place(live: Page) -> None:
    """Known ones by theirs, new ones by their names and units; none is missing."""
    panels = live.run(PANELS)

    assert panels["Requests at work"] == ["active 0"]
    assert panels["Held by caches"] == ["prefix 0 B", "exact 0 B"]
    assert panels["Lamps warm ratio"] == ["lamps warm ratio 25 %"]
    titles = live.run("[...document.querySelectorAll('#panels h3')].map((h) => h.textContent)")
    assert titles == ["Requests", "Caches", "Other"]


def test_plots_change_after_a_request(live: Page) -> None:
    """Rates, quantiles and hit rates appear when there is something to tell."""
    live.wait("document.querySelector('#live-state').textContent.startsWith('Read')")
    live.click("#to-chat")
    live.wait("document.querySelector('#input').checkVisibility()")
    for _ in range(2):
        live.run("document.querySelector('#input').focus()")
        live.write("hello")
        live.press("Enter")
        live.wait("document.querySelector('.answer footer button')")
        live.click("#new")
    live.click("#to-live")
    live.wait(
        "[...document.querySelectorAll('.legend li')].some((li) => li.textContent === 'exact 50 %')"
    )

    panels = live.run(PANELS)
    assert {entry.split()[0] for entry in panels["Tokens"]} == {"prompt", "cached", "generated"}
    assert panels["Time to first text"][0].startswith("median")
    assert "ms" in panels["Time to first text"][0]
    assert any(entry.startswith("ok · chat") for entry in panels["Answers that ended"])
    top = "Math.min(...document.querySelector('.plot path').getAttribute('d').match(/[\\d.]+/g))"
    assert live.run(top) >= 0
    tiles = live.run(
        "[...document.querySelectorAll('#tiles div')].map((one) => one.firstChild.textContent)"
    )
    assert tiles == [
        "Requests at work",
        "Tokens/s written",
        "First text, median",
        "Exact cache hits",
    ]


def test_nothing_is_read_while_nobody_looks(live: Page) -> None:
    """In the chat, without an answer, no figure is asked for; nor while it is paused."""

    def count() -> int:
        return sum(url.endswith("/metrics") for url in live.requests)

    live.click("#pause")
    live.run("new Promise((done) => setTimeout(done, 50))")
    before = count()
    live.run("new Promise((done) => setTimeout(done, 1500))")
    assert count() == before
    assert live.text("#live-state") == "Paused."
    assert live.run("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    live.click("#to-chat")
    live.click("#to-live")
    live.click("#pause")
    live.wait("document.querySelector('#live-state').textContent.startsWith('Read')")
    assert count() > before


def test_values_are_read_by_pointer_and_by_keys(live: Page) -> None:
    """The legend shows those of the moment that is looked at."""
    live.wait("document.querySelector('.plot path').getAttribute('d').includes('L')")
    live.run("document.querySelector('.plot').focus()")
    live.press("Home")
    assert live.run("document.querySelectorAll('.plot .cursor, .plot .mark').length") == 2
    assert live.text(".when").endswith("s ago")
    live.press("Escape")
    assert live.run("document.querySelectorAll('.plot .cursor').length") == 0
    live.press("ArrowLeft")
    assert live.run("document.querySelectorAll('.plot .cursor').length") == 1
    live.run("document.activeElement.blur()")
    x, y = live.run(
        "(() => { const box = document.querySelector('.plot').getBoundingClientRect();"
        " return [box.right - 15, box.top + 50]; })()"
    )
    live.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert live.run("document.querySelectorAll('.plot .cursor').length") == 1


def test_a_table_says_the_same(live: Page) -> None:
    """For those who do not see plots; it has headings for its rows and columns."""
    live.run("document.querySelector('.panel summary').focus()")
    live.press("Enter")
    live.wait("document.querySelector('.panel table tr')")

    assert live.text(".panel tr").startswith("Whenactive")
    scopes = "[...document.querySelectorAll('.panel th')].map((th) => th.scope)"
    assert live.run(scopes)[:3] == ["col", "col", "row"]


def test_a_server_that_goes_is_said(page: Page, served: Served) -> None:
    """And what was read stays."""
    page.open(f"{served.url}/#live")
    page.wait(PLOTS)
    served.server.should_exit = True

    page.wait("document.querySelector('#live-error').textContent.startsWith('The server cannot')")
    assert page.run(PLOTS) > 0


@pytest.fixture
def figures(library: Page) -> Figures:
    """Figures of a text of metrics and of the one a second before: panel, label, value."""

    def compute(before: str, after: str) -> list[list[object]]:
        texts = json.dumps([before, after])
        found: list[list[object]] = library.run(f"""
          Promise.all([import("/page/figures.js"), import("/page/prometheus.js")]).then(
            ([{{ figuresOf }}, {{ parseMetrics }}]) =>
              figuresOf({texts}.map((text, timeS) => ({{ timeS, families: parseMetrics(text) }})))
                .map(({{ panel, label, value }}) =>
                  [panel.section, panel.title, panel.unit, label,
                   Number.isNaN(value) ? null : value]))
        """)
        return found

    return compute


def test_a_counter_becomes_a_rate(figures: Figures) -> None:
    """Also one that began again from zero, and one that was not there before."""
    head = "# HELP onhand_peer_bytes_total Sent.\n# TYPE onhand_peer_bytes_total counter\n"
    before = head + 'onhand_peer_bytes_total{to="a"} 10.0\nonhand_peer_bytes_total{to="b"} 9\n'
    after = (
        head + 'onhand_peer_bytes_total{to="a"} 1.5e1\nonhand_peer_bytes_total{to="b"} 2\n'
        'onhand_peer_bytes_total{to="c\\"\\\\"} 3\n'
    )

    section = ["Backends and routes", "Peer", "bytes/s"]
    assert figures(before, after) == [
        [*section, "a", 5],
        [*section, "b", 2],
        [*section, 'c"\\', 3],
    ]


def test_a_histogram_becomes_quantiles_of_what_is_new(figures: Figures) -> None:
    """Linear within a bucket, as Prometheus does it; an unbounded one gives its lower bound."""

    def text(*counts: int) -> str:
        bounds = zip(("0.1", "0.2", "+Inf"), counts, strict=True)
        lines = [f'onhand_wait_seconds_bucket{{le="{le}"}} {n}' for le, n in bounds]
        return "\n".join([
            "# TYPE onhand_wait_seconds histogram",
            *lines,
            f"onhand_wait_seconds_count {counts[-1]}",
            "onhand_wait_seconds_sum 1",
            "# TYPE onhand_wait_seconds_created gauge",
            "onhand_wait_seconds_created 1.7e9",
        ])

    values = [figure[3:] for figure in figures(text(5, 5, 5), text(5, 15, 15))]
    assert values == [["median", pytest.approx(0.15)], ["95th percentile", pytest.approx(0.195)]]
    assert [f[4] for f in figures(text(0, 0, 0), text(0, 0, 8))] == [0.2, 0.2]
    assert [f[4] for f in figures(text(1, 2, 3), text(1, 2, 3))] == [None, None]


def test_hits_and_misses_become_a_share(figures: Figures) -> None:
    """By tier and label, of what was looked for since; counters and gauges alike."""

    def text(hits: int, misses: int) -> str:
        return (
            f"onhand_block_cache_disk_hits_total {hits}\n"
            f"onhand_block_cache_disk_misses_total {misses}\n"
        )

    assert figures(text(10, 10), text(13, 11)) == [
        ["Caches", "Found in caches, of 30 s", "fraction", "block disk", 0.75]
    ]
    assert figures(text(10, 10), text(10, 10))[0][4] is None


def test_words_are_told_not_plotted(figures: Figures) -> None:
    """A metric whose label is the value: settings of the governor, versions."""
    text = (
        'onhand_governor_setting{onhand_governor_setting="calm"} 0\n'
        'onhand_governor_setting{onhand_governor_setting="hot"} 1\n'
        'onhand_build_info{version="0.1"} 1\n'
        "python_gc_total 3\n"
    )

    assert figures(text, text) == [
        ["Governor", "Setting", "told", "Setting", "hot"],
        ["Other", "Build", "told", "Version", "0.1"],
    ]


def test_gauges_that_belong_together_share_a_panel(figures: Figures) -> None:
    """Those of the outbox, of pressure, of memory; what waits is beside what is at work."""
    text = """
      onhand_outbox_waiting 3
      onhand_outbox_failed 0
      onhand_governor_read_cpu_pressure 0.25
      onhand_governor_read_stolen 0.5
      onhand_governor_read_waiting_requests 2
      onhand_memory_budget_bytes 100
      onhand_memory_taken_bytes{kind="weights"} 40
      onhand_governor_read_temperature_celsius 61.5
    """.replace("      ", "")

    assert figures(text, text) == [
        ["Backends and routes", "Deferred requests", "requests", "waiting", 3],
        ["Backends and routes", "Deferred requests", "requests", "failed", 0],
        ["Governor", "Pressure, as a share of time", "fraction", "cpu pressure", 0.25],
        ["Governor", "Pressure, as a share of time", "fraction", "stolen", 0.5],
        ["Requests", "Requests at work", "requests", "waiting", 2],
        ["Models", "Memory for models", "bytes", "budget", 100],
        ["Models", "Memory for models", "bytes", "weights", 40],
        ["Governor", "Temperature", "°C", "temperature", 61.5],
    ]


def test_what_a_device_does_not_have_gets_no_plot(live: Page, served: Served) -> None:
    """A gauge without a number is none that anybody wants to see."""
    served.state.metrics.gauge("onhand_lamps_cold", "None here.", lambda: float("nan"))
    served.state.metrics.gauge("onhand_lamps_on", "Lamps.", lambda: 2)
    live.wait(f"'Lamps on' in {PANELS.strip()}")

    assert "Lamps cold" not in live.run(PANELS)


def test_a_governor_is_shown(page: Page, tmp_path: Path) -> None:
    """Its settings and readings as plots, and in words what presses and what was changed."""
    times = iter(range(0, 10_000, 60))
    state = ServerState([fake_model(tmp_path, max_active=8)])
    governor = make_governor(
        state,
        GovernorSettings(),
        read=lambda: Readings(at_s=next(times), memory_pressure=0.9, temperature_c=50.5),
    )
    governor.tick()
    with serving(state=state) as served:
        page.open(f"{served.url}/#live")
        page.wait("document.querySelector('.panel .lines li')")
        panels = page.run(PANELS)
        texts = page.run("[...document.querySelectorAll('.lines li')].map((e) => e.textContent)")

    changes = governor.described()["changes"]
    assert isinstance(changes, list)
    assert len(changes) == 1
    assert panels["Pressure, as a share of time"] == ["memory pressure 90 %"]
    assert panels["Temperature"] == ["temperature 50.5"]
    assert "max active" in panels["Set by the governor"][1]
    assert texts[0].startswith("memory: ")
    assert texts[1].startswith("just now: ")
    assert changes[0]["reason"] in texts[1]
    assert page.complaints == []


def test_the_governor_says_why(library: Page) -> None:
    """What is set, against what is usual; what presses; the last changes, newest first."""
    told = {
        "enabled": True,
        "setting": {"threads": 2, "speculation": False},
        "usual": {"threads": 4, "speculation": False},
        "findings": [
            {"cause": "heat", "presses": False, "why": ""},
            {"cause": "contention", "presses": True, "why": "others need <b>2</b> processors"},
        ],
        "changes": [
            {"at_s": 10.0, "kind": "batch", "before": 8, "after": 4, "reason": "first"},
            {"at_s": 30.0, "kind": "threads", "before": 4, "after": 2, "reason": "second"},
        ],
        "history": [{"at_s": 35.0}],
    }
    code = f"""
      import("/page/governor.js").then(({{ GovernorPanel }}) => {{
        const panel = new GovernorPanel();
        panel.update({json.dumps(told)});
        const shown = [...panel.element.querySelectorAll("dl > div, li")].map((e) => e.textContent);
        panel.update({{ enabled: false }});
        return [shown, [...panel.element.querySelectorAll("li")].map((e) => e.textContent)];
      }})
    """
    shown, off = library.run(code)

    assert shown == [
        "Threads2, usually 4",
        "Speculationoff",
        "contention: others need <b>2</b> processors",
        "5 s ago: threads 4 → 2, second",
        "25 s ago: batch 8 → 4, first",
    ]
    assert off == ["The governor is off.", "None so far."]


@pytest.mark.parametrize(
    ("most", "is_binary", "top"),
    [
        (0, False, 1),
        (1, False, 1),
        (3, False, 4),
        (11, False, 20),
        (0.07, False, 0.1),
        (5, True, 5),
        (1500, True, 2048),
        (3 * 2**20, True, 4 * 2**20),
    ],
)
def test_axes_end_at_round_numbers(library: Page, most: float, is_binary: bool, top: float) -> None:
    """Of ten, or of 1024 for bytes."""
    code = f"import('/page/plot.js').then((m) => m.niceTop({most}, {str(is_binary).lower()}))"

    assert library.run(code) == pytest.approx(top)
