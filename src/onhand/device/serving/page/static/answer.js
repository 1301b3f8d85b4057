/** Shows text as it comes. It is never read as HTML: every character goes into a text node. */

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const MAYBE_FENCE = /^ {0,3}(`{0,2}|`{3,}[^`]*|~{0,2}|~{3,}[^`]*)$/;

/** One message: paragraphs, and blocks of code between fences of ``` or ~~~. */
export class AnswerView {
  #place;
  #held = "";
  #atLineStart = true;
  #fence = "";
  #node = null;

  /** @param {HTMLElement} place where it is shown */
  constructor(place) {
    this.#place = place;
    /** All of it, as it came. */
    this.text = "";
  }

  /** Show more text. */
  push(text) {
    this.text += text;
    this.#held += text;
    while (this.#held && this.#takeLine()) { /* as far as it is known what it is */ }
  }

  /** Show what was held back because it might have become a fence. */
  finish() {
    if (this.#held && !this.#isFence(this.#held)) this.#show(this.#held);
    this.#held = "";
  }

  #takeLine() {
    const end = this.#held.indexOf("\n");
    if (this.#atLineStart) {
      const line = end < 0 ? this.#held : this.#held.slice(0, end);
      if (end < 0 && MAYBE_FENCE.test(line)) return false;
      if (this.#isFence(line)) {
        this.#turn(line);
        this.#held = this.#held.slice(end + 1);
        return true;
      }
    }
    const part = end < 0 ? this.#held : this.#held.slice(0, end + 1);
    if (part === "\n" && this.#atLineStart && !this.#fence) this.#node = null;
    else this.#show(part);
    this.#held = this.#held.slice(part.length);
    this.#atLineStart = end >= 0;
    return true;
  }

  #isFence(line) {
    const found = FENCE.exec(line);
    if (!found) return false;
    if (!this.#fence) return true;
    // The end: the same sign, at least as often, and nothing behind it.
    return found[1].startsWith(this.#fence) && found[2] === "";
  }

  #turn(line) {
    if (this.#fence) {
      this.#fence = "";
      this.#node = null;
      return;
    }
    const [, sign, language] = FENCE.exec(line);
    this.#fence = sign;
    const block = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const code = document.createElement("code");
    const pre = document.createElement("pre");
    caption.append(language.trim().slice(0, 40) || "code", copyButton(() => code.textContent));
    pre.tabIndex = 0; // so that it can be scrolled by keys
    pre.setAttribute("role", "region");
    pre.setAttribute("aria-label", "Code");
    pre.append(code);
    block.append(caption, pre);
    this.#place.append(block);
    this.#node = code.appendChild(document.createTextNode(""));
  }

  #show(text) {
    if (!this.#node) {
      const paragraph = document.createElement("p");
      paragraph.dir = "auto";
      this.#place.append(paragraph);
      this.#node = paragraph.appendChild(document.createTextNode(""));
    }
    this.#node.appendData(text);
  }
}

/** Return a button that copies what `text` returns when it is pressed. */
export function copyButton(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS, pages of other names than loopback's have no clipboard; this way is older.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}
