/** Turns readings of `/metrics` into figures to plot: whatever the server counts gets its place. */

import { quantile } from "/page/prometheus.js";

/**
 * @typedef {{id: string, section: string, title: string, unit: string, help: string}} Panel
 * @typedef {{panel: Panel, label: string, value: number | string}} Figure
 * @typedef {{timeS: number, families: Map<string, import("/page/prometheus.js").Family>}} Reading
 */

/** Names of sections, in the order they are shown in, and which metrics belong there. */
const SECTIONS = [
  ["Requests", /^(active_|waiting_)?requests$|^tokens$|^first_text/],
  ["Caches", /cache|prefix|semantic|block/],
  ["Backends and routes", /backend|peer|rout|hedge|retr|breaker|outbox|race|cascade/],
  ["Governor", /governor|pressure|temperature|battery|threads|drift/],
  ["Models", /model|shelf|bundle|memory/],
  ["Other", /(?:)/],
];
const PREFIX = "onhand_";
const WINDOW_S = 30; // quantiles and hit rates are of what happened in it

/** Panels that come first in their sections; others follow by their titles. */
const FIRST = ["at-work", "tokens", "first_text_seconds", "requests", "cache-bytes", "cache-hits"];

/** Return a word by which panels are put in order. */
export function orderOf({ id, section, title }) {
  const rank = FIRST.includes(id) ? FIRST.indexOf(id) : FIRST.length;
  return `${SECTIONS.findIndex(([name]) => name === section)} ${rank} ${title}`;
}

/**
 * Compute the figures of now.
 *
 * @param {Reading[]} readings oldest first; the last is now
 * @returns {Figure[]}
 */
export function figuresOf(readings) {
  const now = readings.at(-1);
  const found = [];
  for (const family of now.families.values()) {
    if (family.name.startsWith(PREFIX)) found.push(...familyFigures(family, readings));
  }
  return found;
}

function familyFigures(family, readings) {
  const name = family.name.slice(PREFIX.length).replace(/_total$/, "");
  const cache = /^(.+?)_cache(?:_(.+))?_(hits|misses)$/.exec(name);
  if (cache?.[3] === "misses") return []; // with the hits
  if (cache) return hitRates(family, [cache[1], cache[2]].filter(Boolean).join(" "), readings);
  if (isTold(family, name)) return toldFigures(family, name);
  if (family.type === "histogram") return quantiles(family, name, readings);
  const isCounter = family.type === "counter" || family.name.endsWith("_total");
  const panel = panelOf(name, family.help, isCounter);
  const before = isCounter ? earlier(readings, 1) : null;
  const spanS = before ? readings.at(-1).timeS - before.timeS : 0;
  return family.samples.flatMap((sample) => {
    const label = labelOf(sample.labels) || plainLabel(name);
    if (!isCounter) return [{ panel, label, value: sample.value }];
    if (!before) return [];
    return [{ panel, label, value: grown(sample, family, before) / spanS }];
  });
}

/** Where a metric is shown; several that belong together share one panel. */
function panelOf(name, help, isCounter) {
  const section = SECTIONS.find(([, pattern]) => pattern.test(name))[0];
  const panel = { id: name, section, title: words(name), unit: unitOf(name, isCounter), help };
  if (/^(active|waiting)_requests$/.test(name)) {
    return { ...panel, id: "at-work", title: "Requests at work", unit: "requests", help: "" };
  }
  if (/_cache(_.+)?_bytes$/.test(name) && !isCounter) {
    return { ...panel, id: "cache-bytes", title: "Held by caches", help: "" };
  }
  if (name === "tokens") return { ...panel, unit: "tokens/s", help: "" };
  if (name === "requests") return { ...panel, title: "Answers that ended", help: "" };
  if (name === "first_text_seconds") return { ...panel, title: "Time to first text", help: "" };
  return panel;
}

function plainLabel(name) {
  return words(name.replace(/_(requests|cache|bytes|seconds)(?=_|$)/g, "") || name).toLowerCase();
}

function unitOf(name, isCounter) {
  const unit = /_(bytes|seconds)$/.exec(name)?.[1];
  if (/_(ratio|fraction|share|rate)$/.test(name) && !isCounter) return "fraction";
  if (!isCounter) return unit ?? "";
  return unit === "bytes" ? "bytes/s" : unit === "seconds" ? "seconds per second" : "per second";
}

/** Some metrics say a word: by a label beside the value 1. */
function isTold(family, name) {
  return (
    name.endsWith("_info") ||
    family.samples.every(({ labels, value }) => family.name in labels && (value === 0 || value === 1))
  );
}

function toldFigures(family, name) {
  const panel = { ...panelOf(name, family.help, false), unit: "told" };
  return family.samples
    .filter(({ value }) => value === 1)
    .flatMap(({ labels }) =>
      Object.entries(labels).map(([label, value]) => ({
        panel,
        label: words(label.replace(PREFIX, "")),
        value,
      })),
    );
}

function quantiles(family, name, readings) {
  const panel = panelOf(name, family.help, false);
  const before = earlier(readings, WINDOW_S)?.families.get(family.name);
  const now = bucketsOf(family);
  const then = before ? bucketsOf(before) : new Map();
  return [...now].flatMap(([label, buckets]) =>
    [["median", 0.5], ["95th percentile", 0.95]].map(([title, q]) => ({
      panel,
      label: label ? `${label} · ${title}` : title,
      value: before ? quantile(buckets, then.get(label) ?? new Map(), q) : NaN,
    })),
  );
}

function bucketsOf(family) {
  const found = new Map();
  for (const { name, labels, value } of family.samples) {
    if (!name.endsWith("_bucket")) continue;
    const { le, ...others } = labels;
    const label = labelOf(others);
    if (!found.has(label)) found.set(label, new Map());
    found.get(label).set(le === "+Inf" ? Infinity : Number(le), value);
  }
  return found;
}

function hitRates(hits, cache, readings) {
  const misses = readings.at(-1).families.get(hits.name.replace("_hits", "_misses"));
  const before = earlier(readings, WINDOW_S);
  const panel = {
    id: "cache-hits",
    section: "Caches",
    title: "Found in caches",
    unit: "fraction",
    help: `Share of look-ups of the last ${WINDOW_S} s that found something.`,
  };
  return hits.samples.map((sample) => {
    const label = [words(cache).toLowerCase(), labelOf(sample.labels)].filter(Boolean).join(" · ");
    const missed = misses?.samples.find((one) => labelOf(one.labels) === labelOf(sample.labels));
    if (!before || !missed) return { panel, label, value: NaN };
    const nHits = grown(sample, hits, before);
    const n = nHits + grown(missed, misses, before);
    return { panel, label, value: n > 0 ? nHits / n : NaN };
  });
}

/** How much a count has grown; a server that began again counts from zero. */
function grown(sample, family, before) {
  const samples = before.families.get(family.name)?.samples ?? [];
  const label = labelOf(sample.labels);
  const old = samples.find((one) => one.name === sample.name && labelOf(one.labels) === label);
  const was = old?.value ?? 0;
  return sample.value >= was ? sample.value - was : sample.value;
}

/** The newest reading that is at least so old, or else the oldest; null if there is none. */
function earlier(readings, ageS) {
  if (readings.length < 2) return null;
  const now = readings.at(-1).timeS;
  // A poll is a little early at times: half a second counts as a whole one.
  return readings.findLast(({ timeS }) => now - timeS >= ageS - 0.5) ?? readings[0];
}

function labelOf(labels) {
  return Object.values(labels).join(" · ");
}

function words(name) {
  const text = name.replace(/_(bytes|seconds|info)$/, "").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
