// The drawn network: its layers, their maps for the image, and what excites one of them.
import { ask, file, get, made, pause, why } from "/page/api.js";
import { element, only, press } from "/page/elements.js";
import { inWords, number, word } from "/page/words.js";

const STRONGEST = 24;
const LEAST_SHOWN = 0.09; // of an image's side, so that a kernel of conv1 is more than a few pixels

/** Returns the function that is told of every image. */
export function startNetwork(about) {
  const layers = new Map(about.layers.map((layer) => [layer.name, layer]));
  let [chosen, unit, image, maps] = [null, null, null, null];

  const isMap = (layer) => layer.shape.length === 3;
  const kind = (layer) => word(isMap(layer) ? "kindMap" : layer.name === "logits" ? "kindOutput" : "kindUnit");
  const nameOf = (layer, index) => {
    const tower = layer.towers > 1 ? word("ofTower", { tower: Math.floor((index * layer.towers) / layer.shape[0]) + 1 }) : "";
    const shown = layer.name === "logits" && index in about.labels ? about.labels[index] : index;
    return word("unitTitle", { layer: layer.name, kind: kind(layer), unit: shown }) + tower;
  };

  // The drawing, and the same layers as buttons.
  const buttons = about.layers.map((layer) => {
    const button = element("button", { type: "button", textContent: layer.name, "aria-pressed": "false" });
    button.addEventListener("click", () => choose(layer));
    return button;
  });
  only("layers").append(...buttons);
  drawNetwork();

  async function drawNetwork() {
    const text = await (await file("/page/network.svg")).text();
    const drawing = document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
    only("drawing").append(drawing);
    for (const group of drawing.querySelectorAll("[data-layer]")) {
      group.addEventListener("click", () => choose(layers.get(group.dataset.layer)));
    }
  }

  async function choose(layer) {
    [chosen, unit, maps] = [layer, null, null];
    press(buttons, buttons[about.layers.indexOf(layer)]);
    for (const group of only("drawing").querySelectorAll("[data-layer]")) group.classList.toggle("here", group.dataset.layer === layer.name);
    only("within").hidden = false;
    only("unit").hidden = true;
    await fill();
  }

  async function fill() {
    const [layer, mine] = [chosen, image];
    maps = null;
    draw();
    if (!layer || !mine) return;
    try {
      const answer = await ask(`/v1/maps?layer=${layer.name}`, mine, "maps");
      if (layer !== chosen || mine !== image) return;
      maps = answer;
      draw();
    } catch (error) {
      only("maps-lead").textContent = why(error);
    }
  }

  function draw() {
    if (!chosen) return;
    const [count, height, width] = maps?.shape ?? chosen.shape;
    const title = isMap(chosen) ? "mapsTitle" : chosen.name === "logits" ? "outputsTitle" : "unitsTitle";
    only("maps-title").textContent = word(title, { layer: chosen.name, count: number(count), height, width });
    const first = chosen === about.layers[0];
    only("maps-lead").textContent = word(maps ? (isMap(chosen) ? "mapsLead" : "unitsLead") : first ? "kernelsLead" : "mapsNone");
    if (!maps && !first) only("maps").replaceChildren();
    else if (isMap(chosen)) only("maps").replaceChildren(...grids(maps ?? { shape: chosen.shape, columns: 16, image: "/v1/kernels" }));
    else only("maps").replaceChildren(units());
    mark();
  }

  // Every map is a button; one of them is in the order of tabs, the arrows reach the others.
  function grids(sprite) {
    const [count] = sprite.shape;
    const rows = Math.ceil(count / sprite.columns);
    const each = count / chosen.towers;
    return Array.from({ length: chosen.towers }, (_, tower) => {
      const tiles = Array.from({ length: each }, (_, position) => {
        const index = tower * each + position;
        const label = sprite.peaks ? word("map", { unit: index, peak: sprite.peaks[index] }) : word("kernelOf", { unit: index });
        const tile = element("button", { type: "button", className: "tile", tabIndex: -1, "aria-label": label, title: label });
        tile.dataset.unit = index;
        cut(tile, sprite.image, index, sprite.columns, rows);
        tile.addEventListener("click", () => open(index));
        return tile;
      });
      const grid = element("div", { className: "grid", role: "group" }, ...tiles);
      grid.addEventListener("keydown", (event) => move(event, tiles));
      if (tiles.length) tiles[0].tabIndex = 0;
      const heading = word("tower", { number: tower + 1 });
      grid.setAttribute("aria-label", chosen.towers > 1 ? `${chosen.name}, ${heading}` : chosen.name);
      return element("div", {}, ...(chosen.towers > 1 ? [element("h4", { textContent: heading })] : []), grid);
    });
  }

  function move(event, tiles) {
    const at = tiles.indexOf(event.target);
    const across = getComputedStyle(event.target.parentElement).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -at, End: tiles.length - 1 - at }[event.key];
    if (at < 0 || step === undefined || !(at + step in tiles)) return;
    event.preventDefault();
    tiles[at].tabIndex = -1;
    tiles[at + step].tabIndex = 0;
    tiles[at + step].focus();
  }

  function units() {
    const order = maps.peaks.map((_, index) => index).sort((one, other) => maps.peaks[other] - maps.peaks[one]);
    const most = Math.max(...maps.peaks, 1e-12);
    const list = order.slice(0, STRONGEST).map((index) => {
      const name = chosen.name === "logits" && index in about.labels ? about.labels[index] : String(index);
      const button = element("button", { type: "button", className: "bar" }, element("span", { textContent: name }), element("span", { textContent: maps.peaks[index].toFixed(2) }));
      button.dataset.unit = index;
      button.style.setProperty("--share", `${(100 * Math.max(0, maps.peaks[index])) / most}%`);
      button.addEventListener("click", () => open(index));
      return element("li", {}, button);
    });
    const square = element("img", { src: maps.image, alt: word("unitsTitle", { layer: chosen.name, count: number(maps.shape[0]) }) });
    return element("div", { className: "square" }, ...(chosen.name === "logits" ? [] : [square]), element("ul", { className: "units" }, ...list));
  }

  // One unit.
  function open(index) {
    unit = index;
    only("unit").hidden = false;
    drawUnit();
    make(chosen, index);
    excite(chosen, index);
    if (matchMedia("(max-width: 900px)").matches) only("unit").scrollIntoView({ block: "start" });
    only("unit-title").focus({ preventScroll: true });
  }

  function mark() {
    for (const button of only("maps").querySelectorAll("[data-unit]")) button.setAttribute("aria-pressed", String(Number(button.dataset.unit) === unit));
  }

  function drawUnit() {
    if (unit === null) return;
    mark();
    const title = nameOf(chosen, unit);
    only("unit-title").textContent = title;
    only("made").alt = word("madeAlt", { title });
    const first = chosen === about.layers[0];
    only("kernel").hidden = !first;
    if (first) {
      cut(only("kernel-tile"), "/v1/kernels", unit, 16, Math.ceil(chosen.shape[0] / 16));
      only("kernel-tile").setAttribute("aria-label", word("kernelOf", { unit }));
    }
  }

  async function make(layer, index) {
    const image = only("made");
    const current = () => layer === chosen && index === unit;
    [image.hidden, only("made-waiting").hidden] = [true, false];
    only("made-words").textContent = word("madeWaiting");
    try {
      const blob = await made(`/v1/units/${layer.name}/${index}/optimized`, current);
      if (!current()) return;
      URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(blob);
      [image.hidden, only("made-waiting").hidden] = [false, true];
      only("made-words").textContent = word("made");
    } catch (error) {
      if (!current()) return;
      only("made-waiting").hidden = true;
      only("made-words").textContent = word("madeNone", { why: why(error) });
    }
  }

  let excited = null;
  async function excite(layer, index) {
    only("exciting").replaceChildren();
    for (;;) {
      let answer;
      try {
        answer = await get(`/v1/units/${layer.name}/${index}`);
      } catch (error) {
        only("exciting-words").textContent = why(error);
        return;
      }
      if (layer !== chosen || index !== unit) return;
      excited = answer;
      drawExcited();
      if (answer.looked_at >= answer.wanted) return;
      await pause(4000);
      if (layer !== chosen || index !== unit) return;
    }
  }

  const whole = only("whole");
  whole.addEventListener("click", () => {
    press([whole], whole.getAttribute("aria-pressed") === "true" ? null : whole);
    drawExcited();
  });

  function drawExcited() {
    if (!excited) return;
    const entire = whole.getAttribute("aria-pressed") === "true";
    whole.hidden = !excited.images.some((found) => found.box);
    only("exciting").replaceChildren(...excited.images.map((found) => exhibit(found, entire)));
    const values = { looked: number(excited.looked_at), wanted: number(excited.wanted) };
    const key = !excited.wanted ? "excitingNone" : excited.looked_at < excited.wanted ? "excitingSoFar" : entire ? "excitingWhole" : "excitingAll";
    only("exciting-words").textContent = word(key, values);
  }

  inWords(() => {
    draw();
    drawUnit();
    drawExcited();
  });

  return (shown) => {
    image = shown;
    if (!chosen && image) choose(about.layers[0]);
    else fill();
  };
}

/** The tile of a sprite as the background of an element. */
function cut(target, sprite, index, columns, rows) {
  const share = (place, count) => (count > 1 ? `${(100 * place) / (count - 1)}%` : "0%");
  target.style.backgroundImage = `url("${sprite}")`;
  target.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
  target.style.backgroundPosition = `${share(index % columns, columns)} ${share(Math.floor(index / columns), rows)}`;
}

/** An image of the data: the part that the unit reads, or the whole with that part marked. */
function exhibit(found, entire) {
  const label = `${found.label}, ${found.value}`;
  const image = element("img", { src: found.address, alt: label, loading: "lazy" });
  const window = element("div", { className: "window" }, image);
  if (found.box) {
    const [left, top, width, height] = found.box;
    if (entire) {
      const frame = element("i", {});
      Object.assign(frame.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
      window.append(frame);
    } else {
      const side = Math.max(width, height, LEAST_SHOWN);
      const from = (start, size) => Math.min(Math.max(0, start + size / 2 - side / 2), 1 - side);
      Object.assign(image.style, { width: `${100 / side}%`, left: `${(-100 * from(left, width)) / side}%`, top: `${(-100 * from(top, height)) / side}%` });
    }
  }
  return element("li", {}, window, element("small", { textContent: label }));
}
