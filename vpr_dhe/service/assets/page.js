import { readableName, show } from "./answer.js";

const form = document.getElementById("query");
const drop = form.querySelector(".drop");
const photo = document.getElementById("photo");
const photoName = document.getElementById("photo-name");
const message = document.getElementById("status");
const answer = document.getElementById("answer");

async function fetched(address, options) {
  const response = await fetch(address, options);
  const document = await response.json().catch(() => ({ error: `the service answered ${response.status}` }));
  if (!response.ok) throw new Error(document.error);
  return document;
}

// The positions of the map are the same for all queries of a visit.
let positions;
function mapped() {
  positions ??= fetched("v1/positions").then((found) => found.positions).catch(() => []);
  return positions;
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
    const address = `v1/localize?inlier_points=true&top_k=${form.elements.top_k.value}`;
    const result = await fetched(address, { method: "POST", body });
    const milliseconds = Object.values(result.timing_ms).reduce((sum, one) => sum + one, 0);
    message.textContent = `${result.matches.length} matches in ${milliseconds.toFixed(0)} ms, best first.`;
    show(result, file, await mapped());
  } catch (error) {
    answer.hidden = true;
    message.className = "error";
    message.textContent = `The photo could not be localized: ${error.message}`;
  } finally {
    button.disabled = false;
  }
});

photo.addEventListener("change", () => {
  const name = photo.files[0]?.name;
  photoName.textContent = name ? readableName(name) : "or drop one anywhere on this page";
  photoName.classList.toggle("given", Boolean(name));
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
  photo.dispatchEvent(new Event("change"));
  form.requestSubmit();
});

fetched("v1/index")
  .then((index) => {
    document.getElementById("index").textContent =
      `${index.images} images in ${index.index}, model ${index.model}, verifier ${index.verifier}.`;
  })
  .catch((error) => {
    message.className = "error";
    message.textContent = `The service does not answer: ${error.message}`;
  });
