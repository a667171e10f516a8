// The drawing of the network, the feature maps of a layer for the image, and the details of one unit.
import { errorMessage, getJson, getText, pollBlob, postImage, sleep } from "/page/api.js";
import { byId, element, press } from "/page/elements.js";
import { formatNumber, onLanguageChange, text } from "/page/messages.js";

const LISTED_UNITS = 24;
const MIN_SHARE = 0.09; // of an image's side: the receptive field of conv1 is shown with some context

/** Returns the listener for every image that is shown. */
export function startNetwork(about) {
  const layers = new Map(about.layers.map((layer) => [layer.name, layer]));
  let [selected, unit, image, maps] = [null, null, null, null];

  const isConvolution = (layer) => layer.shape.length === 3;
  const unitKind = (layer) => text(isConvolution(layer) ? "kindMap" : layer.name === about.output_layer ? "kindOutput" : "kindUnit");
  const unitTitle = (layer, index) => {
    const tower = layer.towers > 1 ? text("ofTower", { tower: Math.floor((index * layer.towers) / layer.shape[0]) + 1 }) : "";
    const shown = layer.name === about.output_layer && index in about.labels ? about.labels[index] : index;
    return text("unitTitle", { layer: layer.name, kind: unitKind(layer), unit: shown }) + tower;
  };

  // The drawing, and its layers as buttons.
  const buttons = about.layers.map((layer) => {
    const button = element("button", { type: "button", textContent: layer.name, "aria-pressed": "false" });
    button.addEventListener("click", () => select(layer));
    return button;
  });
  byId("layers").append(...buttons);
  drawNetwork();

  async function drawNetwork() {
    const source = await getText("/page/network.svg");
    const drawing = document.importNode(new DOMParser().parseFromString(source, "image/svg+xml").documentElement, true);
    const { width } = drawing.viewBox.baseVal;
    drawing.style.setProperty("--width", `${width}px`); // small networks are not blown up, long ones are scrolled
    drawing.classList.toggle("long", width > 1600);
    byId("drawing").append(drawing);
    for (const group of drawing.querySelectorAll("[data-layer]")) {
      group.addEventListener("click", () => select(layers.get(group.dataset.layer)));
    }
  }

  async function select(layer) {
    [selected, unit, maps] = [layer, null, null];
    press(buttons, buttons[about.layers.indexOf(layer)]);
    for (const group of byId("drawing").querySelectorAll("[data-layer]")) group.classList.toggle("here", group.dataset.layer === layer.name);
    byId("details").hidden = false;
    byId("unit").hidden = true;
    await loadMaps();
  }

  async function loadMaps() {
    const [layer, current] = [selected, image];
    maps = null;
    draw();
    if (!layer || !current) return;
    try {
      const answer = await postImage(`/v1/feature-maps?layer=${layer.name}`, current, "feature_maps");
      if (layer !== selected || current !== image) return;
      maps = answer;
      draw();
    } catch (error) {
      byId("maps-lead").textContent = errorMessage(error);
    }
  }

  function draw() {
    if (!selected) return;
    const [count, height, width] = maps?.shape ?? selected.shape;
    const title = isConvolution(selected) ? "mapsTitle" : selected.name === about.output_layer ? "outputsTitle" : "unitsTitle";
    byId("maps-title").textContent = text(title, { layer: selected.name, count: formatNumber(count), height, width });
    const first = selected === about.layers[0];
    const lead = text(maps ? (isConvolution(selected) ? "mapsLead" : "unitsLead") : first ? "kernelsLead" : "mapsNone");
    const share = (part) => `${(100 * part).toFixed(1)}%`;
    const cost = text("layerCost", { parameters: share(selected.parameter_share), multiplyAdds: share(selected.multiply_add_share) });
    byId("maps-lead").textContent = `${lead} ${cost}`;
    if (!maps && !first) byId("maps").replaceChildren();
    else if (isConvolution(selected)) byId("maps").replaceChildren(...mapGrids(maps ?? { shape: selected.shape, columns: 16, image: "/v1/kernels" }));
    else byId("maps").replaceChildren(unitList());
    mark();
  }

  // Each feature map is a button. One of them is in the tab order; the arrow keys reach the others.
  function mapGrids(sprite) {
    const [count] = sprite.shape;
    const rows = Math.ceil(count / sprite.columns);
    const perTower = count / selected.towers;
    return Array.from({ length: selected.towers }, (_, tower) => {
      const tiles = Array.from({ length: perTower }, (_, position) => {
        const index = tower * perTower + position;
        const label = sprite.peaks ? text("map", { unit: index, peak: sprite.peaks[index] }) : text("kernelOf", { unit: index });
        const tile = element("button", { type: "button", className: "tile", tabIndex: -1, "aria-label": label, title: label });
        tile.dataset.unit = index;
        showTile(tile, sprite.image, index, sprite.columns, rows);
        tile.addEventListener("click", () => openUnit(index));
        return tile;
      });
      const grid = element("div", { className: "grid", role: "group" }, ...tiles);
      grid.addEventListener("keydown", (event) => moveFocus(event, tiles));
      if (tiles.length) tiles[0].tabIndex = 0;
      const heading = text("tower", { number: tower + 1 });
      grid.setAttribute("aria-label", selected.towers > 1 ? `${selected.name}, ${heading}` : selected.name);
      return element("div", {}, ...(selected.towers > 1 ? [element("h4", { textContent: heading })] : []), grid);
    });
  }

  function moveFocus(event, tiles) {
    const at = tiles.indexOf(event.target);
    const columns = getComputedStyle(event.target.parentElement).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: tiles.length - 1 - at }[event.key];
    if (at < 0 || step === undefined || !(at + step in tiles)) return;
    event.preventDefault();
    tiles[at].tabIndex = -1;
    tiles[at + step].tabIndex = 0;
    tiles[at + step].focus();
  }

  function unitList() {
    const order = maps.peaks.map((_, index) => index).sort((one, other) => maps.peaks[other] - maps.peaks[one]);
    const largest = Math.max(...maps.peaks, 1e-12);
    const list = order.slice(0, LISTED_UNITS).map((index) => {
      const name = selected.name === about.output_layer && index in about.labels ? about.labels[index] : String(index);
      const button = element("button", { type: "button", className: "bar" }, element("span", { textContent: name }), element("span", { textContent: maps.peaks[index].toFixed(2) }));
      button.dataset.unit = index;
      button.style.setProperty("--share", `${(100 * Math.max(0, maps.peaks[index])) / largest}%`);
      button.addEventListener("click", () => openUnit(index));
      return element("li", {}, button);
    });
    const square = element("img", { src: maps.image, alt: text("unitsTitle", { layer: selected.name, count: formatNumber(maps.shape[0]) }) });
    return element("div", { className: "square" }, ...(selected.name === about.output_layer ? [] : [square]), element("ul", { className: "units" }, ...list));
  }

  // The details of one unit.
  function openUnit(index) {
    unit = index;
    byId("unit").hidden = false;
    drawUnit();
    loadOptimized(selected, index);
    loadTopImages(selected, index);
    if (matchMedia("(max-width: 900px)").matches) byId("unit").scrollIntoView({ block: "start" });
    byId("unit-title").focus({ preventScroll: true });
  }

  function mark() {
    for (const button of byId("maps").querySelectorAll("[data-unit]")) button.setAttribute("aria-pressed", String(Number(button.dataset.unit) === unit));
  }

  function drawUnit() {
    if (unit === null) return;
    mark();
    const title = unitTitle(selected, unit);
    byId("unit-title").textContent = title;
    byId("optimized").alt = text("optimizedAlt", { title });
    const first = selected === about.layers[0];
    byId("kernel").hidden = !first;
    if (first) {
      showTile(byId("kernel-tile"), "/v1/kernels", unit, 16, Math.ceil(selected.shape[0] / 16));
      byId("kernel-tile").setAttribute("aria-label", text("kernelOf", { unit }));
    }
  }

  async function loadOptimized(layer, index) {
    const optimized = byId("optimized");
    const current = () => layer === selected && index === unit;
    [optimized.hidden, byId("optimized-pending").hidden] = [true, false];
    byId("optimized-caption").textContent = text("optimizedPending");
    try {
      const blob = await pollBlob(`/v1/units/${layer.name}/${index}/optimized`, current);
      if (!current()) return;
      URL.revokeObjectURL(optimized.src);
      optimized.src = URL.createObjectURL(blob);
      [optimized.hidden, byId("optimized-pending").hidden] = [false, true];
      byId("optimized-caption").textContent = text("optimized");
    } catch (error) {
      if (!current()) return;
      byId("optimized-pending").hidden = true;
      byId("optimized-caption").textContent = text("optimizedError", { reason: errorMessage(error) });
    }
  }

  let top = null;
  async function loadTopImages(layer, index) {
    byId("top-images").replaceChildren();
    for (;;) {
      let answer;
      try {
        answer = await getJson(`/v1/units/${layer.name}/${index}`);
      } catch (error) {
        byId("top-images-note").textContent = errorMessage(error);
        return;
      }
      if (layer !== selected || index !== unit) return;
      top = answer;
      drawTopImages();
      if (answer.scanned >= answer.total) return;
      await sleep(4000);
      if (layer !== selected || index !== unit) return;
    }
  }

  const wholeImages = byId("whole-images");
  wholeImages.addEventListener("click", () => {
    press([wholeImages], wholeImages.getAttribute("aria-pressed") === "true" ? null : wholeImages);
    drawTopImages();
  });

  function drawTopImages() {
    if (!top) return;
    const whole = wholeImages.getAttribute("aria-pressed") === "true";
    wholeImages.hidden = !top.images.some((found) => found.box);
    byId("top-images").replaceChildren(...top.images.map((found) => topImage(found, whole)));
    const values = { scanned: formatNumber(top.scanned), total: formatNumber(top.total) };
    const key = !top.total ? "topImagesNone" : top.scanned < top.total ? "topImagesSoFar" : whole ? "topImagesWhole" : "topImagesCrop";
    byId("top-images-note").textContent = text(key, values);
  }

  onLanguageChange(() => {
    draw();
    drawUnit();
    drawTopImages();
  });

  return (shown) => {
    image = shown;
    if (!selected && image) select(about.layers[0]);
    else loadMaps();
  };
}

