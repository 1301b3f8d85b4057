/** What the governor set and why, as `/v1/governor` tells it. */

import { pair, told as made, words } from "/page/dom.js";
import { seconds, short } from "/page/units.js";

const MOST_CHANGES = 8;

/** A panel of words beside the plots. */
export class GovernorPanel {
  #now = document.createElement("dl");
  #why = document.createElement("ul");
  #changes = document.createElement("ol");

  constructor() {
    this.element = document.createElement("section");
    this.element.className = "panel";
    this.#now.className = "facts";
    this.#why.className = "lines";
    this.#changes.className = "lines";
    this.element.append(made("h4", "What is set"), this.#now, this.#why);
    this.element.append(made("h4", "Last changes"), this.#changes);
  }

  /**
   * Show an answer of the route.
   *
   * @param {object} told whatever of it is there
   */
  update(told) {
    const { setting = {}, usual = {}, findings = [], changes = [], history = [] } = told;
    const set = Object.entries(setting).map(([name, value]) => {
      const isUsual = !(name in usual) || usual[name] === value;
      const more = isUsual ? "" : `, usually ${written(usual[name])}`;
      return pair(words(name), written(value) + more);
    });
    this.#now.replaceChildren(...set);
    const pressing = findings.filter(({ presses }) => presses);
    const calm = told.enabled === false ? "The governor is off." : "Nothing presses.";
    const why = pressing.map((one) => made("li", one.why ? `${one.cause}: ${one.why}` : one.cause));
    this.#why.replaceChildren(...(why.length ? why : [made("li", calm)]));
    const nowS = history.at(-1)?.at_s;
    const last = changes.slice(-MOST_CHANGES).reverse();
    const lines = last.map((change) => made("li", sentenceOf(change, nowS)));
    this.#changes.replaceChildren(...(lines.length ? lines : [made("li", "None so far.")]));
  }
}

function sentenceOf({ at_s: atS, kind, before, after, reason }, nowS) {
  const ageS = Math.round(nowS - atS);
  const when = ageS > 0 ? `${seconds(ageS)} ago: ` : ageS === 0 ? "just now: " : "";
  const what = words(String(kind)).toLowerCase();
  return `${when}${what} ${written(before)} → ${written(after)}, ${reason}`;
}

function written(value) {
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "number" ? short(value) : String(value ?? "–");
}
