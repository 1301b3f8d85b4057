/** Calls of the server that shows this page; its refusals in its own words. */

const KEY = "onhand-key";

/** A request that was not answered. */
export class Refused extends Error {
  /**
   * @param {string} message one sentence for a person
   * @param {{status?: number, code?: string, retryAfterS?: number}} more status 0 for no answer
   */
  constructor(message, { status = 0, code = "", retryAfterS = NaN } = {}) {
    super(message);
    this.name = "Refused";
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/** Return the bearer key of this tab; "" for none. */
export function readKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Keep a bearer key until this tab is closed; "" forgets it. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/**
 * Ask the server; throws `Refused` for every answer but 2xx.
 *
 * @param {string} path from "/"
 * @param {{body?: object, signal?: AbortSignal}} options a body makes it a POST
 * @returns {Promise<Response>}
 */
export async function call(path, { body, signal } = {}) {
  const headers = { accept: "application/json, text/event-stream, text/plain" };
  const key = readKey();
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      mode: "same-origin",
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** Read an error of the API: `{"error": {"message", "code"}}`. */
export async function refusalOf(response) {
  const text = await response.text().catch(() => "");
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    error = { message: text.slice(0, 500) };
  }
  const wait = Number.parseFloat(response.headers.get("retry-after") ?? "");
  return new Refused(String(error.message || `The server answered ${response.status}.`), {
    status: response.status,
    code: String(error.code ?? ""),
    retryAfterS: wait,
  });
}
