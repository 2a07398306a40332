// SPDX-License-Identifier: ZPL-2.1
// What the management pages do beyond HTML and htmx; all of it works without this file too.
(() => {
  "use strict";

  const ticks = () => [...document.querySelectorAll("input[name=job]")];

  // The tick that selects all jobs of the page: it is of no use without this file.
  function showSelector() {
    const selector = document.querySelector("input[data-selects]");
    if (!selector) return;
    const all = ticks();
    selector.hidden = all.length === 0;
    const count = all.filter((tick) => tick.checked).length;
    selector.checked = count > 0 && count === all.length;
    selector.indeterminate = count > 0 && count < all.length;
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches("input[data-selects]")) {
      for (const tick of ticks()) tick.checked = event.target.checked;
    }
    showSelector();
  });

  // Nobody looks at a hidden page: it does not ask either.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden && event.target.matches("[data-live]")) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !window.htmx) return;
    for (const part of document.querySelectorAll("[data-live]")) htmx.trigger(part, "shown");
  });

  // What is shown is old when the server does not answer; who leaves the page does not wait for it.
  let isLeaving = false;
  window.addEventListener("beforeunload", () => { isLeaving = true; });
  window.addEventListener("pageshow", () => { isLeaving = false; });
  function tellStale(isStale) {
    if (isStale && isLeaving) return;
    const note = document.getElementById("stale");
    if (!note || note.hidden === !isStale) return;
    note.hidden = !isStale;
    note.role = "status";
    note.textContent = isStale ? note.dataset.text : "";
  }
  for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
    document.addEventListener(name, () => tellStale(true));
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful) tellStale(false);
  });
  document.addEventListener("htmx:afterSwap", showSelector);
  document.addEventListener("DOMContentLoaded", showSelector);
})();
