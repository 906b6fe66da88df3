"use strict";
const filters = document.querySelector("form.filters");
const queries = [...document.querySelectorAll("article.query")];
const names = new Map(
  queries.map((query) => [
    query,
    [...query.querySelectorAll("h3, figcaption .quiet")].map((name) => name.title.toLowerCase()),
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
  filters.querySelector(".count").value = `${shown} of ${queries.length}`;
}

// Answers below the threshold stay, but look like what they are.
function judge() {
  const least = filters.elements.least;
  if (!least) return;
  filters.querySelector(".least").textContent = Number(least.value).toFixed(2);
  for (const query of queries) {
    const rejected = Number(query.dataset.probability ?? 1) < Number(least.value);
    const verdict = query.querySelector(".verdict");
    query.classList.toggle("rejected", rejected);
    verdict.textContent = rejected ? verdict.dataset.rejected : verdict.dataset.verdict;
  }
}

const enlarged = document.getElementById("enlarged");
for (const button of document.querySelectorAll("button.picture")) {
  button.addEventListener("click", () => {
    const picture = button.querySelector("img").cloneNode();
    enlarged.querySelector("img")?.remove();
    enlarged.querySelector("p").before(picture);
    enlarged.querySelector("p").textContent = picture.alt;
    enlarged.showModal();
  });
}
enlarged.addEventListener("click", (event) => {
  if (event.target !== enlarged.querySelector("p")) enlarged.close();
});

filters.addEventListener("input", () => {
  show();
  judge();
});
filters.addEventListener("submit", (event) => event.preventDefault());
// A dot of the map may link to a query that is filtered out.
window.addEventListener("hashchange", () => {
  const wanted = document.getElementById(location.hash.slice(1));
  if (wanted?.hidden) {
    filters.reset();
    show();
    judge();
    wanted.scrollIntoView();
  }
});
show();
judge();
