// What the widgets share: arrays of the package, controls and values, drawings, questions, progress. No network access.
"use strict";

const Course = (() => {
  const arrays = {}, pending = [], redraws = [], values = {};
  const TYPES = { uint8: Uint8Array, float32: Float32Array, float64: Float64Array };
  const korean = document.documentElement.lang === "ko";
  const say = (english, other) => (korean ? other : english);
  const fixed = (value, digits = 3) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");
  const whole = (value) => Math.round(value).toLocaleString("en-US");
  const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;

  // Data files call this: the bytes of an array in base64.
  function add(name, { dtype, shape, base64 }) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const flat = new TYPES[dtype](bytes.buffer), size = shape.slice(1).reduce((a, b) => a * b, 1);
    arrays[name] = { shape, flat, row: (i) => flat.subarray(i * size, (i + 1) * size) };
  }

  // A widget is a function that receives the tools for its part of the page and returns its update.
  function widget(name, set) { pending.push([name, set]); }

  function start() {
    for (const [name, set] of pending)
      for (const root of document.querySelectorAll(`[data-widget="${name}"]`)) {
        const update = set(tools(root));
        const show = () => { showOutputs(root); update(); };
        root.addEventListener("input", show);
        redraws.push(show);
        show();
        root.dataset.ready = "true";
      }
    document.querySelectorAll("form.question").forEach(question);
    showProgress();
    slideKeys();
    let width = window.innerWidth, timer;
    window.addEventListener("resize", () => {
      if (window.innerWidth === width) return; // the keyboard of a phone
      width = window.innerWidth;
      clearTimeout(timer);
      timer = setTimeout(() => redraws.forEach((show) => show()), 150);
    });
  }

  // On the page of slides, the arrow keys go to the next slide and back.
  function slideKeys() {
    const slides = Array.from(document.querySelectorAll(".slide"));
    document.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!slides.length || !step || event.target.closest("input, select, .scroll, pre")) return;
      const now = slides.findIndex((slide) => slide.getBoundingClientRect().bottom > 40);
      slides[Math.min(slides.length - 1, Math.max(0, now + step))].scrollIntoView();
      event.preventDefault();
    });
  }

  function tools(root) {
    const input = (name) => root.querySelector(`[name="${name}"]`);
    const get = (name) => {
      const control = input(name);
      if (control.type === "checkbox") return control.checked;
      return control.tagName === "SELECT" && Number.isNaN(Number(control.value)) ? control.value : Number(control.value);
    };
    const put = (name, value) => {
      input(name).value = value;
      root.dispatchEvent(new Event("input"));
    };
    const value = (name, text) => { root.querySelector(`[data-value="${name}"]`).textContent = text; };
    return { root, input, get, put, value, canvas: (name) => root.querySelector(`[data-canvas="${name}"]`), plot: (name) => root.querySelector(`[data-plot="${name}"]`) };
  }

  function showOutputs(root) {
    root.querySelectorAll("label.control").forEach((label) => {
      const control = label.querySelector("input[type=range]"), output = label.querySelector(".now");
      if (!control || !output) return;
      const text = control.dataset.power ? power(control).toPrecision(2) : control.value;
      output.textContent = text;
      control.setAttribute("aria-valuetext", text);
    });
  }
  // A logarithmic slider has the exponent of ten as its value.
  const power = (control) => Number((10 ** Number(control.value)).toPrecision(3));

  // Drawings on a canvas: bytes [row][column][rgb], values as gray, kernels with gray as zero.
  function drawBytes(canvas, bytes, width, height = width, left = 0, top = 0) {
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[3 * i + c];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, left, top);
    return context;
  }
  function drawMap(canvas, map, side) {
    canvas.width = canvas.height = side;
    let largest = 1e-12;
    for (const v of map) largest = Math.max(largest, Math.abs(v));
    const bytes = new Uint8ClampedArray(3 * side * side);
    map.forEach((v, i) => bytes.fill((255 * Math.abs(v)) / largest, 3 * i, 3 * i + 3));
    return drawBytes(canvas, bytes, side);
  }
  function kernelBytes(kernel, size) {
    const area = size * size, bytes = new Uint8ClampedArray(3 * area);
    let largest = 1e-12;
    for (const v of kernel) largest = Math.max(largest, Math.abs(v));
    for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) bytes[3 * i + c] = 127.5 + (127.5 * kernel[c * area + i]) / largest;
    return bytes;
  }
  function frame(context, left, top, width, height, color = "#ffd400") {
    context.lineWidth = 3;
    context.strokeStyle = "#000";
    context.strokeRect(left, top, width, height);
    context.lineWidth = 1.5;
    context.strokeStyle = color;
    context.strokeRect(left, top, width, height);
  }
  // Pointer positions on a canvas as shares of its sides.
  function onDrag(canvas, move) {
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      move(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)), Math.min(1, Math.max(0, (event.clientY - box.top) / box.height)));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); at(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) at(event); });
  }

  // A chart as SVG. series: {name, points: [[x, y]], color, dashed, dots}; xNames: labels of x = 1, 2, ... It follows
  // the colors of the page.
  let charts = 0;
  function chart(box, { series, x, y, xRange, yRange, xNames, square = false, ellipses = [], marks = [] }) {
    const W = Math.round(Math.min(640, Math.max(270, box.clientWidth || 560))), H = square ? Math.min(460, W) : 260, L = 54, R = 12, T = 12, B = 42;
    const all = series.flatMap((s) => s.points);
    const [x0, x1] = xRange || [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
    const [y0, y1] = yRange || [Math.min(0, ...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
    const sx = (v) => L + ((v - x0) / (x1 - x0 || 1)) * (W - L - R), sy = (v) => H - B - ((v - y0) / (y1 - y0 || 1)) * (H - T - B);
    const clip = (box.dataset.clip ||= `clip${++charts}`), parts = [], ticks = (a, b) => { const step = niceStep((b - a) / 5); return Array.from({ length: Math.floor(b / step + 1e-9) - Math.ceil(a / step - 1e-9) + 1 }, (_, i) => (Math.ceil(a / step - 1e-9) + i) * step); };
    ticks(y0, y1).forEach((v) => parts.push(`<line class="grid" x1="${L}" x2="${W - R}" y1="${sy(v)}" y2="${sy(v)}"/><text class="tick" x="${L - 7}" y="${sy(v) + 4}" text-anchor="end">${short(v)}</text>`));
    (xNames ? xNames.map((_, i) => i + 1) : ticks(x0, x1)).forEach((v) => parts.push(`<text class="tick" x="${sx(v)}" y="${H - B + 17}" text-anchor="middle">${xNames ? escape(xNames[v - 1]) : short(v)}</text>`));
    parts.push(`<text class="axis" x="${(L + W - R) / 2}" y="${H - 6}" text-anchor="middle">${escape(x)}</text><text class="axis" transform="translate(13 ${(H - B + T) / 2}) rotate(-90)" text-anchor="middle">${escape(y)}</text>`);
    parts.push(`<clipPath id="${clip}"><rect x="${L}" y="${T}" width="${W - L - R}" height="${H - T - B}"/></clipPath><g clip-path="url(#${clip})">`);
    ellipses.forEach(([rx, ry]) => parts.push(`<ellipse class="contour" cx="${sx(0)}" cy="${sy(0)}" rx="${sx(rx) - sx(0)}" ry="${sy(0) - sy(ry)}"/>`));
    marks.forEach((v) => parts.push(`<line class="mark" x1="${sx(v)}" x2="${sx(v)}" y1="${T}" y2="${H - B}"/>`));
    series.forEach((s, i) => {
      const color = `var(--series${s.color ?? i})`;
      if (s.bars) s.points.forEach(([px, py]) => parts.push(`<rect x="${sx(px) - s.bars / 2}" width="${s.bars}" y="${Math.min(sy(py), sy(0))}" height="${Math.abs(sy(py) - sy(0))}" fill="${color}"/>`));
      else if (!s.dots) parts.push(`<polyline fill="none" stroke="${color}" stroke-width="2.2" ${s.dashed ? 'stroke-dasharray="6 4"' : ""} points="${s.points.map(([px, py]) => `${sx(px).toFixed(1)},${sy(py).toFixed(1)}`).join(" ")}"/>`);
      if (s.dots) s.points.forEach(([px, py]) => parts.push(`<circle cx="${sx(px)}" cy="${sy(py)}" r="${s.dots}" fill="${color}" fill-opacity=".75"/>`));
    });
    parts.push("</g>");
    const named = series.filter((s) => s.name);
    const label = escape(`${y}, ${x}${named.length ? ": " + named.map((s) => s.name).join("; ") : ""}`);
    box.innerHTML = `<svg role="img" aria-label="${label}" viewBox="0 0 ${W} ${H}">${parts.join("")}</svg>` +
      (named.length ? `<ul class="legend">${named.map((s) => `<li><i class="key${s.color ?? series.indexOf(s)}${s.dashed ? " dashed" : ""}"></i>${escape(s.name)}</li>`).join("")}</ul>` : "");
  }
  const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  const short = (v) => (Math.abs(v) < 1e-12 ? "0" : String(Number(v.toPrecision(3))));
  function niceStep(raw) {
    if (!(raw > 0)) return 1;
    const base = 10 ** Math.floor(Math.log10(raw)), share = raw / base;
    return base * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
  }

  // Questions: the answer is a number; what was solved is kept in this browser only.
  const KEY = "alexnet-course";
  const stored = () => { try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch { return {}; } };
  function store(lesson, number) {
    const all = stored();
    all[lesson] = [...new Set([...(all[lesson] || []), number])];
    try { localStorage.setItem(KEY, JSON.stringify(all)); } catch { /* a browser that stores nothing */ }
  }
  function question(form) {
    const { lesson, number, answer, tolerance } = form.dataset, reply = form.querySelector("[role=status]");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = parseFloat(form.querySelector("input").value.replace(/[, ]/g, "").replace(/%$/, ""));
      const correct = Math.abs(given - Number(answer)) <= Number(tolerance);
      reply.className = correct ? "correct" : "wrong";
      reply.textContent = Number.isNaN(given) ? say("Enter a number.", "수를 입력하세요.") : correct ? say("Correct.", "정답입니다.") : say("Not yet. Try again, or open the solution.", "아직 아닙니다. 다시 해 보거나 풀이를 여세요.");
      if (correct) { store(lesson, number); showProgress(); }
    });
  }
  function showProgress() {
    const all = stored();
    document.querySelectorAll("form.question").forEach((form) => form.classList.toggle("solved", (all[form.dataset.lesson] || []).includes(form.dataset.number)));
    document.querySelectorAll("[data-progress]").forEach((place) => {
      const count = (all[place.dataset.progress] || []).length;
      place.textContent = count ? say(`${count} of 3 solved`, `3문제 중 ${count}문제 해결`) : "";
    });
  }
  document.addEventListener("DOMContentLoaded", start);

  return { arrays, values, add, widget, say, fixed, whole, percent, power, drawBytes, drawMap, kernelBytes, frame, onDrag, chart };
})();
