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

  // A network of the package: its layers from the arrays `NAME_weight0`, `NAME_bias0`, ...
  function storedLayers(name) {
    const layers = [];
    for (let i = 0; arrays[`${name}_weight${i}`]; i++) layers.push(Compute.layer(arrays[`${name}_weight${i}`].flat, arrays[`${name}_bias${i}`].flat));
    return layers;
  }
  // A digit, dark on light.
  function drawDigit(canvas, pixels, side = 8) {
    canvas.width = canvas.height = side;
    const bytes = new Uint8ClampedArray(3 * side * side);
    pixels.forEach((v, i) => bytes.fill(255 - (255 * v) / 16, 3 * i, 3 * i + 3));
    return drawBytes(canvas, bytes, side);
  }
  const classBars = (probabilities, color = 0) => ({ color, bars: 18, points: probabilities.map((v, c) => [c, v]) });

  widget("dropout", (w) => {
    const layers = storedLayers("sampled"), { curves } = values.dropout;
    return () => {
      const at = TRAIN + w.get("image"), x = digitInputs()[at], rate = w.get("rate");
      const hidden = w.root.querySelector("[name=layers]").value === "both" ? [0, 1] : [1];
      const whole = Compute.softmax(Compute.forward(layers, x).logits), answer = whole.indexOf(Math.max(...whole));
      const sampled = Compute.subnetworks(layers, x, { count: w.get("count"), rate, seed: w.get("seed"), hidden });
      const rows = sampled.map((one) => one.probabilities), own = rows.map((row) => row[answer]);
      const mean = whole.map((_, c) => rows.reduce((sum, row) => sum + row[c], 0) / rows.length);
      const deviation = Math.sqrt(own.reduce((sum, v) => sum + (v - mean[answer]) ** 2, 0) / (own.length - 1));
      w.value("answer", String(answer));
      w.value("truth", String(arrays.digit_labels.flat[at]));
      w.value("whole", percent(whole[answer], 2));
      w.value("mean", percent(mean[answer], 2));
      w.value("geometric", percent(Compute.geometricMean(rows)[answer], 2));
      w.value("spread", percent(deviation, 2));
      w.value("agree", `${rows.filter((row) => row.indexOf(Math.max(...row)) === answer).length} / ${rows.length}`);
      drawDigit(w.canvas("image"), arrays.digits.row(at));
      const bytes = new Uint8ClampedArray(3 * 256), kept = sampled[0].masks.flatMap((mask) => mask || Array(128).fill(1));
      kept.forEach((v, i) => bytes.set(v ? [255, 212, 0] : [0, 0, 0], 3 * i));
      drawBytes(w.canvas("masks"), bytes, 16);
      chart(w.plot("classes"), { x: say("class", "클래스"), y: say("probability", "확률"), xRange: [-0.7, 9.7], yRange: [0, 1], series: [
        { ...classBars(whole), name: say("whole network", "전체 네트워크") },
        { name: say("mean of the sub-networks", "하위 네트워크의 평균"), color: 1, dots: 5, points: mean.map((v, c) => [c, v]) },
      ] });
      const bins = Array(20).fill(0);
      own.forEach((v) => { bins[Math.min(19, Math.floor(v * 20))]++; });
      chart(w.plot("spread"), { x: say("probability of the answer", "답의 확률"), y: say("sub-networks", "하위 네트워크"), xRange: [0, 1], marks: [whole[answer]], series: [
        { color: 2, bars: 9, points: bins.map((v, i) => [i / 20 + 0.025, v]) },
      ] });
      const series = ["without", "with"].flatMap((name, i) => ["training", "test"].map((split, k) => ({
        name: `${name === "with" ? say("with", "드롭아웃 사용") : say("without", "드롭아웃 없음")}, ${split === "test" ? say("test", "테스트") : say("training", "학습")}`,
        color: i, dashed: k === 0, points: curves[name][split].map((v, e) => [e + 1, 100 * v]),
      })));
      chart(w.plot("training"), { x: say("epoch", "에폭"), y: say("error, %", "오류율, %"), yRange: [0, 45], series });
    };
  });

  widget("training", (w) => {
    const START = [-4, 1.6], { plateau, drops } = values.training;
    const start = remembered((std, seed) => {
      const layers = Compute.initialLayers([64, ...Array(7).fill(64), 10], { seed, std }), batch = digitInputs().slice(0, 50);
      const { loss, gradients } = Compute.gradients(layers, batch, arrays.digit_labels.flat);
      return { scales: Compute.layerScales(layers, batch), loss, first: Math.max(...gradients[0].weight.map(Math.abs)) };
    });
    const small = (v) => (v !== 0 && (Math.abs(v) < 0.001 || Math.abs(v) >= 1e5) ? v.toExponential(2) : fixed(v, 4)), pair = (a, b) => `${small(a)}, ${small(b)}`;
    return () => {
      const ratio = w.get("ratio"), drop = w.get("drop") < 100 ? w.get("drop") : Infinity;
      const options = { lr: Course.power(w.input("lr")), momentum: w.get("momentum"), decay: w.get("decay"), ratio, steps: w.get("steps"), drop };
      const [paper, torch] = [Compute.paperUpdate, Compute.torchUpdate].map((update) => Compute.descent(update, START, options));
      const [lastPaper, lastTorch] = [paper[paper.length - 1], torch[torch.length - 1]];
      w.value("paper", pair(lastPaper[0], lastPaper[1]));
      w.value("torch", pair(lastTorch[0], lastTorch[1]));
      w.value("velocity", pair(lastPaper[2], lastPaper[3]));
      w.value("lossPaper", small(Compute.bowl(lastPaper, ratio)));
      w.value("lossTorch", small(Compute.bowl(lastTorch, ratio)));
      const dotted = (path) => path.map(([a, b]) => [a, b]);
      chart(w.plot("path"), { x: "w₁", y: "w₂", square: true, xRange: [-5, 5], yRange: [-3, 3], ellipses: [0.5, 2, 4.5, 8, 12.5].map((loss) => [Math.sqrt(2 * loss), Math.sqrt((2 * loss) / ratio)]), series: [
        { name: say("paper", "논문"), points: dotted(paper) }, { name: "torch.optim.SGD", points: dotted(torch), dashed: true },
        { color: 0, dots: 3, points: dotted(paper) },
      ] });
      const { scales, loss, first } = start(Course.power(w.input("std")), w.get("seed"));
      w.value("last", small(scales[7]));
      w.value("initial", fixed(loss, 4));
      w.value("chance", fixed(Math.log(10), 4));
      w.value("first", small(first));
      chart(w.plot("scale"), { x: say("layer", "층"), y: say("log₁₀ of the deviation", "표준 편차의 상용로그"), xRange: [0.5, 8.5], yRange: [Math.min(-12, Math.floor(Math.log10(scales[7])) - 1), 4], series: [
        { color: 2, dots: 5, points: scales.map((v, i) => [i + 1, Math.log10(v)]) }, { color: 2, points: scales.map((v, i) => [i + 1, Math.log10(v)]) },
      ] });
      const epoch = say("epoch", "에폭"), curve = (list, factor = 1) => list.map((v, i) => [i + 1, factor * v]);
      chart(w.plot("plateau"), { x: epoch, y: say("loss", "손실"), yRange: [0, 2.5], series: [
        { name: "N(0, 0.01²)", points: curve(plateau.paper) }, { name: "He", points: curve(plateau.he), dashed: true },
        { name: "ln(10)", color: 3, points: [[1, Math.log(10)], [plateau.epochs, Math.log(10)]], dashed: true },
      ] });
      chart(w.plot("drops"), { x: epoch, y: say("training error, %", "학습 오류율, %"), yRange: [0, 70], marks: drops.epochs, series: [{ points: curve(drops.errors, 100) }] });
    };
  });

  widget("augmentation", (w) => {
    const CROP = 224, margin = SIDE - CROP, { errors } = values.augmentation, networks = { crops: storedLayers("crops"), flips: storedLayers("flips") };
    const select = w.input("photograph"), photographs = [0, 1, 2].map((n) => arrays.images.row(n));
    onDrag(w.canvas("image"), (x, y) => { w.input("left").value = Math.round(x * SIDE - CROP / 2); w.put("top", Math.round(y * SIDE - CROP / 2)); });
    w.root.querySelector("[data-file]").addEventListener("change", async (event) => {
      if (!event.target.files.length) return;
      const bitmap = await createImageBitmap(event.target.files[0]), side = Math.min(bitmap.width, bitmap.height);
      const context = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE }).getContext("2d");
      context.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
      photographs.push(context.getImageData(0, 0, SIDE, SIDE).data.filter((_, i) => i % 4 < 3));
      select.add(new Option(event.target.files[0].name, photographs.length - 1));
      w.put("photograph", photographs.length - 1);
    });
    const components = remembered((which) => Compute.colorComponents(which.map((n) => photographs[n])));
    return () => {
      const chosen = w.get("photograph"), image = photographs[chosen], flip = w.get("flip"), top = w.get("top"), left = w.get("left");
      const found = components(w.root.querySelector("[name=over]").value === "all" ? photographs.map((_, n) => n) : [chosen]);
      const shift = Compute.colorOffset(found, [0, 1, 2].map((i) => w.get(`a${i}`)), w.root.querySelector("[name=unit]").value);
      w.value("deviations", found.values.map((v) => fixed(Math.sqrt(v), 1)).join(", "));
      w.value("first", found.vectors.map((row) => fixed(row[0], 2)).join(", "));
      w.value("shift", shift.map((v) => fixed(v, 1)).join(", "));
      w.value("crops", whole(2 * (margin + 1) ** 2));
      frame(drawBytes(w.canvas("image"), image, SIDE), left, top, CROP, CROP);
      drawBytes(w.canvas("crop"), Uint8ClampedArray.from(Compute.crop(image, SIDE, { top, left, size: CROP, flip }), (v, i) => v + shift[i % 3]), CROP);

      const at = TRAIN + w.get("digit"), x = digitInputs()[at], truth = arrays.digit_labels.flat[at], network = w.root.querySelector("[name=network]").value;
      const views = Compute.tenViews(8, 6), best = (p) => p.indexOf(Math.max(...p));
      const found10 = views.map((view) => Compute.softmax(Compute.forward(networks[network], Compute.crop(x, 8, { ...view, channels: 1 })).logits));
      const mean = (rows) => rows[0].map((_, c) => rows.reduce((sum, row) => sum + row[c], 0) / rows.length);
      const answer = (rows) => { const p = mean(rows), c = best(p); return `${c} (${percent(p[c])})`; };
      w.value("truth", String(truth));
      w.value("one", answer([found10[8]]));
      w.value("five", answer(found10.filter((_, i) => i % 2 === 0)));
      w.value("ten", answer(found10));
      for (const [name, kind] of [["errorOne", "one"], ["errorFive", "five"], ["errorTen", "ten"]]) w.value(name, percent(errors[network][kind]));
      const canvas = w.canvas("views"), context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      views.forEach((view, i) => {
        const pixels = Compute.crop(arrays.digits.row(at), 8, { ...view, channels: 1 }), bytes = new Uint8ClampedArray(108);
        pixels.forEach((v, j) => bytes.fill(255 - (255 * v) / 16, 3 * j, 3 * j + 3));
        drawBytes(canvas, bytes, 6, 6, 7 * Math.floor(i / 2), 7 * (i % 2));
      });
      const p = found10.map((row) => row[truth]);
      chart(w.plot("views"), { x: say("view (even: flipped)", "뷰(짝수: 뒤집음)"), y: say("probability", "확률"), xRange: [0.3, 10.7], yRange: [0, 1], series: [
        { color: 0, bars: 14, name: say("not flipped", "뒤집지 않음"), points: p.map((v, i) => [i + 1, v]).filter((_, i) => i % 2 === 0) },
        { color: 1, bars: 14, name: say("flipped", "뒤집음"), points: p.map((v, i) => [i + 1, v]).filter((_, i) => i % 2) },
        { color: 3, name: say("mean of ten", "열 개의 평균"), dashed: true, points: [[0.3, mean(found10)[truth]], [10.7, mean(found10)[truth]]] },
      ] });
    };
  });

  // The two towers as a drawing: a row for each layer, lines to the towers that it reads.
  function towersDrawing(box, layers, reads) {
    const W = 300, step = 46, top = 20, H = top + step * (layers.length + 1), x = [80, 220], parts = [];
    const line = (x1, y1, x2, y2, cross) => parts.push(`<line class="wire${cross ? " cross" : ""}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`);
    layers.forEach((layer, row) => {
      const y = top + (row + 1) * step;
      for (const tower of [0, 1]) {
        if (row === 0) line(W / 2, top + 12, x[tower], y - 13);
        else line(x[tower], y - step + 13, x[tower], y - 13);
        if (row && reads[layer.name]) line(x[tower], y - step + 13, x[1 - tower], y - 13, true);
      }
    });
    parts.push(`<rect class="box" x="${W / 2 - 60}" y="${top - 13}" width="120" height="26" rx="5"/><text class="label" x="${W / 2}" y="${top + 5}" text-anchor="middle">${say("image", "이미지")}</text>`);
    layers.forEach((layer, row) => [0, 1].forEach((tower) => {
      const y = top + (row + 1) * step;
      parts.push(`<rect class="box" x="${x[tower] - 56}" y="${y - 13}" width="112" height="26" rx="5"/><text class="label" x="${x[tower]}" y="${y + 5}" text-anchor="middle">${layer.name}: ${layer.kernels / 2}</text>`);
    }));
    const crossing = layers.slice(1).filter((layer) => reads[layer.name]).map((layer) => layer.name).join(", ");
    box.innerHTML = `<svg class="towers" role="img" aria-label="${say("Two towers of eight layers; both are read by", "여덟 층의 두 타워. 두 타워를 모두 읽는 층:")} ${crossing}" viewBox="0 0 ${W} ${H}">${parts.join("")}</svg>`;
  }

  widget("towers", (w) => {
    const { layers, inputs, classes, runs } = values.towers;
    const starter = Array.from({ length: 96 }, (_, i) => Compute.saturation(arrays.kernels.row(i)));
    [0, 1].forEach((tower) => {
      const canvas = w.canvas(`tower${tower}`);
      for (let i = 0; i < 48; i++) drawBytes(canvas, kernelBytes(arrays.kernels.row(48 * tower + i), KERNEL), KERNEL, KERNEL, 12 * (i % 8), 12 * Math.floor(i / 8));
    });
    const tested = remembered((run, kind, permutations, seed) => Compute.permutationTest(run === "starter" ? starter : runs[run][kind], permutations, seed));
    return () => {
      const reads = { fc6: true, fc7: true, fc8: true };
      for (const name of ["conv2", "conv3", "conv4", "conv5"]) reads[name] = w.get(name);
      const crossing = layers.filter((layer) => reads[layer.name]).map((layer) => inputs[layer.name]), size = { batch: w.get("batch"), bytes: w.get("bytes") };
      const costs = layers.map((layer) => Compute.convolutionCost({ ...layer, groups: layer.name === "conv1" || reads[layer.name] ? 1 : 2 }));
      const total = (key) => costs.reduce((sum, cost) => sum + cost[key], 0), mega = (bytes) => `${fixed(bytes / 1e6, 1)} MB`;
      w.value("sent", mega(Compute.towerBytes({ inputs: crossing, classes, ...size })));
      w.value("data", mega(total("parameters") * size.bytes));
      w.value("parameters", whole(total("parameters")));
      w.value("multiplyAdds", whole(total("multiplyAdds")));
      towersDrawing(w.plot("diagram"), layers, reads);
      const run = w.root.querySelector("[name=run]").value, kind = w.root.querySelector("[name=kind]").value;
      const { own, differences, p } = tested(run, kind, w.get("permutations"), w.get("seed"));
      w.value("first", fixed(own[0]));
      w.value("second", fixed(own[1]));
      w.value("difference", fixed(own[1] - own[0]));
      w.value("p", p.toPrecision(2));
      const range = 1.1 * Math.max(...differences.map(Math.abs), Math.abs(own[1] - own[0])), bins = Array(31).fill(0);
      differences.forEach((d) => { bins[Math.min(30, Math.floor(((d + range) / (2 * range)) * 31))]++; });
      chart(w.plot("permuted"), { x: say("difference of the mean saturations", "평균 채도의 차이"), y: say("assignments", "나눈 횟수"), xRange: [-range, range], marks: [own[1] - own[0]], series: [
        { color: 3, bars: 7, points: bins.map((v, i) => [((i + 0.5) / 31) * 2 * range - range, v]) },
      ] });
    };
  });

  widget("learned", (w) => {
    const layers = storedLayers("sampled"), inputs = remembered((photograph) => starterInput(photograph));
    const strongest = remembered((index) => {
      const found = [0, 1, 2].flatMap((n) => Array.from(starterMap(inputs(n), index), (value, at) => ({ value, n, row: Math.floor(at / 55), column: at % 55 })));
      return found.sort((a, b) => b.value - a.value).slice(0, 9);
    });
    const features = (x) => Compute.forward(layers, x).inputs[2], featureRows = remembered(() => digitInputs().slice(0, TRAIN).map(features));
    return () => {
      const index = w.get("index"), kernel = arrays.kernels.row(index), windows = strongest(index), canvas = w.canvas("windows"), first = (SIDE - INPUT - 1) / 2;
      drawBytes(w.canvas("kernel"), kernelBytes(kernel, KERNEL), KERNEL);
      windows.forEach(({ n, row, column }, i) => {
        const part = Compute.crop(arrays.images.row(n), SIDE, { top: row * STRIDE + first, left: column * STRIDE + first, size: KERNEL });
        drawBytes(canvas, part, KERNEL, KERNEL, 12 * (i % 3), 12 * Math.floor(i / 3));
      });
      w.value("strongest", fixed(windows[0].value));
      w.value("saturation", fixed(Compute.saturation(kernel)));
      const at = TRAIN + w.get("query"), x = digitInputs()[at], truth = arrays.digit_labels.flat[at];
      const byPixels = w.root.querySelector("[name=space]").value === "pixels";
      const found = Compute.nearest(byPixels ? x : features(x), byPixels ? digitInputs().slice(0, TRAIN) : featureRows(), w.get("count"));
      w.value("truth", String(truth));
      w.value("labels", found.map(([row]) => arrays.digit_labels.flat[row]).join(", "));
      w.value("distance", fixed(found[0][1]));
      const strip = w.canvas("query");
      strip.height = found.length > 6 ? 17 : 8; // clears it, too
      [at, ...found.map(([row]) => row)].forEach((row, i) => {
        const bytes = new Uint8ClampedArray(192);
        arrays.digits.row(row).forEach((v, j) => bytes.fill(255 - (255 * v) / 16, 3 * j, 3 * j + 3));
        drawBytes(strip, bytes, 8, 8, 9 * (i % 7), 9 * Math.floor(i / 7));
      });
      const p = Compute.softmax(Compute.forward(layers, x).logits), five = p.map((v, c) => [v, c]).sort((a, b) => b[0] - a[0]).slice(0, 5);
      chart(w.plot("five"), { x: say("class, most probable first", "클래스, 확률순"), xNames: five.map((f) => f[1]), y: say("probability", "확률"), xRange: [0.4, 5.6], yRange: [0, 1], series: [
        { color: 0, bars: 34, name: say("other classes", "다른 클래스"), points: five.map(([v, c], i) => [i + 1, v, c]).filter((f) => f[2] !== truth) },
        { color: 1, bars: 34, name: say("the correct class", "정답"), points: five.map(([v, c], i) => [i + 1, v, c]).filter((f) => f[2] === truth) },
      ] });
    };
  });
})();
