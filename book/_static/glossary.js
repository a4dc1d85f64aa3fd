/* A field above the glossary that shows only the entries with the words typed into it.
   Without JavaScript there is no field, and the list is whole. */
"use strict";
(() => {
  const list = document.querySelector("dl.glossary");
  if (!list) return;

  // One entry is the terms (dt) that stand before a definition, and the definition (dd).
  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const entries = [];
  let parts = [];
  for (const part of list.children) {
    parts.push(part);
    if (part.tagName !== "DD") continue;
    entries.push({ parts, text: plain(parts.map((p) => p.textContent).join(" ")) });
    parts = [];
  }

  const form = document.createElement("form");
  form.className = "glossary-filter";
  form.setAttribute("role", "search");
  form.setAttribute("aria-label", "Glossary");
  form.innerHTML =
    '<label for="glossary-filter">Filter the entries</label>' +
    '<input id="glossary-filter" type="search" autocomplete="off" spellcheck="false" aria-describedby="glossary-count">' +
    '<p id="glossary-count" role="status"></p>';
  const field = form.querySelector("input"), count = form.querySelector("p");

  function filter() {
    const words = plain(field.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const entry of entries) {
      const match = words.every((word) => entry.text.includes(word));
      for (const part of entry.parts) part.hidden = !match;
      shown += match;
    }
    count.textContent = words.length ? `${shown} of ${entries.length} entries` : `${entries.length} entries`;
  }

  function clear() {
    field.value = "";
    filter();
  }

  field.addEventListener("input", filter);
  field.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("beforeprint", clear);
  // A link to an entry that is filtered out has to lead somewhere.
  addEventListener("hashchange", () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !list.contains(target) || !target.closest("[hidden]")) return;
    clear();
    target.scrollIntoView();
  });
  list.before(form);
  filter();
})();
