// The computations of the course, without the page: numbers in, numbers out. Each is compared with the package in the
// tests. Images and feature maps are flat arrays; an image is [row][column][channel], a kernel [channel][row][column].
"use strict";

const Compute = (() => {
  // 1. Sizes. With `overhang`, the last window may hang over the edge, as in the released code.
  function outputSize({ side, kernel, stride, padding = 0, overhang = false }) {
    const room = side + 2 * padding - kernel;
    return (overhang ? Math.ceil(room / stride) : Math.floor(room / stride)) + 1;
  }

  // Pixels beyond the edge that the last window reads.
  function overhangPixels(sizes) {
    const { side, kernel, stride, padding = 0 } = sizes;
    return Math.max(0, (outputSize(sizes) - 1) * stride + kernel - side - 2 * padding);
  }

  // 2. Convolution.
  const convolutionCost = ({ kernels, channels, size, groups = 1, output }) => ({
    parameters: kernels * (channels / groups) * size * size + kernels,
    multiplyAdds: kernels * (channels / groups) * size * size * output * output,
  });

  // One window: the sum of the products of a kernel with the input below it. `input` is [row][column][channel].
  function windowSum(input, side, kernel, size, top, left, channels = 3) {
    let sum = 0;
    for (let c = 0; c < channels; c++)
      for (let y = 0; y < size; y++)
        for (let x = 0; x < size; x++) {
          const row = top + y, column = left + x;
          if (row < 0 || column < 0 || row >= side || column >= side) continue; // zeros beyond the edge
          sum += kernel[(c * size + y) * size + x] * input[(row * side + column) * channels + c];
        }
    return sum;
  }

  // All windows of one kernel: a feature map, [row][column].
  function featureMap(input, side, kernel, size, { stride, padding = 0, gain = 1, offset = 0, relu = true, channels = 3 }) {
    const output = outputSize({ side, kernel: size, stride, padding });
    const values = new Float64Array(output * output);
    for (let row = 0; row < output; row++)
      for (let column = 0; column < output; column++) {
        const sum = windowSum(input, side, kernel, size, row * stride - padding, column * stride - padding, channels);
        const value = sum * gain + offset;
        values[row * output + column] = relu ? Math.max(0, value) : value;
      }
    return values;
  }

  // The network's input: a square cut from the image, minus the mean color, times a scale.
  function networkInput(image, imageSide, side, mean, scale) {
    const first = Math.floor((imageSide - side) / 2), input = new Float64Array(side * side * 3);
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++)
        for (let c = 0; c < 3; c++)
          input[(row * side + column) * 3 + c] =
            (image[((row + first) * imageSide + column + first) * 3 + c] - mean[c]) * scale;
    return input;
  }

  // 3. Local response normalization of one position: the values of all feature maps there.
  function localResponseNorm(column, { n, alpha, beta, k, divideByN, groups = 1 }) {
    const part = column.length / groups, half = Math.floor(n / 2), factor = divideByN ? alpha / n : alpha;
    return Array.from(column, (value, i) => {
      const first = Math.floor(i / part) * part;
      let energy = 0;
      for (let j = Math.max(first, i - half); j <= Math.min(first + part - 1, i + half); j++) energy += column[j] ** 2;
      return value / (k + factor * energy) ** beta;
    });
  }

  // 4. Pooling without padding.
  function pool(map, side, { size, stride, average = false }) {
    const output = outputSize({ side, kernel: size, stride }), values = new Float64Array(output * output);
    for (let row = 0; row < output; row++)
      for (let column = 0; column < output; column++) {
        let largest = -Infinity, sum = 0;
        for (let y = 0; y < size; y++)
          for (let x = 0; x < size; x++) {
            const value = map[(row * stride + y) * side + column * stride + x];
            largest = Math.max(largest, value);
            sum += value;
          }
        values[row * output + column] = average ? sum / size ** 2 : largest;
      }
    return values;
  }

  // 5. Random numbers from a seed: mulberry32, and pairs of normal ones (Box and Muller).
  function random(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    const shuffled = (count) => {
      const order = Array.from({ length: count }, (_, i) => i);
      for (let i = count - 1; i > 0; i--) { const j = Math.floor(uniform() * (i + 1)); [order[i], order[j]] = [order[j], order[i]]; }
      return order;
    };
    return { uniform, normal, shuffled };
  }

  // 6. Activation functions and their gradients.
  const activations = {
    relu: { value: (x) => Math.max(0, x), gradient: (x) => (x > 0 ? 1 : 0) },
    tanh: { value: Math.tanh, gradient: (x) => 1 - Math.tanh(x) ** 2 },
    logistic: { value: (x) => 1 / (1 + Math.exp(-x)), gradient: (x) => { const s = 1 / (1 + Math.exp(-x)); return s * (1 - s); } },
  };

  // 7. Fully connected networks. A layer is {weight, bias, inputs, outputs}; weight is flat, [output][input].
  function layer(weight, bias) { return { weight, bias, inputs: weight.length / bias.length, outputs: bias.length }; }

  // Normal initial weights; without `std`, the variance is 2 / fan-in (1 / fan-in for tanh).
  function initialLayers(sizes, { seed, std = 0, tanh = false }) {
    const { normal } = random(seed);
    return sizes.slice(1).map((outputs, i) => {
      const scale = std || Math.sqrt((tanh ? 1 : 2) / sizes[i]);
      return layer(Float64Array.from({ length: outputs * sizes[i] }, () => scale * normal()), new Float64Array(outputs));
    });
  }

  function affine({ weight, bias, inputs, outputs }, x) {
    const y = new Float64Array(outputs);
    for (let o = 0; o < outputs; o++) {
      let sum = bias[o];
      for (let i = 0, at = o * inputs; i < inputs; i++, at++) sum += weight[at] * x[i];
      y[o] = sum;
    }
    return y;
  }

  // The sums of every layer, and the inputs of every layer. `masks[i]` keeps (1) or drops (0) the outputs of hidden layer
  // i, and those that are kept are divided by `keep`; without masks the whole network answers.
  function forward(layers, x, { activation = "relu", masks, keep = 0.5 } = {}) {
    const sums = [], inputs = [x], { value } = activations[activation];
    layers.forEach((one, i) => {
      sums.push(affine(one, inputs[i]));
      if (i === layers.length - 1) return;
      const out = sums[i].map(value);
      if (masks && masks[i]) out.forEach((v, u) => { out[u] = (v * masks[i][u]) / keep; });
      inputs.push(out);
    });
    return { sums, inputs, logits: sums[layers.length - 1] };
  }

  function softmax(logits) {
    const largest = Math.max(...logits), powers = Array.from(logits, (v) => Math.exp(v - largest)), sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((v) => v / sum);
  }

  // Mean loss of a batch, and the gradient of each layer.
  function gradients(layers, batch, labels, { activation = "relu" } = {}) {
    const found = layers.map((one) => ({ weight: new Float64Array(one.weight.length), bias: new Float64Array(one.outputs) }));
    let loss = 0, wrong = 0;
    batch.forEach((x, n) => {
      const { sums, inputs, logits } = forward(layers, x, { activation }), p = softmax(logits);
      loss -= Math.log(Math.max(p[labels[n]], 1e-300)) / batch.length;
      if (p.indexOf(Math.max(...p)) !== labels[n]) wrong++;
      let delta = Float64Array.from(p, (v, c) => (v - (c === labels[n])) / batch.length);
      for (let l = layers.length - 1; l >= 0; l--) {
        const { weight, inputs: width, outputs } = layers[l], input = inputs[l], below = l ? new Float64Array(width) : null;
        for (let o = 0; o < outputs; o++) {
          const d = delta[o];
          if (d === 0) continue;
          found[l].bias[o] += d;
          for (let i = 0, at = o * width; i < width; i++, at++) {
            found[l].weight[at] += d * input[i];
            if (below) below[i] += weight[at] * d;
          }
        }
        if (below) delta = below.map((v, i) => v * activations[activation].gradient(sums[l - 1][i]));
      }
    });
    return { loss, error: wrong / batch.length, gradients: found };
  }

  // 8. The update rule of section 5, in place: v <- momentum v - decay lr w - lr gradient, w <- w + v.
  function paperUpdate(w, v, gradient, { lr, momentum = 0.9, decay = 0.0005 }) {
    for (let i = 0; i < w.length; i++) {
      v[i] = momentum * v[i] - decay * lr * w[i] - lr * gradient[i];
      w[i] += v[i];
    }
  }

  // The rule of torch.optim.SGD: v <- momentum v + gradient + decay w, w <- w - lr v.
  function torchUpdate(w, v, gradient, { lr, momentum = 0.9, decay = 0.0005 }) {
    for (let i = 0; i < w.length; i++) {
      v[i] = momentum * v[i] + gradient[i] + decay * w[i];
      w[i] -= lr * v[i];
    }
  }

  // Training in epochs with the paper's rule: the error rate and mean loss of the batches of each epoch.
  function train(layers, inputs, labels, { epochs, lr, batch, seed, activation = "relu", until = 0 }) {
    const velocity = layers.map((one) => ({ weight: new Float64Array(one.weight.length), bias: new Float64Array(one.outputs) }));
    const { shuffled } = random(seed), curve = [];
    for (let epoch = 0; epoch < epochs; epoch++) {
      const order = shuffled(inputs.length), means = [];
      for (let at = 0; at < order.length; at += batch) {
        const rows = order.slice(at, at + batch);
        const found = gradients(layers, rows.map((i) => inputs[i]), rows.map((i) => labels[i]), { activation });
        layers.forEach((one, l) => {
          for (const kind of ["weight", "bias"]) paperUpdate(one[kind], velocity[l][kind], found.gradients[l][kind], { lr, decay: 0 });
        });
        means.push([found.error, found.loss]);
      }
      curve.push([0, 1].map((k) => means.reduce((sum, m) => sum + m[k], 0) / means.length));
      if (!(curve[epoch][1] < 1e6) || curve[epoch][0] < until) break;
    }
    return curve;
  }

  // The epoch at which the error reaches a target, the error of an epoch being that of its middle; null if it never does.
  function crossing(errors, target) {
    for (let n = 0; n < errors.length; n++)
      if (errors[n] <= target) {
        const before = n ? errors[n - 1] : errors[n];
        return n + 0.5 - (before > errors[n] ? (target - errors[n]) / (before - errors[n]) : 0);
      }
    return null;
  }

  // 9. Dropout: probabilities of sampled sub-networks. `hidden` are the hidden layers (0, 1, ...) whose outputs are dropped.
  function subnetworks(layers, x, { count, rate, seed, hidden }) {
    const { uniform } = random(seed), found = [];
    for (let n = 0; n < count; n++) {
      const masks = layers.slice(0, -1).map((one, i) => (hidden.includes(i) ? Array.from({ length: one.outputs }, () => (uniform() >= rate ? 1 : 0)) : null));
      found.push({ masks, probabilities: softmax(forward(layers, x, { masks, keep: 1 - rate }).logits) });
    }
    return found;
  }
  function geometricMean(rows) {
    return softmax(rows[0].map((_, c) => rows.reduce((sum, row) => sum + Math.log(Math.max(row[c], 1e-300)), 0) / rows.length));
  }

  // 10. Two weights on the loss (w1^2 + ratio w2^2) / 2: [w1, w2, v1, v2] after every step, by one of the two rules.
  function descent(update, start, { lr, momentum, decay, ratio, steps, drop = Infinity }) {
    const w = Array.from(start), v = [0, 0], path = [[...w, ...v]];
    for (let step = 0; step < steps; step++) {
      update(w, v, [w[0], ratio * w[1]], { lr: step < drop ? lr : lr / 10, momentum, decay });
      path.push([...w, ...v]);
    }
    return path;
  }
  const bowl = ([w1, w2], ratio) => (w1 * w1 + ratio * w2 * w2) / 2;

  // Standard deviation of the outputs of each layer, over a batch.
  function layerScales(layers, batch) {
    const found = batch.map((x) => { const { inputs, logits } = forward(layers, x); return [...inputs.slice(1), logits]; });
    return layers.map((_, l) => {
      const all = found.flatMap((outputs) => Array.from(outputs[l])), mean = all.reduce((a, b) => a + b, 0) / all.length;
      return Math.sqrt(all.reduce((sum, v) => sum + (v - mean) ** 2, 0) / all.length);
    });
  }

  // 11. Principal components of colors: eigenvalues (descending) and eigenvectors (in columns) of the covariance of red,
  // green and blue over all pixels of some images, by Jacobi's rotations.
  function colorComponents(images) {
    const sums = [0, 0, 0], products = [[0, 0, 0], [0, 0, 0], [0, 0, 0]];
    let count = 0;
    for (const image of images)
      for (let i = 0; i < image.length; i += 3, count++)
        for (let a = 0; a < 3; a++) { sums[a] += image[i + a]; for (let b = a; b < 3; b++) products[a][b] += image[i + a] * image[i + b]; }
    const m = [0, 1, 2].map((a) => [0, 1, 2].map((b) => products[Math.min(a, b)][Math.max(a, b)] / count - (sums[a] / count) * (sums[b] / count)));
    const v = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    for (let sweep = 0; sweep < 30; sweep++)
      for (const [p, q] of [[0, 1], [0, 2], [1, 2]]) {
        if (Math.abs(m[p][q]) < 1e-14) continue;
        const angle = 0.5 * Math.atan2(2 * m[p][q], m[q][q] - m[p][p]), c = Math.cos(angle), s = Math.sin(angle);
        const turn = (row) => { const [a, b] = [row[p], row[q]]; row[p] = c * a - s * b; row[q] = s * a + c * b; };
        m.forEach(turn);
        for (let k = 0; k < 3; k++) { const [a, b] = [m[p][k], m[q][k]]; m[p][k] = c * a - s * b; m[q][k] = s * a + c * b; }
        v.forEach(turn);
      }
    const order = [0, 1, 2].sort((a, b) => m[b][b] - m[a][a]);
    const vectors = [0, 1, 2].map((row) => order.map((column) => v[row][column]));
    [0, 1, 2].forEach((column) => { // the largest component of each is positive
      const largest = [0, 1, 2].reduce((best, row) => (Math.abs(vectors[row][column]) > Math.abs(vectors[best][column]) ? row : best), 0);
      if (vectors[largest][column] < 0) vectors.forEach((row) => { row[column] = -row[column]; });
    });
    return { values: order.map((i) => Math.max(0, m[i][i])), vectors };
  }

  // What PCA color augmentation adds to red, green and blue of 0 to 255.
  function colorOffset({ values, vectors }, alphas, unit) {
    const lengths = values.map((v) => (unit === "eigenvalues" ? v / 255 : Math.sqrt(v)));
    return vectors.map((row) => row.reduce((sum, v, i) => sum + v * lengths[i] * alphas[i], 0));
  }

  // A crop of an image [row][column][channel], flipped or not.
  function crop(image, side, { top, left, size, flip = false, channels = 3 }) {
    const out = new Float64Array(size * size * channels);
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++)
        for (let c = 0; c < channels; c++)
          out[(y * size + x) * channels + c] = image[((top + y) * side + left + (flip ? size - 1 - x : x)) * channels + c];
    return out;
  }

  // Four corners and the center, each followed by its horizontal flip.
  function tenViews(side, size) {
    const margin = side - size, middle = Math.floor(margin / 2);
    return [[0, 0], [0, margin], [margin, 0], [margin, margin], [middle, middle]].flatMap(([top, left]) => [false, true].map((flip) => ({ top, left, size, flip })));
  }

  // 12. Bytes that each of two towers sends in a training step: half of every input that both read, forward and back, and
  // half of the logits.
  const towerBytes = ({ inputs, classes, batch, bytes }) => batch * bytes * (inputs.reduce((a, b) => a + b, 0) + classes / 2);

  // Saturation of a kernel [channel][row][column]: the root of the share of its energy off the gray axis.
  function saturation(kernel) {
    const area = kernel.length / 3;
    let off = 0, all = 0;
    for (let i = 0; i < area; i++) {
      const gray = (kernel[i] + kernel[area + i] + kernel[2 * area + i]) / 3;
      for (let c = 0; c < 3; c++) { off += (kernel[c * area + i] - gray) ** 2; all += kernel[c * area + i] ** 2; }
    }
    return Math.sqrt(off / all);
  }
  function halves(list) {
    const half = list.length / 2, mean = (part) => part.reduce((a, b) => a + b, 0) / half;
    return [mean(list.slice(0, half)), mean(list.slice(half))];
  }
  // Permutation test: differences of the means of random halves, and the share that is as large as that of the halves.
  function permutationTest(list, permutations, seed) {
    const { shuffled } = random(seed), own = halves(list), difference = Math.abs(own[0] - own[1]), differences = [];
    for (let n = 0; n < permutations; n++) {
      const [a, b] = halves(shuffled(list.length).map((i) => list[i]));
      differences.push(a - b);
    }
    return { own, differences, p: (differences.filter((d) => Math.abs(d) >= difference - 1e-9).length + 1) / (permutations + 1) };
  }

  // 13. Rows nearest to a query by Euclidean distance: [[row, distance], ...], the smaller row first among equal ones.
  function nearest(query, rows, count) {
    const found = rows.map((row, i) => [i, Math.sqrt(row.reduce((sum, v, k) => sum + (v - query[k]) ** 2, 0))]);
    return found.sort((a, b) => a[1] - b[1] || a[0] - b[0]).slice(0, count);
  }

  return {
    outputSize, overhangPixels, convolutionCost, windowSum, featureMap, networkInput, localResponseNorm, pool, random, activations, layer,
    initialLayers, forward, softmax, gradients, paperUpdate, torchUpdate, train, crossing,
    subnetworks, geometricMean, descent, bowl, layerScales, colorComponents, colorOffset, crop, tenViews,
    towerBytes, saturation, permutationTest, nearest,
  };
})();
