/** Numbers and units, as people read them. */

/** Write a number with three digits that count. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return Number(value.toFixed(Math.abs(value) < 1 ? 3 : digits)).toLocaleString();
}

/** Write a time in seconds. */
export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  if (value < 1) return `${short(value * 1000)} ms`;
  return value < 120 ? `${short(value)} s` : `${short(value / 60)} min`;
}

/** Write a size in bytes. */
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  for (; Math.abs(value) >= 1024 && step < units.length - 1; step += 1) value /= 1024;
  return `${short(value)} ${units[step]}`;
}

/** How to write values of a unit: "bytes", "seconds", "fraction"; others are plain numbers. */
export function writerOf(unit) {
  if (unit === "bytes") return bytes;
  if (unit === "bytes/s") return (value) => `${bytes(value)}/s`;
  if (unit === "seconds") return seconds;
  if (unit === "fraction") return (value) => `${short(value * 100)} %`;
  return short;
}
