"use strict";
const form = document.getElementById("query");
const drop = form.querySelector(".drop");
const photo = document.getElementById("photo");
const message = document.getElementById("status");
const answer = document.getElementById("answer");

async function fetched(address, options) {
  const response = await fetch(address, options);
  const document = await response.json().catch(() => ({ error: `the service answered ${response.status}` }));
  if (!response.ok) throw new Error(document.error);
  return document;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function positionText(found) {
  if (!found.position) return "";
  if ("latitude_deg" in found.position) return degreesText(found);
  const metres = `${found.position.x_m.toFixed(1)}, ${found.position.y_m.toFixed(1)} (${found.position.reference})`;
  return found.latitude === null ? metres : `${degreesText(found)}; ${metres}`;
}

function degreesText(found) {
  return `latitude ${found.latitude.toFixed(6)}, longitude ${found.longitude.toFixed(6)}`;
}

function positionLink(found) {
  if (found.latitude === null) return element("span", positionText(found));
  const link = element("a", positionText(found));
  link.href = `geo:${found.latitude.toFixed(7)},${found.longitude.toFixed(7)}`;
  return link;
}

function matchItem(match) {
  const picture = element("img");
  picture.src = `v1/thumbnail?image=${encodeURIComponent(match.image)}`;
  picture.alt = `Indexed image ${match.image}`;
  const caption = element("figcaption");
  const verified = match.score !== match.similarity;
  const facts = [`similarity ${match.similarity.toFixed(3)}`];
  if (verified) facts.unshift(match.inliers === null ? "not verified" : `${match.inliers} inliers`);
  if (match.probability !== null) facts.unshift(`p = ${match.probability.toFixed(2)}`);
  caption.append(element("strong", `${match.rank}. `), facts.join(", "), element("br"));
  if (match.position) caption.append(positionLink(match), element("br"));
  caption.append(element("span", match.image, "quiet"));
  picture.addEventListener("error", () => picture.replaceWith(element("p", "no picture", "nothing")));
  const figure = element("figure");
  figure.append(picture, caption);
  const item = element("li", undefined, "match");
  item.append(figure);
  return item;
}

function show(result, file) {
  const query = document.getElementById("query-photo");
  URL.revokeObjectURL(query.src);
  query.src = URL.createObjectURL(file);
  document.getElementById("matches").replaceChildren(...result.matches.map(matchItem));
  const milliseconds = Object.values(result.timing_ms).reduce((sum, one) => sum + one, 0);
  message.textContent = `${result.matches.length} matches in ${milliseconds.toFixed(0)} ms, best first.`;
  answer.hidden = false;
  document.getElementById("answer-title").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const file = photo.files[0];
  const body = new FormData();
  body.append("image", file);
  button.disabled = true;
  message.className = "";
  message.textContent = "Localizing …";
  try {
    show(await fetched(`v1/localize?top_k=${form.elements.top_k.value}`, { method: "POST", body }), file);
  } catch (error) {
    answer.hidden = true;
    message.className = "error";
    message.textContent = `The photo could not be localized: ${error.message}`;
  } finally {
    button.disabled = false;
  }
});

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (!event.dataTransfer.files.length) return;
  photo.files = event.dataTransfer.files;
  form.requestSubmit();
});

fetched("v1/index")
  .then((index) => {
    document.getElementById("index").textContent =
      `${index.images} images in ${index.index}, model ${index.model}, verifier ${index.verifier}.`;
  })
  .catch((error) => {
    message.textContent = `The service does not answer: ${error.message}`;
  });
