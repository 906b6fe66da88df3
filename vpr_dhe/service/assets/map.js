// Map of an answer, drawn from positions alone: north up, nothing fetched, metres around the best match.
const SVG = document.querySelector("svg").namespaceURI;
const MARGIN = 36;
const MIN_EXTENT_M = 100;
// Standard deviations along the axes of the ellipse, which holds 86 % of a normal distribution.
const DEVIATIONS = 2;
const STEP = 1.6;

function made(name, attributes = {}, text) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

// Metres east and north of an origin in degrees; the series of a degree's length is that of WGS84.
function fromDegrees(origin) {
  const phi = (origin.latitude * Math.PI) / 180;
  const east = 111412.84 * Math.cos(phi) - 93.5 * Math.cos(3 * phi);
  const north = 111132.92 - 559.82 * Math.cos(2 * phi) + 1.175 * Math.cos(4 * phi);
  return (found) => {
    const apart = ((found.longitude - origin.longitude + 540) % 360) - 180;
    return found.latitude === null ? null : [apart * east, (found.latitude - origin.latitude) * north];
  };
}

function fromMetres(origin) {
  const { x_m: x, y_m: y, reference } = origin.position;
  return (found) =>
    found.position?.reference === reference ? [found.position.x_m - x, found.position.y_m - y] : null;
}

