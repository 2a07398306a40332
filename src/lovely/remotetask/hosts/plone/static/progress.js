// SPDX-License-Identifier: ZPL-2.1
// Keeps the progress of the user's jobs up to date: every two seconds while something moves,
// and up to half a minute apart while nothing does.
(function () {
  "use strict";
  const box = document.querySelector(".remotetask-own[data-url]");
  if (!box) return;
  const FIRST = 2000;
  const LONGEST = 30000;
  let wait = FIRST;
  let last = "";

  function line(job) {
    const row = document.createElement("div");
    row.className = "remotetask-job";
    row.dataset.id = job.id;
    const title = document.createElement("span");
    title.textContent = job.title + " ";
    row.append(title);
    if (job.is_final) {
      const end = document.createElement("strong");
      end.textContent = job.status + " ";
      row.append(end);
    } else {
      const bar = document.createElement("progress");
      if (job.total) {
        bar.max = job.total;
        bar.value = job.done;
      }
      row.append(bar, " ");
    }
    const text = document.createElement("span");
    text.textContent = job.text;
    row.append(text);
    return row;
  }

  function show(jobs) {
    const told = JSON.stringify(jobs);
    wait = told === last ? Math.min(wait * 1.5, LONGEST) : FIRST;
    last = told;
    box.replaceChildren(...jobs.map(line));
    return jobs.some((job) => !job.is_final);
  }

  async function look() {
    let goes_on = true;
    if (!document.hidden) {
      const ids = [...box.querySelectorAll("[data-id]")].map((row) => row.dataset.id);
      try {
        const answer = await fetch(box.dataset.url + "?ids=" + ids.join(","), {
          credentials: "same-origin",
          headers: { Accept: "application/json" },
        });
        if (!answer.ok) return;
        goes_on = show((await answer.json()).jobs);
      } catch (error) {
        wait = LONGEST;
      }
    }
    if (goes_on) setTimeout(look, wait);
  }

  setTimeout(look, FIRST);
})();
