// Attribution, nearest images, and mistakes.
import { errorMessage, getJson, postImage, sleep } from "/page/api.js";
import { byId, element, press, probabilityBars } from "/page/elements.js";
import { formatNumber, formatPercent, onLanguageChange, text } from "/page/messages.js";

const OVERLAYS = ["input", "gradient", "grad_cam"];
const LABELS = 5;
const NEIGHBORS = 6;
const MISTAKES = 12;
const MAX_MISTAKES = 200;

/** Returns the listener for every image that is shown. */
export function startExplanations(about) {
  let [image, explanation, neighbors, neighborsNote] = [null, null, null, ""];
  if (about.data?.evaluated_split) startMistakes();

  function drawAttribution() {
    byId("attribution-section").hidden = !image;
    if (!image || !explanation) return;
    byId("attribution").replaceChildren(
      ...OVERLAYS.map((name) =>
        element("li", {}, element("img", { src: explanation[name], alt: `${text(name)}, ${explanation.label}` }), element("small", { textContent: text(name) })),
      ),
    );
  }

  async function explain(label) {
    const current = image;
    const query = label === undefined ? "" : `?label=${encodeURIComponent(label)}`;
    try {
      const answer = await postImage(`/v1/explain${query}`, current, "explanations");
      if (current !== image) return;
      explanation = answer;
      drawAttribution();
    } catch (error) {
      if (current === image) byId("attribution").replaceChildren(element("li", { textContent: errorMessage(error) }));
    }
  }

  function drawLabels() {
    const buttons = image.top.slice(0, LABELS).map(({ label, probability }) => {
      const button = element("button", { type: "button", textContent: text("classProbability", { label, probability: formatPercent(probability) }) });
      button.addEventListener("click", () => {
        press(buttons, button);
        explain(label);
      });
      return button;
    });
    press(buttons, buttons[0]);
    byId("attribution-labels").replaceChildren(...buttons);
  }

  function drawNeighbors() {
    byId("neighbors-section").hidden = !image || !about.data?.splits.train;
    byId("neighbors-lead").textContent = text("neighborsLead", { layer: about.feature_layer, count: formatNumber(about.features) });
    byId("neighbors-note").textContent = neighborsNote ? text(neighborsNote) : "";
    byId("neighbors").replaceChildren(
      ...(neighbors ?? []).map((found) => {
        const agrees = found.label === image.label;
        const caption = element("small", { className: agrees ? "" : "other" }, found.label, element("br"), found.distance.toPrecision(3));
        return element("li", {}, element("img", { src: found.url, alt: found.label }), caption);
      }),
    );
  }

  async function findNeighbors() {
    const current = image;
    neighbors = null;
    drawNeighbors();
    if (!image || !about.data?.splits.train) return;
    try {
      while (!(await getJson("/v1/network")).data.index_ready) {
        if (current !== image) return;
        neighborsNote = "neighborsPending";
        drawNeighbors();
        await sleep(3000);
      }
      const answer = await postImage(`/v1/neighbors?k=${NEIGHBORS}`, current, "neighbors");
      if (current !== image) return;
      [neighbors, neighborsNote] = [answer.nearest, ""];
      drawNeighbors();
    } catch (error) {
      if (current === image) byId("neighbors-note").textContent = errorMessage(error);
    }
  }

  async function startMistakes() {
    let [answer, count] = [null, MISTAKES];
    const draw = () => {
      if (!answer) return;
      byId("mistakes-section").hidden = false;
      const values = { errors: formatNumber(answer.errors), evaluated: formatNumber(answer.evaluated), total: formatNumber(answer.total), split: answer.split };
      const key = !answer.errors ? "mistakesNone" : answer.evaluated < answer.total ? "mistakesSoFar" : "mistakesNote";
      byId("mistakes-note").textContent = text(key, values);
      byId("mistakes").replaceChildren(...answer.mistakes.map(mistakeCard));
      byId("more").hidden = answer.mistakes.length >= answer.errors || count >= MAX_MISTAKES;
    };
    const refresh = async () => {
      answer = await getJson(`/v1/mistakes?count=${count}`);
      draw();
    };
    byId("more").addEventListener("click", () => {
      count = Math.min(MAX_MISTAKES, count + MISTAKES);
      refresh();
    });
    onLanguageChange(draw);
    do {
      await refresh();
      if (answer.evaluated < answer.total) await sleep(4000);
    } while (answer.evaluated < answer.total);
  }

  onLanguageChange(() => {
    drawAttribution();
    drawNeighbors();
    if (image) drawLabels();
  });

  return (shown) => {
    [image, explanation, neighborsNote] = [shown, null, ""];
    drawAttribution();
    findNeighbors();
    if (!image) return;
    drawLabels();
    explain();
  };
}

function mistakeCard(mistake) {
  const predicted = mistake.top[0];
  const label = text("mistake", { label: mistake.label, predicted: predicted.label, probability: formatPercent(predicted.probability) });
  const button = element("button", { type: "button", className: "image", "aria-label": label }, element("img", { src: mistake.url, alt: "", loading: "lazy" }));
  button.addEventListener("click", () => dispatchEvent(new CustomEvent("inspect", { detail: mistake })));
  const about = element("div", { className: "about" }, element("b", { textContent: mistake.label }), element("span", { className: "name", textContent: mistake.name, title: mistake.name }));
  about.append(element("ol", { className: "bars" }, ...probabilityBars(mistake.top, formatPercent, mistake.label)));
  return element("li", {}, button, about);
}
