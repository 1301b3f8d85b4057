/** Starts the page: two views, one of them shown. */

import { startChat } from "/page/chat.js";
import { askKey, showKeyButton } from "/page/key.js";
import { Live } from "/page/live.js";

const find = (id) => document.getElementById(id);
const live = new Live();
const chat = startChat({ working: (isWorking) => live.follow("answer", isWorking) });

function show() {
  const name = location.hash === "#live" ? "live" : "chat";
  for (const view of ["chat", "live"]) {
    find(view).hidden = view !== name;
    if (view === name) find(`to-${view}`).setAttribute("aria-current", "page");
    else find(`to-${view}`).removeAttribute("aria-current");
  }
  find("skip").hidden = name !== "chat";
  document.title = name === "live" ? "Live · onhand" : "onhand";
  live.follow("view", name === "live");
}

addEventListener("hashchange", show);
find("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  find("input").focus();
});
find("key-change").addEventListener("click", async () => {
  if (await askKey("Enter another key, or none to forget it.")) await chat.loadModels();
});
showKeyButton();
show();
await chat.loadModels();
