"use strict";
// Asks for the same page again and takes over what has changed, element by element: so focus, scrolling and what
// somebody has typed stay where they are. Rows are told apart by their ids.
(() => {
  const every = 1000 * Number(document.body.dataset.refresh || 0);
  if (!every) return;
  const button = document.getElementById("updates"), trouble = document.getElementById("trouble");
  let stopped = false, timer = 0, failed = 0;

  const takeAttributes = (part, next) => {
    for (const { name } of [...part.attributes]) if (!next.hasAttribute(name)) part.removeAttribute(name);
    for (const { name, value } of next.attributes) if (part.getAttribute(name) !== value) part.setAttribute(name, value);
  };
  const takeChildren = (part, next) => {
    let place = part.firstChild;
    for (const child of [...next.childNodes]) {
      const twin = child.id ? [...part.children].find(({ id }) => id === child.id) : place && !place.id ? place : null;
      if (!twin) part.insertBefore(child, place);
      else {
        if (twin === place) place = place.nextSibling;
        else part.insertBefore(twin, place);
        take(twin, child);
      }
    }
    while (place) {
      const gone = place;
      place = place.nextSibling;
      gone.remove();
    }
  };
  const take = (part, next) => {
    if (part.nodeName !== next.nodeName) part.replaceWith(next);
    else if (part.nodeType === Node.TEXT_NODE) {
      if (part.data !== next.data) part.data = next.data;
    } else if (part.nodeType === Node.ELEMENT_NODE && !part.isEqualNode(next)) {
      takeAttributes(part, next);
      takeChildren(part, next);
    }
  };

  const end = () => {
    stopped = true;
    if (document.activeElement === button) document.getElementById("main").focus({ preventScroll: true });
    button.hidden = true;
  };
  const update = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
        if (answer.type === "opaqueredirect") return location.reload(); // the session is over: to the sign-in
        if (!answer.ok) throw new Error(answer.status);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (stopped) return;
        for (const part of document.querySelectorAll("[data-live]")) {
          const next = fresh.getElementById(part.id);
          if (next) take(part, next);
        }
        document.title = fresh.title;
        failed = 0;
        if (!fresh.body.dataset.refresh) end();
      } catch {
        failed = Math.min(failed + 1, 4);
      }
      trouble.textContent = failed > 1 ? "Not up to date: the server does not answer. Trying again." : "";
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
