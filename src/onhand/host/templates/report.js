"use strict";
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let shown = null;

  const show = (mark) => {
    shown = mark;
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const left = Math.max(8, Math.min(box.x + box.width / 2 - tip.offsetWidth / 2, room));
    const above = box.y - tip.offsetHeight - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above < 4 ? box.bottom + 8 : above) + scrollY}px`;
  };
  const hide = () => { shown = null; tip.hidden = true; };

  for (const mark of document.querySelectorAll("[data-tip]")) {
    mark.querySelector("title")?.remove(); // two of them would lie over each other
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const mark = document.activeElement;
    if (!step || !mark?.matches?.("[data-tip]")) return;
    const marks = [...mark.closest("svg").querySelectorAll("[data-tip]")];
    marks[(marks.indexOf(mark) + step + marks.length) % marks.length].focus();
    event.preventDefault();
  });
  addEventListener("resize", () => { if (shown) show(shown); });

  const across = document.querySelector("#front-x");
  const up = document.querySelector("#front-y");
  if (across && up) {
    const planes = [...document.querySelectorAll(".chosen-plane")];
    const choose = () => {
      hide();
      for (const plane of planes) {
        plane.hidden = plane.dataset.x !== across.value || plane.dataset.y !== up.value;
      }
    };
    across.closest(".controls").hidden = planes.length < 2;
    across.addEventListener("change", choose);
    up.addEventListener("change", choose);
    choose();
  }
  // What is folded away is printed too.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
