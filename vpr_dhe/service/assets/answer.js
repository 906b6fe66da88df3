import { drawMap } from "./map.js";

const answer = document.getElementById("answer");
const title = document.getElementById("answer-title");
const badge = document.getElementById("badge");
const explanation = document.getElementById("explanation");
const threshold = document.getElementById("threshold");
const least = document.getElementById("least");
const pictures = document.getElementById("pictures");
const queryPhoto = document.getElementById("query-photo");
const matchPhoto = document.getElementById("match-photo");
const lines = pictures.querySelector(".lines");
const list = document.getElementById("matches");
const place = document.getElementById("place");
const SVG = lines.namespaceURI;

const BASIS = {
  index: "by the calibration of this index",
  default: "by a default calibration that was not fitted to this map",
};

let current = { result: null, match: null };

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// As `readable_name` of the reports shortens names.
export function readableName(path) {
  const parts = path.split("/");
  const name = parts.at(-1);
  if (!name.startsWith("@")) return parts.slice(-2).join("/");
  const fields = name.slice(0, name.lastIndexOf("@")).split("@");
  const shown = fields[7] || fields[14] || name;
  if (!fields[9]) return shown;
  const heading = Number(fields[9]);
  return `${shown}, ${Number.isFinite(heading) ? `${heading.toFixed(0)}°` : fields[9]}`;
}

function degreesText(found) {
  return `latitude ${found.latitude.toFixed(6)}, longitude ${found.longitude.toFixed(6)}`;
}

function metresText({ x_m: x, y_m: y, reference }) {
  const [east, north] = reference.startsWith("UTM") ? ["easting", "northing"] : ["x", "y"];
  return `${east} ${x.toFixed(1)}, ${north} ${y.toFixed(1)} (${reference})`;
}

function positionNode(found) {
  if (found.latitude === null) return element("span", metresText(found.position));
  const link = element("a", degreesText(found));
  link.href = `geo:${found.latitude.toFixed(7)},${found.longitude.toFixed(7)}`;
  return link;
}

function factsOf(match) {
  const facts = [`similarity ${match.similarity.toFixed(3)}`];
  const verified = match.score !== match.similarity;
  if (verified) facts.unshift(match.inliers === null ? "not verified" : `${match.inliers} inliers`);
  if (match.probability !== null) facts.unshift(`p = ${match.probability.toFixed(2)}`);
  return facts.join(", ");
}

function thumbnail(match, side) {
  return `v1/thumbnail?side=${side}&image=${encodeURIComponent(match.image)}`;
}

