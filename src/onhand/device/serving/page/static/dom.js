/** Small parts that several views are made of. Text goes in as text. */

/** Return an element with a text. */
export function told(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Return a name and its value, for a list of terms. */
export function pair(name, value) {
  const row = document.createElement("div");
  row.append(told("dt", name), told("dd", value));
  return row;
}

/** Return a metric's or a setting's name as words. */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
