"use strict";
// Sorts and filters the table of cases, scrolls the slices of volumes, and shows one case large. The page is whole
// without it.
const table = document.querySelector("table.cases");
const rows = table ? [...table.tBodies[0].rows] : [];

function value(row, column) {
  const text = row.cells[column].dataset.v ?? "";
  const number = Number(text);
  return text !== "" && !Number.isNaN(number) ? number : text;
}

function sort(head) {
  const falling = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const column = head.cellIndex;
  const keyed = rows.map((row) => [value(row, column), row]);
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  keyed.sort((a, b) => (falling ? -1 : 1) * compare(a[0], b[0]));
  table.tBodies[0].append(...keyed.map((pair) => pair[1]));
}

function filter() {
  const state = document.getElementById("case-state")?.value ?? "";
  const wanted = document.getElementById("case-class")?.value ?? "";
  const search = document.getElementById("case-search").value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const fits =
      (!state || row.dataset.state === state) &&
      (!wanted || row.dataset.class.split(" ").includes(wanted)) &&
      row.querySelector("th").dataset.v.toLowerCase().includes(search);
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("case-count").textContent = `${shown} case${shown === 1 ? "" : "s"}`;
}

function draw(image) {
  if (!image.dataset.src) return;
  image.src = image.dataset.src;
  delete image.dataset.src;
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    near.unobserve(entry.target);
    entry.target.querySelectorAll("img").forEach(draw);
  }
}, { rootMargin: "400px" });
for (const row of rows) near.observe(row);
addEventListener("beforeprint", () => document.querySelectorAll("img").forEach(draw));

function show(frame, slice) {
  const count = Number(frame.dataset.slices);
  frame.querySelector("img").style.transform = `translateY(${(-100 * slice) / count}%)`;
}

for (const slider of document.querySelectorAll(".scroller .slice")) {
  slider.addEventListener("input", () => show(slider.parentElement.querySelector(".frame"), Number(slider.value)));
}

if (table) {
  for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => sort(button.closest("th")));
  const form = document.querySelector(".controls");
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
}

const viewer = document.getElementById("viewer");
if (viewer) {
  const large = viewer.querySelector(".shown");
  const slider = viewer.querySelector(".slice");
  const told = viewer.querySelector(".told");
  let current = null;

  function look(row) {
    current = row;
    row.querySelectorAll("img").forEach(draw);
    large.replaceChildren(...[...row.querySelectorAll(".frame")].map((frame) => frame.cloneNode(true)));
    const first = large.querySelector(".frame");
    const count = first ? Number(first.dataset.slices) : 1;
    slider.hidden = count === 1;
    slider.max = count - 1;
    slider.value = Math.floor(count / 2);
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const cells = [...row.cells].map((cell, place) => [names[place], cell]);
    told.textContent = cells
      .filter((pair) => !pair[1].querySelector(".frame") && pair[1].textContent !== "–")
      .map((pair) => `${pair[0]}: ${pair[1].textContent}`)
      .join(" · ");
    if (!viewer.open) viewer.showModal();
  }

  function step(direction) {
    const visible = [...table.tBodies[0].rows].filter((row) => !row.hidden && row.querySelector(".frame"));
    const next = visible[visible.indexOf(current) + direction];
    if (next) look(next);
  }

  for (const button of table.querySelectorAll("button.look")) button.addEventListener("click", () => look(button.closest("tr")));
  viewer.querySelector(".previous").addEventListener("click", () => step(-1));
  viewer.querySelector(".next").addEventListener("click", () => step(1));
  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  slider.addEventListener("input", () => show(large.querySelector(".frame"), Number(slider.value)));
  viewer.addEventListener("keydown", (event) => {
    if (event.target === slider) return;
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) step(move);
  });
  large.addEventListener("wheel", (event) => {
    if (slider.hidden) return;
    event.preventDefault();
    slider.value = Number(slider.value) + Math.sign(event.deltaY);
    show(large.querySelector(".frame"), Number(slider.value));
  }, { passive: false });
}