function matchItem(match) {
  const picture = element("img");
  picture.src = thumbnail(match, 480);
  picture.alt = `Indexed image ${match.image}`;
  picture.addEventListener("error", () => picture.replaceWith(element("span", "no picture", "nothing")));
  const select = element("button", undefined, "picture");
  select.type = "button";
  select.title = "Compare with your photo";
  select.append(picture);
  select.addEventListener("click", () => {
    compare(match);
    pictures.scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
  const caption = element("figcaption");
  caption.append(element("strong", `${match.rank}. `), factsOf(match), element("br"));
  if (match.position) caption.append(positionNode(match), element("br"));
  const name = element("span", readableName(match.image), "quiet");
  name.title = match.image;
  caption.append(name);
  const figure = element("figure");
  figure.append(select, caption);
  const item = element("li", undefined, "match");
  item.dataset.rank = match.rank;
  item.append(figure);
  return item;
}

function compare(match) {
  current.match = match;
  matchPhoto.src = thumbnail(match, 1200);
  matchPhoto.alt = `Indexed image ${match.image}`;
  const tag = document.getElementById("match-tag");
  tag.textContent = `${match.rank}. ${readableName(match.image)}`;
  tag.title = match.image;
  document.getElementById("pair-facts").textContent = factsOf(match);
  for (const item of list.children) {
    item.querySelector("button").setAttribute("aria-pressed", String(Number(item.dataset.rank) === match.rank));
  }
  drawLines();
}

function svgElement(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Where the centre of pixel (0, 0) of a picture is drawn, and how many CSS pixels one of its pixels has.
function frameOf(picture, width) {
  const outer = pictures.getBoundingClientRect();
  const inner = picture.getBoundingClientRect();
  const scale = inner.width / width;
  const at = (x, y) => [inner.left - outer.left + (x + 0.5) * scale, inner.top - outer.top + (y + 0.5) * scale];
  return { at, inner, left: inner.left - outer.left, top: inner.top - outer.top };
}

function drawLines() {
  lines.replaceChildren();
  const { match } = current;
  if (!match?.image_size || !queryPhoto.naturalWidth || !matchPhoto.naturalWidth) return;
  const box = pictures.getBoundingClientRect();
  lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const query = frameOf(queryPhoto, queryPhoto.naturalWidth);
  const image = frameOf(matchPhoto, match.image_size[0]);
  if (document.getElementById("with-outline").checked && match.homography) drawOutline(match.homography, image);
  if (!document.getElementById("with-lines").checked) return;
  for (const [x, y, u, v] of match.inlier_points) {
    const [start, end] = [query.at(x, y), image.at(u, v)];
    lines.append(svgElement("line", { x1: start[0], y1: start[1], x2: end[0], y2: end[1] }));
    for (const [cx, cy] of [start, end]) lines.append(svgElement("circle", { cx, cy, r: 2.5 }));
  }
}

function drawOutline(homography, image) {
  const [width, height] = [queryPhoto.naturalWidth - 0.5, queryPhoto.naturalHeight - 0.5];
  const corners = [[-0.5, -0.5], [width, -0.5], [width, height], [-0.5, height]].map(([x, y]) => {
    const [u, v, w] = homography.map((row) => row[0] * x + row[1] * y + row[2]);
    return w > 0 ? image.at(u / w, v / w) : null;
  });
  // A corner behind the camera has no place in the picture.
  if (corners.includes(null)) return;
  const clip = svgElement("clipPath", { id: "match-frame" });
  clip.append(svgElement("rect", { x: image.left, y: image.top, width: image.inner.width, height: image.inner.height }));
  lines.append(clip, svgElement("polygon", { points: corners.join(" "), "clip-path": "url(#match-frame)" }));
}

function judge() {
  const { result } = current;
  const best = result.matches[0];
  const probability = best?.probability ?? null;
  const accepted = probability === null || probability >= Number(least.value);
  threshold.hidden = probability === null;
  threshold.querySelector("output").value = Number(least.value).toFixed(2);
  const confidence = best ? result.confidence : null;
  const headlines = { sure: "Found", unsure: "Perhaps here", unknown: "Probably somewhere else" };
  title.textContent = !accepted ? "Unknown place" : (headlines[confidence] ?? "Best match");
  badge.className = `badge ${!accepted || confidence === "unknown" ? "weak" : (confidence ?? "")}`;
  badge.textContent = badgeText(result, confidence, probability, accepted);
  explanation.textContent = result.blank
    ? "Your photo has too little texture to match anything."
    : confidence === null
      ? "How likely the match is right is not known: this index is not calibrated."
      : accepted
        ? `The probability that the best match shows the place of your photo, ${BASIS[result.calibration]}.`
        : "The best match is less probable than you accept. It is shown, but your photo may be of another place.";
  answer.classList.toggle("rejected", !accepted);
}

function badgeText(result, confidence, probability, accepted) {
  if (result.blank) return "blank";
  if (confidence === null || probability === null) return "not calibrated";
  return `${accepted ? confidence : "rejected"}, p = ${probability.toFixed(2)}`;
}

function whereNodes(result) {
  const best = result.matches[0];
  const nodes = [];
  if (best?.position) {
    nodes.push(element("dt", "Best match taken at"), described(positionNode(best)));
    if (best.latitude !== null && !("latitude_deg" in best.position)) {
      nodes.push(element("dt", "In UTM"), described(metresText(best.position)));
    }
  }
  const estimate = result.position_estimate;
  if (estimate) {
    const [longer, shorter] = estimate.semi_axes_m;
    const used = estimate.matches === 1 ? "1 match" : `${estimate.matches} matches`;
    nodes.push(element("dt", "Your position, estimated"), described(positionNode(estimate)));
    nodes.push(
      element("dt", "Standard deviation"),
      described(`${longer.toFixed(1)} m along ${estimate.orientation_deg.toFixed(0)}°, ${shorter.toFixed(1)} m across; from ${used}`),
    );
    if (estimate.heading_deg !== null) {
      nodes.push(element("dt", "Heading"), described(`${estimate.heading_deg.toFixed(0)}° from north, clockwise`));
    }
  }
  return nodes;
}

function described(content) {
  const made = element("dd");
  made.append(content);
  return made;
}

export function show(result, file, positions) {
  current = { result, match: null };
  URL.revokeObjectURL(queryPhoto.src);
  queryPhoto.hidden = false;
  queryPhoto.src = URL.createObjectURL(file);
  list.replaceChildren(...result.matches.map(matchItem));
  document.getElementById("where").replaceChildren(...whereNodes(result));
  answer.hidden = false;
  judge();
  if (result.matches.length) compare(result.matches[0]);
  place.replaceChildren();
  // The map is as wide as its figure, which must be shown to have a width.
  place.hidden = false;
  place.hidden = !drawMap(place, result, positions, (match) => compare(match));
  title.focus();
}

least.addEventListener("input", judge);
threshold.addEventListener("submit", (event) => event.preventDefault());
for (const picture of [queryPhoto, matchPhoto]) picture.addEventListener("load", drawLines);
for (const box of ["with-lines", "with-outline"]) document.getElementById(box).addEventListener("change", drawLines);
queryPhoto.addEventListener("error", () => {
  queryPhoto.alt = "This browser cannot show the format of your photo";
  lines.replaceChildren();
});
new ResizeObserver(drawLines).observe(pictures);
