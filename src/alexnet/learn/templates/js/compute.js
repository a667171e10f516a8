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

  return { outputSize, overhangPixels, convolutionCost, windowSum, featureMap, networkInput, localResponseNorm, pool };
})();
