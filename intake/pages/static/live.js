"use strict";
// Asks for the same page again and takes over the parts marked data-live that have changed.
(() => {
  const every = 1000 * Number(document.body.dataset.refresh || 0);
  if (!every) return;
  const button = document.getElementById("updates");
  let stopped = false, timer = 0, failed = 0;
  const busy = (part) => part.contains(document.activeElement) && document.activeElement !== document.body;
  const update = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
        if (!answer.ok) throw new Error(answer.status);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const next = fresh.getElementById(part.id);
          if (next && next.innerHTML !== part.innerHTML && !busy(part)) part.replaceChildren(...next.childNodes);
        }
        document.title = fresh.title;
        failed = 0;
        if (!fresh.body.dataset.refresh) return location.reload();
      } catch {
        failed = Math.min(failed + 1, 5);
      }
    }
    if (!stopped) timer = setTimeout(update, every * 2 ** failed);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    stopped = !stopped;
    button.textContent = stopped ? "Go on updating" : "Stop updating";
    clearTimeout(timer);
    if (!stopped) update();
  });
  timer = setTimeout(update, every);
})();
