/** The dialog that asks for the bearer key of this server. */

import { keepKey, readKey } from "/page/api.js";

const find = (id) => document.getElementById(id);
let waiting = null;

/**
 * Ask a person for the key.
 *
 * @param {string} message why; what the server said
 * @returns {Promise<boolean>} whether one was given; false if it was cancelled
 */
export function askKey(message) {
  waiting ??= opened(message).finally(() => (waiting = null));
  return waiting;
}

/** Show the button that changes the key only where there is one. */
export function showKeyButton() {
  find("key-change").hidden = !readKey();
}

function opened(message) {
  const dialog = find("key-dialog");
  const field = find("key");
  find("key-message").textContent = message;
  field.value = "";
  return new Promise((resolve) => {
    const done = new AbortController();
    const end = (isGiven) => {
      done.abort();
      dialog.close();
      showKeyButton();
      resolve(isGiven);
    };
    const on = (target, kind, act) =>
      target.addEventListener(kind, act, { signal: done.signal });
    on(find("key-form"), "submit", (event) => {
      event.preventDefault();
      const key = field.value.trim();
      if (!/^[\x21-\x7e]*$/.test(key)) {
        find("key-message").textContent = "A key has letters, digits and signs of ASCII alone.";
        return;
      }
      keepKey(key);
      field.value = "";
      end(true);
    });
    on(find("key-cancel"), "click", () => end(false));
    on(dialog, "cancel", (event) => {
      event.preventDefault();
      end(false);
    });
    dialog.showModal();
    field.focus();
  });
}
