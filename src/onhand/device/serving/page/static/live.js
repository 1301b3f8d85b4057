/** The second view: what the server counts, read every second while somebody looks. */

import { call } from "/page/api.js";
import { pair, told } from "/page/dom.js";
import { figuresOf, orderOf } from "/page/figures.js";
import { GovernorPanel } from "/page/governor.js";
import { askKey } from "/page/key.js";
import { Plot, SPAN_S } from "/page/plot.js";
import { parseMetrics } from "/page/prometheus.js";
import { writerOf } from "/page/units.js";

const find = (id) => document.getElementById(id);
const EVERY_MS = 1000;
const KEPT_S = 60; // readings as a whole; of figures, as much as a plot shows
const GOVERNOR_EVERY_S = 3;
// What is shown large: panel, its line, name.
const TILES = [
  ["at-work", /^active$/, "Requests at work"],
  ["at-work", /^waiting$/, "Waiting"],
  ["tokens", /generated/, "Tokens/s written"],
  ["first_text_seconds", /^median$/, "First text, median"],
  ["cache-hits", /^exact/, "Exact cache hits"],
  ["cache-hits", /^(prefix|block)/, "Prefix cache hits"],
];

export class Live {
  #reasons = new Set();
  #timer = 0;
  #asking = null;
  #isPaused = false;
  #readings = [];
  #panels = new Map(); // id -> {panel, rows, words, labels}
  #shown = new Map(); // id -> Plot, or the list of what is told
  #sections = new Map();
  #governor = null;
  #governorS = -Infinity;

  constructor() {
    find("pause").addEventListener("click", () => {
      this.#isPaused = !this.#isPaused;
      find("pause").setAttribute("aria-pressed", String(this.#isPaused));
      this.#turn();
    });
    document.addEventListener("visibilitychange", () => this.#turn());
  }

  /** Read as long as there is a reason: the view is open, or an answer is being computed. */
  follow(reason, isOn) {
    if (isOn) this.#reasons.add(reason);
    else this.#reasons.delete(reason);
    this.#turn();
    this.#draw();
  }

  #turn() {
    const isOn = this.#reasons.size > 0 && !this.#isPaused && !document.hidden;
    if (isOn && !this.#asking) this.#poll();
    if (!isOn) {
      clearTimeout(this.#timer);
      this.#asking?.abort();
      this.#asking = null;
      if (this.#isPaused) find("live-state").textContent = "Paused.";
    }
  }

  async #poll() {
    const asking = new AbortController();
    this.#asking = asking;
    const begunMs = performance.now();
    try {
      const text = await (await call("/metrics", { signal: asking.signal })).text();
      this.#take(performance.now() / 1000, parseMetrics(text));
      await this.#askGovernor(asking.signal);
      this.#say("");
    } catch (error) {
      if (this.#asking !== asking) return;
      this.#say(error.message);
      if (error.status === 401 && !(await this.#key(error))) {
        this.#asking = null;
        return; // until the view is opened again
      }
    }
    if (this.#asking !== asking) return;
    this.#timer = setTimeout(() => this.#poll(), EVERY_MS - (performance.now() - begunMs));
  }

  /** Words say why; they change seldom, and are there only where a governor is. */
  async #askGovernor(signal) {
    const nowS = this.#readings.at(-1).timeS;
    const isThere = [...this.#panels.values()].some(({ panel }) => panel.section === "Governor");
    const isSeen = this.#reasons.has("view");
    if (!isThere || !isSeen || nowS - this.#governorS < GOVERNOR_EVERY_S) return;
    this.#governorS = nowS;
    const status = await (await call("/v1/governor", { signal })).json();
    if (!this.#governor) {
      this.#governor = new GovernorPanel();
      const grid = this.#section({ id: "", section: "Governor", title: "" });
      insertSorted(grid, this.#governor.element, "");
    }
    this.#governor.update(status);
  }

  async #key(error) {
    return this.#reasons.has("view") && (await askKey(error.message));
  }

  #say(message) {
    find("live-error").hidden = !message;
    if (find("live-error").textContent !== message) find("live-error").textContent = message;
  }

  #take(timeS, families) {
    this.#readings.push({ timeS, families });
    while (timeS - this.#readings[0].timeS > KEPT_S) this.#readings.shift();
    for (const panel of this.#panels.values()) panel.words = [];
    const rows = new Map();
    for (const { panel, label, value } of figuresOf(this.#readings)) {
      // What this device does not have gets no empty plot, and no line in another's.
      if (Number.isNaN(value)) continue;
      const kept = this.#panel(panel);
      if (typeof value === "string") {
        kept.words.push([label, value]);
        continue;
      }
      if (!rows.has(kept)) rows.set(kept, { timeS, values: new Map() });
      rows.get(kept).values.set(label, value);
      kept.labels.add(label);
    }
    for (const kept of this.#panels.values()) {
      // Time goes on where there is nothing new to say.
      const row = rows.get(kept) ?? { timeS, values: new Map() };
      kept.rows = [...kept.rows.filter((one) => timeS - one.timeS <= SPAN_S), row];
    }
    this.#draw();
  }

  #panel(panel) {
    if (!this.#panels.has(panel.id)) {
      this.#panels.set(panel.id, { panel, rows: [], words: [], labels: new Set() });
    }
    return this.#panels.get(panel.id);
  }

  #draw() {
    if (!this.#reasons.has("view") || !this.#readings.length) return;
    for (const [id, { panel, rows, words }] of this.#panels) {
      if (!this.#shown.has(id)) this.#shown.set(id, this.#place(panel));
      const shown = this.#shown.get(id);
      if (shown instanceof Plot) shown.update(rows);
      else shown.replaceChildren(...words.map(([name, value]) => pair(name, value)));
    }
    this.#drawTiles();
    const every = this.#isPaused ? "Paused." : "Read every second while this is open.";
    find("live-state").textContent = every;
  }

  #place(panel) {
    const shown = panel.unit === "told" ? document.createElement("dl") : new Plot(panel);
    const element = shown instanceof Plot ? shown.element : toldPanel(panel, shown);
    insertSorted(this.#section(panel), element, orderOf(panel));
    return shown;
  }

  #section(panel) {
    const { section: name } = panel;
    if (this.#sections.has(name)) return this.#sections.get(name);
    const section = document.createElement("section");
    const grid = told("div", "", "grid");
    section.append(told("h3", name), grid);
    insertSorted(find("panels"), section, orderOf(panel));
    this.#sections.set(name, grid);
    return grid;
  }

  #drawTiles() {
    const tiles = TILES.flatMap(([id, pattern, name]) => {
      const kept = this.#panels.get(id);
      const label = [...(kept?.labels ?? [])].find((one) => pattern.test(one));
      if (label === undefined) return [];
      return [pair(name, writerOf(kept.panel.unit)(kept.rows.at(-1).values.get(label)))];
    });
    find("tiles").replaceChildren(...tiles);
  }
}

/** Put an element among others by a word, and not by CSS: they are read in this order, too. */
function insertSorted(place, element, order) {
  element.dataset.order = order;
  const later = [...place.children].find((one) => one.dataset.order > order);
  place.insertBefore(element, later ?? null);
}

function toldPanel(panel, list) {
  const place = told("section", "", "panel");
  list.className = "facts";
  place.append(told("h4", panel.title), list);
  return place;
}