function extentOf(points, width, height) {
  const [xs, ys] = [points.map((point) => point[0]), points.map((point) => point[1])];
  const centre = [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
  const east = Math.max(MIN_EXTENT_M, Math.max(...xs) - Math.min(...xs));
  const north = Math.max(MIN_EXTENT_M, Math.max(...ys) - Math.min(...ys));
  return { centre, scale: Math.min((width - 2 * MARGIN) / east, (height - 2 * MARGIN) / north) };
}

class PositionMap {
  constructor(figure, result, metres, database, choose) {
    this.choose = choose;
    // One unit of the drawing is about one CSS pixel, so that text is as large as on the rest of the page.
    this.width = Math.max(280, figure.clientWidth);
    this.height = Math.round(Math.max(300, 0.6 * this.width));
    this.database = database.map((found) => [metres(found), found.image]).filter(([point]) => point);
    this.matches = result.matches.filter((match) => match.position).map((match) => [metres(match), match]);
    this.matches = this.matches.filter(([point]) => point);
    this.estimate = result.position_estimate && metres(result.position_estimate);
    this.axes = result.position_estimate?.semi_axes_m;
    this.orientation = result.position_estimate?.orientation_deg;
    this.svg = made("svg", { class: "map", viewBox: `0 0 ${this.width} ${this.height}`, role: "img" });
    this.svg.setAttribute("aria-label", `Map of ${this.database.length} indexed images and ${this.matches.length} matches`);
    figure.append(this.svg, this.controls(), this.legend());
    this.dragged();
    this.near();
  }

  near() {
    const points = this.matches.map(([point]) => point);
    if (this.estimate) {
      const reach = DEVIATIONS * this.axes[0];
      points.push(...[-reach, reach].map((by) => [this.estimate[0] + by, this.estimate[1] + by]));
    }
    this.view(extentOf(points, this.width, this.height));
  }

  all() {
    const points = [...this.database, ...this.matches].map(([point]) => point);
    this.view(extentOf(points, this.width, this.height));
  }

  zoom(by) {
    this.view({ centre: this.centre, scale: this.scale * by });
  }

  view({ centre, scale }) {
    [this.centre, this.scale] = [centre, scale];
    this.draw();
  }

  at([east, north]) {
    return [
      this.width / 2 + (east - this.centre[0]) * this.scale,
      this.height / 2 - (north - this.centre[1]) * this.scale,
    ];
  }

  draw() {
    const parts = [];
    for (const [point, image] of this.database) {
      const [cx, cy] = this.at(point);
      if (cx < -9 || cx > this.width + 9 || cy < -9 || cy > this.height + 9) continue;
      const dot = made("circle", { class: "dot place-database", cx, cy, r: 3 });
      dot.append(made("title", {}, image));
      parts.push(dot);
    }
    if (this.estimate) parts.push(this.ellipse());
    // The best one is drawn last, over the others.
    for (const [point, match] of [...this.matches].reverse()) parts.push(this.pin(this.at(point), match));
    this.svg.replaceChildren(...parts, ...this.scaleBar(), made("text", { class: "north", x: this.width - 26, y: 26 }, "N ↑"));
  }

  ellipse() {
    const [cx, cy] = this.at(this.estimate);
    const [rx, ry] = this.axes.map((axis) => DEVIATIONS * axis * this.scale);
    const group = made("g", { class: "estimate" });
    // The direction of the longer axis is clockwise from north; SVG turns clockwise from the right.
    group.append(made("ellipse", { cx, cy, rx, ry, transform: `rotate(${this.orientation - 90} ${cx} ${cy})` }));
    group.append(made("path", { d: `M${cx - 7} ${cy}h14M${cx} ${cy - 7}v14` }));
    group.append(made("title", {}, "Estimated position of your photo"));
    return group;
  }

  pin([x, y], match) {
    const group = made("g", { class: match.rank === 1 ? "pin best" : "pin", transform: `translate(${x} ${y})` });
    group.append(made("circle", { r: match.rank === 1 ? 11 : 9 }), made("text", { y: 4 }, String(match.rank)));
    group.append(made("title", {}, `${match.rank}. ${match.image}`));
    group.addEventListener("click", () => this.choose(match));
    return group;
  }

  scaleBar() {
    const most = 160 / this.scale;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = Math.max(...[1, 2, 5].map((factor) => factor * power).filter((one) => one <= most));
    const [y, end] = [this.height - 16, 16 + length * this.scale];
    const text = length >= 1000 ? `${length / 1000} km` : `${Number(length.toPrecision(1))} m`;
    return [
      made("path", { class: "bar", d: `M16 ${y}H${end}M16 ${y - 4}v8M${end} ${y - 4}v8` }),
      made("text", { x: end + 8, y: y + 4 }, text),
    ];
  }

  controls() {
    const row = document.createElement("div");
    row.className = "map-controls";
    for (const [label, text, act] of [
      ["Zoom in", "+", () => this.zoom(STEP)],
      ["Zoom out", "−", () => this.zoom(1 / STEP)],
      ["Show the matches", "matches", () => this.near()],
      ["Show the whole map", "whole map", () => this.all()],
    ]) {
      const button = document.createElement("button");
      [button.type, button.className, button.textContent] = ["button", "second", text];
      button.setAttribute("aria-label", label);
      button.addEventListener("click", act);
      row.append(button);
    }
    return row;
  }

  legend() {
    const list = document.createElement("ul");
    list.className = "legend";
    const entries = [["dot place-database", `${this.database.length} indexed images`], ["pin best", "best match"]];
    if (this.matches.length > 1) entries.push(["pin", "other matches"]);
    if (this.estimate) entries.push(["estimate", `estimated position, ${DEVIATIONS} standard deviations (86 %)`]);
    for (const [kind, text] of entries) {
      const item = document.createElement("li");
      const spot = made("svg", { class: "spot", viewBox: "0 0 12 12", "aria-hidden": "true" });
      const group = made("g", { class: kind });
      group.append(made(kind === "estimate" ? "ellipse" : "circle", { cx: 6, cy: 6, r: 5, rx: 5, ry: 4, class: kind }));
      spot.append(group);
      item.append(spot, text);
      list.append(item);
    }
    return list;
  }

  dragged() {
    let last = null;
    this.svg.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (!last || !event.buttons) return;
      const pixels = this.svg.getBoundingClientRect().width / this.width;
      const [east, north] = [event.clientX - last[0], last[1] - event.clientY].map((by) => by / pixels / this.scale);
      last = [event.clientX, event.clientY];
      this.view({ centre: [this.centre[0] - east, this.centre[1] - north], scale: this.scale });
    });
    for (const end of ["pointerup", "pointerleave"]) this.svg.addEventListener(end, () => (last = null));
  }
}

// Draw the positions of an answer into a figure; false if the best match has none.
export function drawMap(figure, result, database, choose) {
  const best = result.matches[0];
  if (!best?.position) return false;
  const metres = best.latitude === null ? fromMetres(best) : fromDegrees(best);
  new PositionMap(figure, result, metres, database, choose);
  return true;
}
