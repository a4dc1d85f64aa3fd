/* Ticks for finished days: a box at the end of a day's page, a mark in the table of contents, and on the front page
   the weeks as they fill. Kept in this browser (localStorage); nothing is sent. Without JavaScript there is none of it. */
"use strict";
(() => {
  const KEY = "llm-42-days:finished";
  const NAME = /\/((?:day|tour)\d\d|speedrun)(?=[_.][^/]*$)/;

  function read() {
    try {
      const names = JSON.parse(localStorage.getItem(KEY) || "[]");
      return new Set(Array.isArray(names) ? names.filter((name) => typeof name === "string") : []);
    } catch {
      return new Set(); // no storage in this browser, or not ours
    }
  }

  function write(finished) {
    try {
      localStorage.setItem(KEY, JSON.stringify([...finished].sort()));
      return true;
    } catch {
      return false;
    }
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  const nameOf = (path) => (NAME.exec(path) || [])[1];
  const article = document.querySelector("article.bd-article");
  const here = nameOf(location.pathname);

  function markContents(finished) {
    for (const link of document.querySelectorAll(".bd-sidebar-primary nav a.reference.internal")) {
      // The page that is open links to itself by "#".
      const done = finished.has(nameOf(new URL(link.href, location.href).pathname));
      const mark = link.querySelector(".day-finished");
      if (done && !mark) link.append(element("span", { class: "day-finished" }, element("span", { class: "visually-hidden" }, " finished")));
      if (!done && mark) mark.remove();
    }
  }

  function addBox() {
    const box = element("input", { type: "checkbox", id: "day-finished" });
    const says = element("span", { role: "status" });
    article.append(element("p", { class: "day-tick" }, element("label", { for: "day-finished" }, box, " I have finished this page"), " ", says));
    box.addEventListener("change", () => {
      const finished = read(); // another tab may have ticked something
      if (box.checked) finished.add(here); else finished.delete(here);
      says.textContent = write(finished) ? "" : "This browser keeps nothing here, so the tick is gone when you leave.";
      markContents(finished);
    });
    return () => { box.checked = read().has(here); };
  }

  function addTable(days) {
    const rows = new Map();
    for (const day of days) rows.set(day.row, [...(rows.get(day.row) || []), day]);
    const table = element("div", { class: "weeks" });
    const links = [];
    for (const [row, its] of rows) {
      const list = element("ol");
      for (const day of its) {
        const link = element("a", { href: new URL("../" + day.page, location.href).href, "aria-label": day.label }, day.label.replace(/\D/g, "") || "+");
        links.push([day, link]);
        list.append(element("li", {}, link));
      }
      table.append(element("span", { class: "weeks-row" }, row), list);
    }
    const count = element("span", { role: "status" });
    const forget = element("button", { type: "button" }, "Take all ticks away");
    const about = element("p", { class: "weeks-about" }, count, " ", forget);
    const section = element("section", { id: "your-weeks", "aria-labelledby": "your-weeks-title" },
      element("h2", { id: "your-weeks-title" }, "Your weeks"), table, about);
    (article.querySelector("section section:has(table)") || article.lastElementChild).after(section);
    forget.addEventListener("click", () => { write(new Set()); show(); });
    return () => {
      const finished = read();
      let number = 0;
      for (const [day, link] of links) {
        const done = finished.has(day.name);
        number += done;
        link.classList.toggle("done", done);
        link.setAttribute("aria-label", day.label + (done ? ", finished" : ""));
      }
      count.textContent = number
        ? `${number} of ${days.length} pages finished. Only this browser knows.`
        : "Tick a page at its end, and its square fills here. Only this browser knows.";
      forget.hidden = !number;
    };
  }

  const updates = [() => markContents(read())];
  const days = document.getElementById("course-days");
  if (article && here) updates.push(addBox());
  if (article && days) updates.push(addTable(JSON.parse(days.textContent)));
  const show = () => updates.forEach((update) => update());
  show();
  addEventListener("storage", show); // ticked in another tab
  addEventListener("pageshow", show); // back to a page that the browser had kept
})();
