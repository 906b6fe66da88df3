"use strict";
const filters = document.querySelector("form.filters");
const queries = [...document.querySelectorAll("article.query")];
const names = new Map(
  queries.map((query) => [
    query,
    [...query.querySelectorAll("h3, figcaption .quiet")].map((name) => name.textContent.toLowerCase()),
  ]),
);

function show() {
  const outcome = filters.elements.outcome?.value ?? "";
  const text = filters.elements.text.value.trim().toLowerCase();
  let shown = 0;
  for (const query of queries) {
    const named = names.get(query).some((name) => name.includes(text));
    query.hidden = (outcome && query.dataset.outcome !== outcome) || !named;
    shown += !query.hidden;
  }
  document.getElementById("nothing").hidden = shown > 0;
  filters.querySelector("output").value = `${shown} of ${queries.length}`;
}

filters.addEventListener("input", show);
filters.addEventListener("submit", (event) => event.preventDefault());
// A dot of the map may link to a query that is filtered out.
window.addEventListener("hashchange", () => {
  const wanted = document.getElementById(location.hash.slice(1));
  if (wanted?.hidden) {
    filters.reset();
    show();
    wanted.scrollIntoView();
  }
});
show();
