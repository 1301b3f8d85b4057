/** Reads the text format of Prometheus, as `/metrics` gives it. */

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const PARTS = /_(?:bucket|sum|count)$/;

/**
 * @typedef {{name: string, labels: Object<string, string>, value: number}} Sample
 * @typedef {{name: string, help: string, type: string, samples: Sample[]}} Family
 */

/**
 * Read all families of metrics.
 *
 * @param {string} text
 * @returns {Map<string, Family>} by name
 */
export function parseMetrics(text) {
  const families = new Map();
  const family = (name) => {
    if (!families.has(name)) families.set(name, { name, help: "", type: "untyped", samples: [] });
    return families.get(name);
  };
  for (const line of text.split("\n")) {
    const comment = /^# (HELP|TYPE) (\S+) ?(.*)$/.exec(line);
    if (comment) {
      family(comment[2])[comment[1] === "HELP" ? "help" : "type"] = comment[3];
      continue;
    }
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!found) continue;
    const [, name, labels = "", value] = found;
    const whole = name.replace(PARTS, "");
    const isPart = families.get(whole)?.type === "histogram";
    const sample = { name, labels: labelsOf(labels), value: numberOf(value) };
    family(isPart ? whole : name).samples.push(sample);
  }
  for (const [name, { samples }] of families) {
    // When a counter began says nothing about the server.
    if (!samples.length || name.endsWith("_created")) families.delete(name);
  }
  return families;
}

/**
 * Estimate a quantile of what a histogram saw between two readings.
 *
 * @param {Map<number, number>} after upper bound -> how many were at most that, later
 * @param {Map<number, number>} before the same, earlier
 * @param {number} q from 0 to 1
 * @returns {number} NaN if it saw nothing
 */
export function quantile(after, before, q) {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => after.get(bound) - (before.get(bound) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (!(total > 0)) return NaN;
  const rank = q * total;
  const at = counts.findIndex((count) => count >= rank);
  const low = at ? bounds[at - 1] : 0;
  // Nothing is known of how far beyond the last bound they were.
  if (!Number.isFinite(bounds[at])) return low;
  const below = at ? counts[at - 1] : 0;
  const within = counts[at] - below;
  return within > 0 ? low + ((bounds[at] - low) * (rank - below)) / within : bounds[at];
}

function labelsOf(text) {
  const found = {};
  for (const [, name, value] of text.matchAll(LABEL)) {
    found[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
  }
  return found;
}

function numberOf(text) {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  return Number(text);
}
