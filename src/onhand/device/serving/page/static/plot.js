/** One plot of some figures over the last minutes: lines, axes, a legend, and a table. */

import { short, writerOf } from "/page/units.js";

export const SPAN_S = 180;

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170;
const EDGE = { left: 62, right: 12, top: 12, bottom: 24 };
const N_STROKES = 6; // as many as style.css has
const GAP_S = 3.5; // longer without a reading, and the line is not drawn through
const TABLE_STEP_S = 15;

/**
 * @typedef {{timeS: number, values: Map<string, number>}} Row what was read at one time
 */
export class Plot {
  #panel;
  #write;
  #rows = [];
  #labels = [];
  #cursor = null; // the row that is looked at
  #width = 0;
  #scale = { low: 0, high: 1 };
  #svg = element("svg", { class: "plot", tabindex: "0", role: "img", height: HEIGHT });
  #legend = document.createElement("ul");
  #when = document.createElement("span");
  #table = document.createElement("table");
  #details = document.createElement("details");

  /** @param {import("/page/figures.js").Panel} panel */
  constructor(panel) {
    this.#panel = panel;
    this.#write = writerOf(panel.unit);
    this.element = document.createElement("section");
    this.element.className = "panel";
    const title = document.createElement("h4");
    const unit = document.createElement("span");
    unit.className = "unit";
    // Sizes, times and shares have their unit beside each number.
    unit.textContent = writerOf(panel.unit) === short ? panel.unit : "";
    this.#when.className = "when";
    title.append(`${panel.title} `, unit, this.#when);
    this.#legend.className = "legend";
    this.#svg.setAttribute(
      "aria-label",
      `${panel.title} over the last ${SPAN_S / 60} minutes. The arrow keys show values; ` +
        "the table below has them as well.",
    );
    const summary = document.createElement("summary");
    summary.textContent = "Table";
    const name = document.createElement("span");
    name.className = "unseen";
    name.textContent = ` of ${panel.title}`;
    summary.append(name);
    this.#details.append(summary, this.#table);
    this.element.append(title);
    if (panel.help) this.element.append(hint(panel.help));
    this.element.append(this.#svg, this.#legend, this.#details);
    this.#listen();
  }

  /** Show rows, oldest first; the last is now. */
  update(rows) {
    this.#rows = rows;
    if (!rows.includes(this.#cursor)) this.#cursor = null;
    const labels = new Set(this.#labels);
    for (const label of rows.at(-1)?.values.keys() ?? []) labels.add(label);
    this.#labels = [...labels];
    this.#draw();
  }

  #listen() {
    new ResizeObserver(([entry]) => {
      this.#width = Math.round(entry.contentRect.width);
      this.#draw();
    }).observe(this.#svg);
    this.#svg.addEventListener("pointermove", (event) => this.#look(this.#nearest(event.offsetX)));
    this.#svg.addEventListener("pointerleave", () => this.#look(null));
    this.#svg.addEventListener("blur", () => this.#look(null));
    this.#svg.addEventListener("keydown", (event) => {
      const last = this.#rows.length - 1;
      const at = this.#cursor ? this.#rows.indexOf(this.#cursor) : last;
      const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: null };
      if (!(event.key in places)) return;
      event.preventDefault();
      const place = places[event.key];
      this.#look(place === null ? null : this.#rows[Math.min(Math.max(place, 0), last)]);
    });
    this.#details.addEventListener("toggle", () => this.#draw());
  }

  #look(row) {
    this.#cursor = row;
    this.#draw();
  }

