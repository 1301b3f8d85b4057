/** The chat: one conversation, asked of `/v1/chat/completions`. */

import { AnswerView, copyButton } from "/page/answer.js";
import { Refused, call } from "/page/api.js";
import { chunksOf } from "/page/events.js";
import { Facts } from "/page/facts.js";
import { askKey } from "/page/key.js";

const find = (id) => document.getElementById(id);

/**
 * Start it.
 *
 * @param {{working: (isWorking: boolean) => void}} told whether an answer is being computed
 * @returns {{loadModels: () => Promise<void>}}
 */
export function startChat(told) {
  const chat = new Chat(told);
  return { loadModels: () => chat.loadModels() };
}

class Chat {
  #told;
  #messages = []; // those that were answered, and their answers
  #running = null;
  #isFollowing = true;
  #lastTop = 0;
  #models = new Map();

  constructor(told) {
    this.#told = told;
    const input = find("input");
    find("settings").open = matchMedia("(min-width: 60rem)").matches;
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("input", fitInput);
    find("stop").addEventListener("click", () => this.#stop());
    find("new").addEventListener("click", () => this.#clear());
    find("latest").addEventListener("click", () => this.#follow());
    find("model").addEventListener("change", () => this.#showModel());
    find("chat").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.#stop();
    });
    find("scroller").addEventListener("scroll", () => this.#scrolled());
    new ResizeObserver(() => this.#scroll()).observe(find("scroller"));
    // On a phone the keyboard would cover half of the page at once.
    if (!matchMedia("(pointer: coarse)").matches) input.focus();
  }

  /** Offer the models that answer in text; asks for a key where one is needed. */
  async loadModels() {
    const select = find("model");
    try {
      const { data } = await (await call("/v1/models")).json();
      const listed = data.filter((one) => (one.task ?? "text-generation") === "text-generation");
      const chosen = select.value;
      this.#models = new Map(listed.map((one) => [one.id, one]));
      select.replaceChildren(...listed.map((one) => new Option(one.id, one.id)));
      if (this.#models.has(chosen)) select.value = chosen;
      this.#showModel(listed.length ? "" : "No model here answers in text.");
    } catch (error) {
      if (error.status === 401 && (await askKey(error.message))) return this.loadModels();
      this.#showModel(error.message);
    }
  }

  #showModel(message = "") {
    const model = this.#models.get(find("model").value);
    const hint = find("model-hint");
    hint.classList.toggle("wrong", message !== "");
    const context = model?.context_length;
    const parts = [
      Number.isFinite(context) && `context ${context.toLocaleString()} tokens`,
      model?.engine && `engine ${model.engine}`,
    ];
    hint.textContent = message || parts.filter(Boolean).join(" · ");
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.altKey) return;
    // While characters are composed, Enter takes the suggested ones; 229 is how Safari says so.
    if (event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#send();
  }

  #send() {
    const input = find("input");
    const text = input.value;
    if (this.#running || !text.trim()) return;
    input.value = "";
    fitInput();
    find("welcome").hidden = true;
    const turn = newTurn("user", "You");
    const shown = new AnswerView(turn.body);
    shown.push(text);
    shown.finish();
    this.#follow();
    this.#ask(text);
  }

  async #ask(text) {
    const asked = { role: "user", content: text };
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    const turn = newTurn("answer", find("model").value || "Answer");
    turn.item.setAttribute("aria-busy", "true");
    const view = new AnswerView(turn.body);
    const facts = new Facts();
    let problem = null;
    this.#scroll();
    try {
      await this.#read(asked, { view, facts, turn, signal: running.signal });
    } catch (error) {
      problem = error;
    }
    view.finish();
    turn.item.removeAttribute("aria-busy");
    // A conversation that was left behind meanwhile has no part in the new one.
    if (this.#running !== running) return;
    this.#running = null;
    this.#busy(false);
    if (view.text) {
      this.#messages.push(asked, { role: "assistant", content: view.text });
      turn.foot.append(copyButton(() => view.text));
    }
    this.#close(turn, facts, problem, text);
    this.#scroll();
  }

  async #read(asked, { view, facts, turn, signal }) {
    const response = await call("/v1/chat/completions", { body: this.#body(asked), signal });
    facts.begin(response.headers);
    facts.show(turn.facts);
    for await (const chunks of chunksOf(response)) {
      for (const chunk of chunks) {
        if (chunk.error) throw new Refused(String(chunk.error.message));
        const text = chunk.choices?.[0]?.delta?.content;
        if (text) view.push(text);
        facts.saw(chunk, Boolean(text));
      }
      facts.show(turn.facts);
      this.#scroll();
    }
  }

  #body(asked) {
    const system = find("system").value.trim();
    const body = {
      messages: [
        ...(system ? [{ role: "system", content: system }] : []),
        ...this.#messages,
        asked,
      ],
      stream: true,
      stream_options: { include_usage: true },
    };
    if (find("model").value) body.model = find("model").value;
    // What is no number there is not sent: the field says itself that it is wrong.
    const temperature = find("temperature").valueAsNumber;
    const most = find("max-tokens").valueAsNumber;
    if (Number.isFinite(temperature)) body.temperature = temperature;
    if (Number.isFinite(most)) body.max_tokens = most;
    return body;
  }

  #close(turn, facts, problem, text) {
    // What was not answered came from nowhere.
    if (turn.body.textContent) facts.show(turn.facts);
    else turn.facts.replaceChildren();
    if (!problem) {
      if (facts.reason === "length") note(turn, "Cut: as many tokens as were allowed, or as fit.");
      say(`The answer has ended. ${facts.summary()}`);
    } else if (problem.name === "AbortError") {
      note(turn, "Stopped.");
      say("Stopped.");
    } else {
      this.#fail(turn, problem, text);
    }
  }

  async #fail(turn, problem, text) {
    const line = document.createElement("p");
    line.className = "error";
    line.setAttribute("role", "alert");
    line.textContent = problem.message;
    if (Number.isFinite(problem.retryAfterS)) {
      line.textContent += ` (Again in ${problem.retryAfterS} s.)`;
    }
    const again = document.createElement("button");
    again.type = "button";
    again.className = "small";
    again.textContent = "Try again";
    again.addEventListener("click", () => {
      if (this.#running) return;
      turn.item.remove();
      find("input").focus();
      this.#ask(text);
    });
    turn.body.append(line);
    turn.foot.append(again);
    if (Number.isFinite(problem.retryAfterS)) {
      again.disabled = true;
      setTimeout(() => (again.disabled = false), problem.retryAfterS * 1000);
    }
    if (problem.status === 401 && (await askKey(problem.message))) {
      await this.loadModels();
      again.click();
    }
  }

  #stop() {
    this.#running?.abort();
  }

  #clear() {
    const running = this.#running;
    this.#running = null;
    running?.abort();
    this.#busy(false);
    this.#messages = [];
    find("log").replaceChildren();
    find("welcome").hidden = false;
    find("input").focus();
    say("A new conversation.");
  }

  #busy(isBusy) {
    const hadFocus = document.activeElement === find(isBusy ? "send" : "stop");
    find("send").hidden = isBusy;
    find("stop").hidden = !isBusy;
    // A button that goes takes the focus with it.
    if (hadFocus) find(isBusy ? "stop" : "input").focus();
    this.#told.working(isBusy);
  }

