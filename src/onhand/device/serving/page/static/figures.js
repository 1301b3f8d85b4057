/** Turns readings of `/metrics` into figures to plot: whatever the server counts gets its place. */

import { words } from "/page/dom.js";
import { quantile } from "/page/prometheus.js";

/**
 * @typedef {{id: string, section: string, title: string, unit: string, help: string}} Panel
 * @typedef {{panel: Panel, label: string, value: number | string}} Figure
 * @typedef {{timeS: number, families: Map<string, import("/page/prometheus.js").Family>}} Reading
 */

/** Names of sections, in the order they are shown in, and which metrics belong there. */
const SECTIONS = [
  ["Requests", /^(active_|waiting_|governor_read_waiting_)?requests$|^tokens$|^first_text/],
  ["Caches", /^(?!governor).*(cache|prefix|semantic|block)/],
  [
    "Backends and routes",
    /^(?!governor).*(backend|peer|rout|hedge|retr|breaker|outbox|race|cascade|network)/,
  ],
  ["Governor", /governor|pressure|temperature|battery|threads|drift/],
  ["Models", /model|shelf|bundle|memory/],
  ["Other", /(?:)/],
];
/** Gauges that are parts of one thing share a panel. */
const SHARED = [
  [
    /^(active|waiting|governor_read_waiting)_requests$/,
    { id: "at-work", title: "Requests at work", unit: "requests" },
  ],
  [/_cache(_.+)?_bytes$|^blocks_bytes$/, { id: "cache-bytes", title: "Held by caches" }],
  [
    /^outbox_(waiting|sending|done|failed|expired)$/,
    { id: "outbox", title: "Deferred requests", unit: "requests" },
  ],
  [
    /^blocks_(written|evicted|damaged|skipped)$/,
    { id: "blocks-events", title: "Key/value blocks, since the start", unit: "" },
  ],
  [/^memory_(budget|taken)_bytes$/, { id: "memory", title: "Memory for models" }],
  [
    /^governor_(threads|max_active|max_stall|variant_step)$/,
    { id: "set", title: "Set by the governor", unit: "" },
  ],
  [
    /^governor_read_(cpu_pressure|memory_pressure|stolen|throttled)$/,
    { id: "pressure", title: "Pressure, as a share of time", unit: "fraction" },
  ],
  [
    /^governor_read_(others_cpus|waiting_threads)$/,
    { id: "processors", title: "Processors", unit: "" },
  ],
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
  const found = /^(.+)_(hits|misses)$/.exec(name);
  if (found?.[2] === "misses") return []; // with the hits
  if (found) return hitRates(family, found[1].replace("_cache", ""), readings);
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
  const panel = { id: name, section, title: titleOf(name), unit: unitOf(name, isCounter), help };
  const shared = SHARED.find(([pattern]) => !isCounter && pattern.test(name));
  if (shared) return { ...panel, ...shared[1], help: "" };
  if (name === "tokens") return { ...panel, unit: "tokens/s", help: "" };
  if (name === "requests") return { ...panel, title: "Answers that ended", help: "" };
  if (name === "first_text_seconds") return { ...panel, title: "Time to first text", help: "" };
  return panel;
}

function plainLabel(name) {
  const noise = /^(outbox|memory|governor_read|governor)_|_(requests|cache|bytes|seconds)(?=_|$)/g;
  return titleOf(name.replace(noise, "") || name).toLowerCase();
}

function unitOf(name, isCounter) {
  const unit = /_(bytes|seconds)$/.exec(name)?.[1];
  if (/_(ratio|fraction|share|pressure)$/.test(name) && !isCounter) return "fraction";
  if (/_(celsius|c)$/.test(name)) return "°C";
  if (!isCounter) return unit ?? "";
  return unit === "bytes" ? "bytes/s" : unit === "seconds" ? "seconds per second" : "per second";
}

/** Some metrics say a word: by a label beside the value 1. */
function isTold(family, name) {
  return (
    name.endsWith("_info") ||
    family.samples.every(
      ({ labels, value }) => family.name in labels && (value === 0 || value === 1),
    )
  );
}

function toldFigures(family, name) {
  const panel = { ...panelOf(name, family.help, false), unit: "told" };
  return family.samples
    .filter(({ value }) => value === 1)
    .flatMap(({ labels }) =>
      Object.entries(labels).map(([label, value]) => ({
        panel,
        label: titleOf(label.replace(PREFIX, "")),
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
    title: `Found in caches, of ${WINDOW_S} s`,
    unit: "fraction",
    help: "",
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

/** The newest reading that is at least so old, or else the oldest; null if all are too new. */
function earlier(readings, ageS) {
  const now = readings.at(-1).timeS;
  // A reading is a little early at times: half a second counts as a whole one. What happened in
  // less than that is no rate.
  const old = readings.filter(({ timeS }) => now - timeS >= 0.5);
  return old.findLast(({ timeS }) => now - timeS >= ageS - 0.5) ?? old[0] ?? null;
}

function labelOf(labels) {
  return Object.values(labels).join(" · ");
}

function titleOf(name) {
  return words(name.replace(/^governor_(read_)?|_(bytes|seconds|celsius|info)$/g, ""));
}