  #draw() {
    if (!this.#rows.length || !this.#width) return;
    this.#scale = this.#scaleOf();
    const parts = [...this.#axes()];
    this.#labels.forEach((label, index) => parts.push(this.#line(label, index)));
    const row = this.#cursor;
    if (row) parts.push(...this.#marks(row));
    this.#svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    this.#svg.replaceChildren(...parts);
    this.#drawLegend(row ?? this.#rows.at(-1));
    this.#when.textContent = row ? ago(this.#now - row.timeS) : "";
    if (this.#details.open) this.#drawTable();
  }

  get #now() {
    return this.#rows.at(-1).timeS;
  }

  #x(timeS) {
    const share = 1 - (this.#now - timeS) / SPAN_S;
    return EDGE.left + share * (this.#width - EDGE.left - EDGE.right);
  }

  #y(value) {
    const share = (value - this.#scale.low) / (this.#scale.high - this.#scale.low);
    return HEIGHT - EDGE.bottom - share * (HEIGHT - EDGE.top - EDGE.bottom);
  }

  #scaleOf() {
    const values = this.#rows.flatMap((row) => [...row.values.values()]).filter(Number.isFinite);
    const most = values.reduce((a, b) => Math.max(a, b), 0);
    const least = values.reduce((a, b) => Math.min(a, b), 0);
    const isBinary = this.#panel.unit.startsWith("bytes");
    const isShare = this.#panel.unit === "fraction" && most <= 1;
    return {
      low: least < 0 ? -niceTop(-least, isBinary) : 0,
      high: isShare || (most === 0 && least < 0) ? Number(isShare) : niceTop(most, isBinary),
    };
  }

  *#axes() {
    const { low, high } = this.#scale;
    const right = this.#width - EDGE.right;
    for (const share of [0, 0.5, 1]) {
      const value = low + share * (high - low);
      const y = this.#y(value);
      yield element("line", { class: "grid", x1: EDGE.left, x2: right, y1: y, y2: y });
      yield element("text", { class: "tick", x: EDGE.left - 8, y: y + 4, "text-anchor": "end" },
        this.#write(value));
    }
    for (let minutes = SPAN_S / 60; minutes >= 0; minutes -= 1) {
      const x = this.#x(this.#now - minutes * 60);
      const anchor = minutes ? "middle" : "end";
      yield element("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": anchor },
        minutes ? `−${minutes} min` : "now");
    }
  }

  #line(label, index) {
    let path = "";
    let lastS = -Infinity;
    for (const { timeS, values } of this.#rows) {
      const value = values.get(label);
      if (!Number.isFinite(value)) {
        lastS = -Infinity;
        continue;
      }
      const isOn = timeS - lastS <= GAP_S;
      path += `${isOn ? "L" : "M"}${this.#x(timeS).toFixed(1)} ${this.#y(value).toFixed(1)}`;
      if (!isOn) path += "h.01"; // one value alone is a dot
      lastS = timeS;
    }
    return element("path", { class: `line ${strokeOf(index)}`, d: path });
  }

  *#marks(row) {
    const x = this.#x(row.timeS);
    const ends = { x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom };
    yield element("line", { class: "cursor", ...ends });
    for (const [index, label] of this.#labels.entries()) {
      const value = row.values.get(label);
      if (!Number.isFinite(value)) continue;
      const place = { cx: x, cy: this.#y(value), r: 4 };
      yield element("circle", { class: `mark ${strokeOf(index)}`, ...place });
    }
  }

  #drawLegend(row) {
    const { children } = this.#legend;
    this.#labels.forEach((label, index) => {
      const item = children[index] ?? this.#legend.appendChild(legendItem(label, index));
      item.lastChild.textContent = this.#write(row.values.get(label) ?? NaN);
    });
  }

  #drawTable() {
    const rows = [];
    for (let ageS = 0; ageS <= SPAN_S; ageS += TABLE_STEP_S) {
      const row = this.#rows.findLast(({ timeS }) => this.#now - timeS >= ageS - 0.5);
      if (row) rows.push([ago(ageS), ...this.#labels.map((label) => this.#cell(row, label))]);
    }
    const cells = [["When", ...this.#labels], ...rows];
    // Cells are changed where they are, so that whoever reads the table keeps their place.
    while (this.#table.rows.length > cells.length) this.#table.deleteRow(-1);
    cells.forEach((texts, at) => {
      const line = this.#table.rows[at] ?? this.#table.insertRow();
      texts.forEach((text, column) => {
        const cell = line.cells[column] ?? line.appendChild(tableCell(at, column));
        if (cell.textContent !== text) cell.textContent = text;
      });
    });
  }

  #cell(row, label) {
    return this.#write(row.values.get(label) ?? NaN);
  }

  #nearest(x) {
    const far = (row) => Math.abs(this.#x(row.timeS) - x);
    return this.#rows.reduce((best, row) => (far(row) < far(best) ? row : best), this.#rows[0]);
  }
}

/** Return a round number at or above a value, to end an axis at. */
export function niceTop(most, isBinary) {
  if (!(most > 0)) return 1;
  const base = isBinary ? 1024 ** Math.floor(Math.log2(most) / 10) : 1;
  const unit = base * 10 ** Math.floor(Math.log10(most / base));
  return [1, 2, 4, 5, 10].map((n) => n * unit).find((n) => n >= most);
}

function ago(ageS) {
  return ageS < 0.5 ? "now" : `${Math.round(ageS)} s ago`;
}

function strokeOf(index) {
  return `s${index % N_STROKES}`;
}

function legendItem(label, index) {
  const item = document.createElement("li");
  const swatch = element("svg", { class: "swatch", viewBox: "0 0 24 8", "aria-hidden": "true" });
  const value = document.createElement("b");
  swatch.append(element("path", { class: `line ${strokeOf(index)}`, d: "M1 4H23" }));
  item.append(swatch, `${label} `, value);
  return item;
}

function tableCell(row, column) {
  const cell = document.createElement(row && column ? "td" : "th");
  if (cell.tagName === "TH") cell.scope = row ? "row" : "col";
  return cell;
}

function hint(text) {
  const line = document.createElement("p");
  line.className = "hint";
  line.textContent = text;
  return line;
}

function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}
