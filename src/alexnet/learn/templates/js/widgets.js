// One widget per lesson: it reads the controls, calls Compute, and shows values and drawings.
"use strict";

(() => {
  const { arrays, values, say, fixed, whole, percent, drawBytes, drawMap, kernelBytes, frame, onDrag, chart, widget } = Course;
  const SIDE = 256, INPUT = 227, KERNEL = 11, STRIDE = 4;
  const rgb = (bytes) => Array.from(bytes).join(", ");
  const starterInput = (photograph) => Compute.networkInput(arrays.images.row(photograph), SIDE, INPUT, arrays.input_mean.flat, arrays.input_scale.flat[0]);
  const starterMap = (input, index) => Compute.featureMap(input, INPUT, arrays.kernels.row(index), KERNEL, { stride: STRIDE, gain: arrays.gain.flat[index], offset: arrays.offset.flat[index] });

  widget("photograph", (w) => {
    const canvas = w.canvas("image"), mean = new Float64Array(SIDE * SIDE * 3);
    for (let n = 0; n < 3; n++) arrays.images.row(n).forEach((v, i) => { mean[i] += v / 3; });
    onDrag(canvas, (x, y) => { w.input("column").value = Math.round(x * 255); w.put("row", Math.round(y * 255)); });
    return () => {
      const image = arrays.images.row(w.get("photograph")), row = w.get("row"), column = w.get("column");
      const sizes = { side: w.get("side"), kernel: w.get("kernel"), stride: w.get("stride"), padding: w.get("padding"), overhang: w.get("overhang") };
      const output = Compute.outputSize(sizes), at = 3 * (row * SIDE + column), first = Math.floor((SIDE - sizes.side) / 2);
      w.value("output", whole(output));
      w.value("beyond", whole(Compute.overhangPixels(sizes)));
      w.value("units", whole(96 * output * output));
      w.value("pixel", rgb(image.subarray(at, at + 3)));
      w.value("mean", Array.from(mean.subarray(at, at + 3), (v) => fixed(v, 1)).join(", "));
      w.value("difference", [0, 1, 2].map((c) => fixed(image[at + c] - mean[at + c], 1)).join(", "));
      const context = drawBytes(canvas, image, SIDE);
      frame(context, first, first, sizes.side, sizes.side, "#fff");
      const last = first - sizes.padding + (output - 1) * sizes.stride;
      frame(context, last, last, sizes.kernel, sizes.kernel);
      frame(context, first - sizes.padding, first - sizes.padding, sizes.kernel, sizes.kernel);
      frame(context, column - 2, row - 2, 5, 5, "#00e5ff");
    };
  });

  widget("convolution", (w) => {
    let input, key;
    onDrag(w.canvas("image"), (x, y) => { w.input("column").value = Math.round(x * 54); w.put("row", Math.round(y * 54)); });
    return () => {
      const photograph = w.get("photograph"), index = w.get("index"), row = w.get("row"), column = w.get("column"), kernel = arrays.kernels.row(index);
      if (key !== photograph) input = starterInput((key = photograph));
      const [top, left] = [row * STRIDE, column * STRIDE], area = KERNEL ** 2;
      const sum = Compute.windowSum(input, INPUT, kernel, KERNEL, top, left);
      [0, 1, 2].forEach((c) => {
        const only = kernel.map((v, i) => (Math.floor(i / area) === c ? v : 0));
        w.value(`sum${c}`, fixed(Compute.windowSum(input, INPUT, only, KERNEL, top, left)));
      });
      w.value("sum", fixed(sum));
      w.value("unit", fixed(Math.max(0, sum * arrays.gain.flat[index] + arrays.offset.flat[index])));
      const image = arrays.images.row(photograph), first = (SIDE - INPUT - 1) / 2, part = new Uint8ClampedArray(3 * area);
      for (let y = 0; y < KERNEL; y++) for (let x = 0; x < KERNEL; x++) for (let c = 0; c < 3; c++)
        part[3 * (y * KERNEL + x) + c] = image[3 * ((top + first + y) * SIDE + left + first + x) + c];
      frame(drawBytes(w.canvas("image"), image, SIDE), left + first, top + first, KERNEL, KERNEL);
      drawBytes(w.canvas("window"), part, KERNEL);
      drawBytes(w.canvas("kernel"), kernelBytes(kernel, KERNEL), KERNEL);
      frame(drawMap(w.canvas("map"), starterMap(input, index), 55), column - 1, row - 1, 3, 3);
      const upTo = w.get("layers"), towers = w.get("towers"), totals = [0, 0], body = w.root.querySelector("tbody");
      body.replaceChildren(...values.convolution.layers.slice(0, upTo).map((layer) => {
        const cost = Compute.convolutionCost({ ...layer, groups: towers ? layer.groups : 1 });
        totals[0] += cost.parameters;
        totals[1] += cost.multiplyAdds;
        const line = document.createElement("tr");
        line.innerHTML = `<th scope="row">${layer.name}</th><td>${whole(cost.parameters)}</td><td>${whole(cost.multiplyAdds)}</td>`;
        return line;
      }));
      w.value("parameters", whole(totals[0]));
      w.value("multiplyAdds", whole(totals[1]));
    };
  });

  widget("lrn", (w) => {
    let input, key;
    onDrag(w.canvas("image"), (x, y) => { w.input("column").value = Math.round(x * 54); w.put("row", Math.round(y * 54)); });
    return () => {
      const photograph = w.get("photograph"), row = w.get("row"), column = w.get("column"), scale = 10 ** w.get("scale");
      if (key !== photograph) input = starterInput((key = photograph));
      const before = Array.from({ length: 96 }, (_, i) => {
        const sum = Compute.windowSum(input, INPUT, arrays.kernels.row(i), KERNEL, row * STRIDE, column * STRIDE);
        return scale * Math.max(0, sum * arrays.gain.flat[i] + arrays.offset.flat[i]);
      });
      const constants = { n: w.get("n"), alpha: Course.power(w.input("alpha")), beta: w.get("beta"), k: w.get("k"), groups: w.get("towers") ? 2 : 1 };
      const printed = Compute.localResponseNorm(before, { ...constants, divideByN: false });
      const divided = Compute.localResponseNorm(before, { ...constants, divideByN: true });
      const after = w.get("divide") ? divided : printed, peak = before.indexOf(Math.max(...before));
      w.value("peak", String(peak));
      w.value("before", fixed(before[peak]));
      w.value("printed", fixed(printed[peak]));
      w.value("divided", fixed(divided[peak]));
      w.value("factor", before[peak] ? fixed(after[peak] / before[peak]) : "–");
      const silent = { ...constants, alpha: 0, divideByN: false };
      w.value("floor", before[peak] ? fixed(Compute.localResponseNorm(before, silent)[peak] / before[peak]) : "–");
      const bars = (name, list, color) => chart(w.plot(name), {
        x: say("feature map", "특징 맵"), y: say("activation", "활성값"), xRange: [-1, 96], series: [{ color, bars: 4, points: list.map((v, i) => [i, v]) }],
      });
      bars("before", before, 3);
      bars("after", after, 0);
      frame(drawBytes(w.canvas("image"), arrays.images.row(photograph), SIDE), column * STRIDE + 14, row * STRIDE + 14, KERNEL, KERNEL);
    };
  });

  widget("pooling", (w) => {
    let input, key;
    return () => {
      const photograph = w.get("photograph");
      if (key !== photograph) input = starterInput((key = photograph));
      const map = starterMap(input, w.get("index")), shifted = map.map((_, i) => map[i % 55 ? i - 1 : i]);
      const [size, stride] = w.root.querySelector("[name=window]").value.split("/").map(Number), average = w.get("average");
      const side = Compute.outputSize({ side: 55, kernel: size, stride });
      const pooled = Compute.pool(map, 55, { size, stride, average }), moved = Compute.pool(shifted, 55, { size, stride, average });
      const norm = Math.sqrt(pooled.reduce((s, v) => s + v * v, 0)), change = Math.sqrt(pooled.reduce((s, v, i) => s + (v - moved[i]) ** 2, 0));
      w.value("side", `${side} × ${side}`);
      w.value("units", whole(96 * side * side));
      w.value("largest", fixed(Math.max(...pooled)));
      w.value("mean", fixed(pooled.reduce((a, b) => a + b, 0) / pooled.length));
      w.value("change", norm ? percent(change / norm) : "–");
      drawMap(w.canvas("map"), map, 55);
      drawMap(w.canvas("pooled"), pooled, side);
    };
  });

  // The digits as the small networks read them: minus the mean image of the training images, divided by 16.
  const TRAIN = 1000;
  function digitInputs() {
    if (digitInputs.found) return digitInputs.found;
    const mean = new Float64Array(64), rows = Array.from({ length: arrays.digits.shape[0] }, (_, n) => arrays.digits.row(n));
    rows.slice(0, TRAIN).forEach((row) => row.forEach((v, i) => { mean[i] += v / TRAIN; }));
    return (digitInputs.found = rows.map((row) => Float64Array.from(row, (v, i) => (v - mean[i]) / 16)));
  }
  // Results of a function by its arguments: a control that is moved back costs nothing.
  function remembered(compute) {
    const known = new Map();
    return (...given) => {
      const key = JSON.stringify(given);
      if (!known.has(key)) known.set(key, compute(...given));
      return known.get(key);
    };
  }

  widget("relu", (w) => {
    const IMAGES = 300, EPOCHS = 12, kinds = ["relu", "tanh"];
    const race = remembered((activation, lr, hidden, seed) => {
      const layers = Compute.initialLayers([64, ...Array(hidden).fill(32), 10], { seed, tanh: activation === "tanh" });
      const inputs = digitInputs().slice(0, IMAGES), labels = arrays.digit_labels.flat;
      return Compute.train(layers, inputs, labels, { epochs: EPOCHS, lr, batch: 30, seed, activation }).map((epoch) => epoch[0]);
    });
    const { figure } = values.relu, marked = (errors) => errors.map((v, i) => [i + 0.5, 100 * v]);
    const axes = { x: say("epoch", "에폭"), y: say("training error, %", "학습 오류율, %") };
    return () => {
      chart(w.plot("measured"), { ...axes, yRange: [0, 70], series: [
        { name: `ReLU, ${say("learning rate", "학습률")} ${figure.relu.rate}`, points: marked(figure.relu.errors) },
        { name: `tanh, ${say("learning rate", "학습률")} ${figure.tanh.rate}`, points: marked(figure.tanh.errors), dashed: true },
      ] });
      const kind = w.root.querySelector("[name=kind]").value, x = w.get("x"), { value, gradient } = Compute.activations[kind];
      const grid = Array.from({ length: 121 }, (_, i) => -6 + i / 10);
      w.value("value", fixed(value(x), 4));
      w.value("gradient", fixed(gradient(x), 4));
      w.value("through", gradient(x) ** w.get("depth") ? (gradient(x) ** w.get("depth")).toPrecision(3) : "0");
      chart(w.plot("curve"), { x: "x", y: "f(x), f′(x)", xRange: [-6, 6], yRange: [-1.2, kind === "relu" ? 6 : 1.2], marks: [x], series: [
        { name: "f(x)", points: grid.map((v) => [v, value(v)]) }, { name: "f′(x)", dashed: true, points: grid.map((v) => [v, gradient(v)]) },
      ] });
      const curves = kinds.map((name) => race(name, Course.power(w.input(name)), w.get("hidden"), w.get("seed"))), target = w.get("target") / 100;
      chart(w.plot("race"), { ...axes, xRange: [0, EPOCHS], yRange: [0, 100], series: [
        ...kinds.map((name, i) => ({ name: name === "relu" ? "ReLU" : "tanh", points: marked(curves[i]), dashed: i === 1 })),
        { name: say("target", "목표"), color: 3, points: [[0, 100 * target], [EPOCHS, 100 * target]] },
      ] });
      const epochs = curves.map((errors) => Compute.crossing(errors, target)), never = say(`not in ${EPOCHS}`, `${EPOCHS} 안에 못 함`);
      w.value("epochsRelu", epochs[0] === null ? never : fixed(epochs[0], 2));
      w.value("epochsTanh", epochs[1] === null ? never : fixed(epochs[1], 2));
      w.value("ratio", epochs[0] && epochs[1] ? fixed(epochs[1] / epochs[0], 2) : "–");
    };
  });
})();
