/** What is known of an answer: where it came from, how fast, what was remembered. */

import { pair } from "/page/dom.js";
import { seconds, short } from "/page/units.js";

// Headers that say nothing of an answer's way; all other "x-" headers are shown.
const PLAIN = new Set([
  "x-accel-buffering",
  "x-content-type-options",
  "x-frame-options",
  "x-request-id",
]);
const NAMES = {
  "x-route": "Answered by",
  "x-backend": "Backend",
  "x-route-reason": "Because",
  "x-cache": "Cache",
};
const VALUES = {
  "x-route": { local: "this device" },
  "x-cache": {
    miss: "nothing found",
    exact: "the same request before",
    semantic: "another request of the same meaning",
  },
};

/** Collects them while an answer comes. */
export class Facts {
  #clock;
  #begunMs;
  #firstMs = NaN;
  #lastMs = NaN;
  #said = new Map();
  #usage = null;

  /** @param {() => number} clock in milliseconds */
  constructor(clock = () => performance.now()) {
    this.#clock = clock;
    this.#begunMs = clock();
    /** Why the answer ended, as the server says it; "" if it has not. */
    this.reason = "";
  }

  /** Note the headers of the answer. */
  begin(headers) {
    for (const [name, value] of headers) {
      if (name.startsWith("x-") && !PLAIN.has(name)) this.#said.set(name, value);
    }
  }

  /** Note a chunk. */
  saw(chunk, hasText) {
    const now = this.#clock();
    if (hasText) {
      if (Number.isNaN(this.#firstMs)) this.#firstMs = now;
      this.#lastMs = now;
    }
    this.reason = chunk.choices?.[0]?.finish_reason || this.reason;
    if (chunk.usage) this.#usage = chunk.usage;
    // What is decided while an answer runs comes with its last chunk, and is newer.
    for (const [name, value] of Object.entries(chunk.onhand ?? {})) {
      if (value !== null && typeof value !== "object") {
        this.#said.set(`x-${name.replaceAll("_", "-")}`, String(value));
      }
    }
  }

  /** One sentence for those who cannot see them. */
  summary() {
    return this.#pairs().map(([name, value]) => `${name}: ${value}.`).join(" ");
  }

  /** Show them in a list of terms. */
  show(list) {
    list.replaceChildren(...this.#pairs().map(([name, value]) => pair(name, value)));
  }

  #pairs() {
    const known = Object.keys(NAMES).filter((name) => this.#said.has(name));
    const names = [...known, ...[...this.#said.keys()].filter((name) => !(name in NAMES))];
    const said = names
      .map((name) => [name, this.#said.get(name)])
      .filter(([name, value]) => name !== "x-backend" || value !== this.#said.get("x-route"));
    const pairs = said.map(([name, value]) => [
      NAMES[name] ?? name.slice(2).replaceAll("-", " "),
      VALUES[name]?.[value] ?? value,
    ]);
    if (!Number.isNaN(this.#firstMs)) {
      pairs.push(["First text", seconds((this.#firstMs - this.#begunMs) / 1000)]);
    }
    const usage = this.#usage;
    const spanS = (this.#lastMs - this.#firstMs) / 1000;
    // The first token's time is that of the prompt.
    const n = (usage?.completion_tokens ?? 0) - 1;
    if (n > 0 && spanS > 0.001) pairs.push(["Speed", `${short(n / spanS)} tokens/s`]);
    if (usage) {
      const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
      pairs.push(["Prompt", `${usage.prompt_tokens.toLocaleString()} tokens`]);
      pairs.push(["Cached", `${cached.toLocaleString()} tokens`]);
      pairs.push(["Answer", `${usage.completion_tokens.toLocaleString()} tokens`]);
    }
    return pairs;
  }
}