/** Shows one tile of a sprite as the background of an element. */
function showTile(target, sprite, index, columns, rows) {
  const share = (position, count) => (count > 1 ? `${(100 * position) / (count - 1)}%` : "0%");
  target.style.backgroundImage = `url("${sprite}")`;
  target.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
  target.style.backgroundPosition = `${share(index % columns, columns)} ${share(Math.floor(index / columns), rows)}`;
}

/** An image of the dataset: the receptive field of the unit, or the whole image with the receptive field marked. */
function topImage(found, whole) {
  const label = `${found.label}, ${found.value}`;
  const image = element("img", { src: found.url, alt: label, loading: "lazy" });
  const window = element("div", { className: "window" }, image);
  if (found.box) {
    const [left, top, width, height] = found.box;
    if (whole) {
      const frame = element("i", {});
      Object.assign(frame.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
      window.append(frame);
    } else {
      const side = Math.max(width, height, MIN_SHARE);
      const from = (start, size) => Math.min(Math.max(0, start + size / 2 - side / 2), 1 - side);
      Object.assign(image.style, { width: `${100 / side}%`, left: `${(-100 * from(left, width)) / side}%`, top: `${(-100 * from(top, height)) / side}%` });
    }
  }
  return element("li", {}, window, element("small", { textContent: label }));
}