  #follow() {
    this.#isFollowing = true;
    find("latest").hidden = true;
    this.#scroll();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = find("scroller");
    // Text that came since makes the end look far away: only a person goes upwards.
    if (scrollHeight - scrollTop - clientHeight < 48) this.#isFollowing = true;
    else if (scrollTop < this.#lastTop) this.#isFollowing = false;
    this.#lastTop = scrollTop;
    find("latest").hidden = this.#isFollowing;
  }

  #scroll() {
    if (this.#isFollowing) find("scroller").scrollTop = find("scroller").scrollHeight;
  }
}

function newTurn(kind, name) {
  const item = document.createElement("li");
  const who = document.createElement("h2");
  const body = document.createElement("div");
  const foot = document.createElement("footer");
  const facts = document.createElement("dl");
  item.className = `turn ${kind}`;
  who.textContent = name;
  body.className = "body";
  facts.className = "facts";
  foot.append(facts);
  item.append(who, body);
  if (kind === "answer") item.append(foot);
  find("log").append(item);
  return { item, body, foot, facts };
}

function note(turn, text) {
  const line = document.createElement("p");
  line.className = "note";
  line.textContent = text;
  turn.body.append(line);
}

function say(text) {
  find("status").textContent = text;
}

function fitInput() {
  const input = find("input");
  if (CSS.supports("field-sizing", "content")) return;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}
