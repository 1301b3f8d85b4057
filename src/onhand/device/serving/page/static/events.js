/** Server-sent events, read from the body of an answer. */

import { Refused } from "/page/api.js";

/** Cuts a stream of text into the data of events; comments and other fields are passed over. */
export class EventReader {
  #rest = "";
  #data = [];

  /**
   * @param {string} text what came next
   * @returns {string[]} the data of the events that are whole now
   */
  push(text) {
    const events = [];
    // A carriage return at the end may be half of a line's end.
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}

function brokenOff(error) {
  if (error.name === "AbortError") throw error;
  throw new Refused("The connection to the server was lost; the answer is not whole.");
}

/**
 * Yield the chunks of a streamed answer, in groups as they arrive, up to its end.
 *
 * @param {Response} response
 * @returns {AsyncGenerator<object[]>}
 */
export async function* chunksOf(response) {
  const events = new EventReader();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(brokenOff);
      const found = events.push(done ? decoder.decode() : decoder.decode(value, { stream: true }));
      const end = found.indexOf("[DONE]");
      const chunks = (end < 0 ? found : found.slice(0, end)).map((data) => JSON.parse(data));
      if (chunks.length) yield chunks;
      if (done || end >= 0) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
